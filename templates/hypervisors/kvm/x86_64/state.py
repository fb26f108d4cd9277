"""Where KVM keeps the state of an x86_64 vCPU.

``SINKS``: the calls that write state, in the order that KVM requires. ``constructor`` makes the
argument: a record of the raw ABI (shape "record"), a function with a keyword for each slot
("keywords"), or one that takes a dictionary ("table"). ``variable`` is the argument's name in a
function, ``type`` the type that copies prepared state before run-time values are filled in.
``composites`` gives, for each type of value with several parts, the function that makes one and
the member that each part is. ``calls`` are the interface's that read or write what is in the sink.

``SLOTS``: for each group of the vocabulary its sink, and patterns that map each element to its slot;
``*`` stands for the same text on both sides. A slot of a record is a path: ``gdt.base``,
``interrupt_bitmap[0]``, ``gprs[SOME_INDEX].low``.
"""

SINKS = {
    "activity": {
        "operation": "set_activity",
        "shape": "record",
        "constructor": "kvm_mp_state",
        "variable": "activity",
        "calls": ("KVM_GET_MP_STATE", "KVM_SET_MP_STATE"),
    },
    # Before the LAPIC, because it has the APIC's base.
    "sregs": {
        "operation": "set_sregs",
        "shape": "record",
        "constructor": "kvm_sregs",
        "variable": "sregs",
        "composites": {
            "SegmentValue": (
                "_segment_image",
                {"selector": "selector", "base": "base", "limit": "limit"},
            )
        },
        "calls": ("KVM_GET_SREGS", "KVM_SET_SREGS"),
    },
    # Before the events, because it clears pending exceptions.
    "regs": {
        "operation": "set_regs",
        "shape": "record",
        "constructor": "kvm_regs",
        "variable": "regs",
        "calls": ("KVM_GET_REGS", "KVM_SET_REGS"),
    },
    # Not KVM_SET_FPU, which has no effect on a new vCPU and never sets MXCSR.
    "xsave": {
        "operation": "set_fpu",
        "shape": "keywords",
        "constructor": "Fpu",
        "variable": "fpu",
        "calls": ("KVM_GET_XSAVE", "KVM_SET_XSAVE"),
    },
    "xcrs": {
        "operation": "set_xcrs",
        "shape": "keywords",
        "constructor": "_xcrs_image",
        "variable": "xcrs",
        "when": "vcpu.vm._has_xcrs",
        "calls": ("KVM_SET_XCRS",),
    },
    "debugregs": {
        "operation": "set_debugregs",
        "shape": "keywords",
        "constructor": "_debugregs_image",
        "variable": "debugregs",
        "calls": ("KVM_GET_DEBUGREGS", "KVM_SET_DEBUGREGS"),
    },
    # Before the MSRs, because the timer's mode decides whether the TSC deadline can be set.
    "lapic": {
        "operation": "set_lapic",
        "shape": "table",
        "constructor": "_lapic_image",
        "type": "Lapic",
        "variable": "lapic",
        "when": "vcpu.vm.irqchip",
        "calls": ("KVM_GET_LAPIC", "KVM_SET_LAPIC"),
    },
    "msrs": {
        "operation": "set_msr_image",
        "shape": "table",
        "constructor": "_msrs_image",
        "variable": "msrs",
        "calls": ("KVM_GET_MSRS", "KVM_SET_MSRS"),
    },
    "events": {
        "operation": "set_events",
        "shape": "record",
        "constructor": "kvm_vcpu_events",
        "variable": "events",
        "fixed": {"flags": "KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW"},
        "calls": ("KVM_GET_VCPU_EVENTS", "KVM_SET_VCPU_EVENTS"),
    },
}

