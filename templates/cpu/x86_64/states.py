"""The named states in which a vCPU of x86_64 begins, written once for every hypervisor.

A state lists the differences from the contract's reset values. A string is an expression in the
arch function's scope, where ``vcpu`` and ``entry`` are known; a name in capitals is a constant.
"""

STATES = {
    # Independent of the mode. The FPU is as after FNINIT, with every exception masked.
    "boot": {
        "rip": "entry.rip",
        "rsp": "entry.rsp",
        "rbp": "entry.rsp",
        "rax": "entry.rax",
        "rbx": "entry.rbx",
        "rsi": "entry.rsi",
        "fcw": 0x37F,
        "IA32_MISC_ENABLE": "MISC_ENABLE_FAST_STRINGS",
        "IA32_MTRR_DEF_TYPE": "MTRR_ENABLE | MTRR_TYPE_WRITE_BACK",
        "APIC_ID": "(vcpu.apic_id & 0xFF) << 24",
        "APIC_LVT_LINT0": "LVT_EXTINT",
        "APIC_LVT_LINT1": "LVT_NMI",
    },
    # The boot processor: runs at once. Its APIC id is 0.
    "boot_processor": {
        "extends": "boot",
        "APIC_ID": 0,
    },
    # Caches on, as firmware leaves them.
    "real_mode": {
        "extends": "boot_processor",
        "cs": ("entry.cs_selector", "entry.cs_base", 0xFFFF, 0x9B),
        "cr0": "CR0_ET",
    },
    # As Multiboot and PVH require.
    "protected32": {
        "extends": "boot_processor",
        "cs": ("CODE_SELECTOR", 0, 0xFFFFFFFF, "CODE32_ATTRIBUTES"),
        "ds": ("DATA_SELECTOR", 0, 0xFFFFFFFF, "DATA_ATTRIBUTES"),
        "es": ("DATA_SELECTOR", 0, 0xFFFFFFFF, "DATA_ATTRIBUTES"),
        "fs": ("DATA_SELECTOR", 0, 0xFFFFFFFF, "DATA_ATTRIBUTES"),
        "gs": ("DATA_SELECTOR", 0, 0xFFFFFFFF, "DATA_ATTRIBUTES"),
        "ss": ("DATA_SELECTOR", 0, 0xFFFFFFFF, "DATA_ATTRIBUTES"),
        "tr": ("TSS_SELECTOR", 0, "TSS_LIMIT", "TSS_ATTRIBUTES"),
        "gdt.base": "entry.gdt",
        "gdt.limit": "GDT_LIMIT",
        "idt.limit": 0,
        "cr0": "CR0_PE | CR0_ET",
    },
    # Documentation/arch/x86/boot.rst, 64-bit boot protocol.
    "long64": {
        "extends": "protected32",
        "cs": ("CODE_SELECTOR", 0, 0xFFFFFFFF, "CODE64_ATTRIBUTES"),
        "cr0": "CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_PG",
        "cr3": "entry.page_tables",
        "cr4": "CR4_PAE",
        "efer": "EFER_LME | EFER_LMA",
    },
    # Waits for INIT and SIPI, which set everything but what is written here.
    "secondary": {
        "extends": "boot",
        "rip": 0xFFF0,
        "rsp": 0,
        "rbp": 0,
        "rax": 0,
        "rbx": 0,
        "rsi": 0,
        "apic_base": 0xFEE00800,
        "APIC_LVT_LINT0": 0x10000,
        "APIC_LVT_LINT1": 0x10000,
        "waits_for_sipi": 1,
    },
}

MODES = {"real_mode": "RealMode", "protected32": "Protected32", "long64": "Long64"}
"""The states in which the boot processor can begin, each with its entry class."""

INIT_KEEPS = ("msrs",)
"""The groups that INIT keeps and creation does not guarantee: all that a new secondary needs."""