SLOTS = {
    "general": ("regs", {"*": "*"}),
    "special": ("sregs", {"*": "*"}),
    "fpu": ("xsave", {"*": "*"}),
    "msrs": ("msrs", {"*": "*"}),
    "lapic": ("lapic", {"*": "*"}),
    "debug": ("debugregs", {"*": "*"}),
    "extended_control": ("xcrs", {"*": "*"}),
    "events": (
        "events",
        {
            "pending_exception": "exception.injected",
            "pending_interrupt": "interrupt.injected",
            "pending_nmi": "nmi.pending",
            "nmi_masked": "nmi.masked",
            "interrupt_shadow": "interrupt.shadow",
        },
    ),
    # KVM_MP_STATE_RUNNABLE is 0, KVM_MP_STATE_UNINITIALIZED 1.
    "activity": ("activity", {"waits_for_sipi": "mp_state"}),
}

NOT_STATE = {
    "KVM_[GS]ET_FPU": "x87 and SSE registers: a part of what KVM_GET_XSAVE has",
    "KVM_[GS]ET_PIT": "KVM_GET_PIT2 has it all, and its flags",
    "KVM_[GS]ET_NR_MMU_PAGES": "the host's memory for shadow page tables",
    "KVM_XEN_*": "guests of Xen's interface are not supported: it is not in the CPUID given to them",
    "KVM_SET_CPUID": "an older form of KVM_SET_CPUID2",
    "KVM_SET_GUEST_DEBUG": "what the VMM's debugger asks for, not what the guest does",
    "KVM_SET_SIGNAL_MASK": "signals of the thread that runs the vCPU",
    "KVM_SET_BOOT_CPU_ID": "always vCPU 0",
    "KVM_SET_TSS_ADDR": "an address that KVM uses by itself, below 4 GiB where no memory is",
    "KVM_SET_IDENTITY_MAP_ADDR": "an address that KVM uses by itself, as above",
    "KVM_SET_USER_MEMORY_REGION": "guest memory is GuestMemory's",
    "KVM_SET_USER_MEMORY_REGION2": "guest memory is GuestMemory's",
    "KVM_SET_MEMORY_ATTRIBUTES": "guest memory is GuestMemory's, and none of it is private",
    "KVM_SET_GSI_ROUTING": "the lines are routed as KVM_CREATE_IRQCHIP leaves them",
    "KVM_SET_PMU_EVENT_FILTER": "the VMM's policy, which a guest cannot see or change",
    "KVM_X86_SET_MSR_FILTER": "the VMM's policy, which a guest cannot change",
    "KVM_SET_VAPIC_ADDR": "for guests that patch accesses to the TPR (32-bit Windows); not used here",
    "KVM_X86_SET_MCE": "injects a machine check; its banks are MSRs",
    "KVM_ARM_*": "Arm's",
    "KVM_[GS]ET_CPUID2": "the machine's argument, which Vm keeps: not read back yet",
    "KVM_[GS]ET_SREGS2": "KVM_GET_SREGS, and PDPTRs: not saved yet",
    "KVM_GET_XSAVE2": "KVM_GET_XSAVE of any size: not saved yet",
    "KVM_[GS]ET_ONE_REG": "the MSRs again, and the shadow stack's pointer: not saved yet",
    "KVM_[GS]ET_DEVICE_ATTR": "the time stamp counter's offset: not saved yet",
    "KVM_[GS]ET_TSC_KHZ": "not saved yet",
    "KVM_GET_XCRS": "not saved yet",
    "KVM_[GS]ET_NESTED_STATE": "not saved yet: hide nested virtualization from the guest's CPUID",
    "KVM_[GS]ET_CLOCK": "the machine's: not saved yet",
    "KVM_[GS]ET_IRQCHIP": "the machine's: not saved yet",
    "KVM_[GS]ET_PIT2": "the machine's: not saved yet",
}
"""Calls that set something that is not the guest's state, by name or pattern, and why it is not."""

CREATION_GUARANTEES = ("fpu", "debug", "extended_control", "events", "activity")
"""Groups that a new vCPU has as required on every kernel, so that configure_vcpu leaves them out.

Not the same as a hardware reset: KVM begins with the FPU as after FNINIT and MXCSR 0x1F80."""
