"""The vocabulary of a vCPU's state on x86_64: its elements in groups, with their reset values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class SegmentValue(NamedTuple):
    """The value of a segment register: a selector, and the parts of a descriptor."""

    selector: int
    base: int
    limit: int
    attributes: int
    """A descriptor's flag word: type 0-3, s 4, dpl 5-6, present 7, avl 12, l 13, db 14, g 15."""


STATE: Mapping[str, Mapping[str, int | SegmentValue]] = {
    "general": {
        "rax": 0,
        "rbx": 0,
        "rcx": 0,
        "rdx": 0,
        "rsi": 0,
        "rdi": 0,
        "rsp": 0,
        "rbp": 0,
        "r8": 0,
        "r9": 0,
        "r10": 0,
        "r11": 0,
        "r12": 0,
        "r13": 0,
        "r14": 0,
        "r15": 0,
        "rip": 0xFFF0,
        "rflags": 0x2,
    },
    "special": {
        "cs": SegmentValue(0xF000, 0xFFFF0000, 0xFFFF, 0x9B),
        "ds": SegmentValue(0, 0, 0xFFFF, 0x93),
        "es": SegmentValue(0, 0, 0xFFFF, 0x93),
        "fs": SegmentValue(0, 0, 0xFFFF, 0x93),
        "gs": SegmentValue(0, 0, 0xFFFF, 0x93),
        "ss": SegmentValue(0, 0, 0xFFFF, 0x93),
        "tr": SegmentValue(0, 0, 0xFFFF, 0x8B),
        "ldt": SegmentValue(0, 0, 0xFFFF, 0x82),
        "gdt.base": 0,
        "gdt.limit": 0xFFFF,
        "idt.base": 0,
        "idt.limit": 0xFFFF,
        "cr0": 0x60000010,
        "cr2": 0,
        "cr3": 0,
        "cr4": 0,
        "cr8": 0,
        "efer": 0,
        "apic_base": 0xFEE00900,
    },
    "fpu": {
        "fcw": 0x40,
        "fsw": 0,
        "ftw": 0,
        "fop": 0,
        "fip": 0,
        "fdp": 0,
        "mxcsr": 0x1F80,
        "st0": 0,
        "st1": 0,
        "st2": 0,
        "st3": 0,
        "st4": 0,
        "st5": 0,
        "st6": 0,
        "st7": 0,
        "xmm0": 0,
        "xmm1": 0,
        "xmm2": 0,
        "xmm3": 0,
        "xmm4": 0,
        "xmm5": 0,
        "xmm6": 0,
        "xmm7": 0,
        "xmm8": 0,
        "xmm9": 0,
        "xmm10": 0,
        "xmm11": 0,
        "xmm12": 0,
        "xmm13": 0,
        "xmm14": 0,
        "xmm15": 0,
    },
    "msrs": {
        "IA32_SYSENTER_CS": 0,
        "IA32_SYSENTER_ESP": 0,
        "IA32_SYSENTER_EIP": 0,
        "IA32_MISC_ENABLE": 0x1,
        "IA32_PAT": 0x0007040600070406,
        "IA32_MTRR_DEF_TYPE": 0,
        "IA32_STAR": 0,
        "IA32_LSTAR": 0,
        "IA32_CSTAR": 0,
        "IA32_FMASK": 0,
        "IA32_KERNEL_GS_BASE": 0,
        "IA32_TSC_AUX": 0,
    },
    "lapic": {
        "APIC_ID": 0,
        "APIC_TPR": 0,
        "APIC_LDR": 0,
        "APIC_DFR": 0xFFFFFFFF,
        "APIC_SVR": 0xFF,
        "APIC_LVT_CMCI": 0x10000,
        "APIC_LVT_TIMER": 0x10000,
        "APIC_LVT_THERMAL": 0x10000,
        "APIC_LVT_PERFORMANCE": 0x10000,
        "APIC_LVT_LINT0": 0x10000,
        "APIC_LVT_LINT1": 0x10000,
        "APIC_LVT_ERROR": 0x10000,
    },
    "debug": {
        "dr0": 0,
        "dr1": 0,
        "dr2": 0,
        "dr3": 0,
        "dr6": 0xFFFF0FF0,
        "dr7": 0x400,
    },
    "extended_control": {
        "xcr0": 0x1,
    },
    "events": {
        "pending_exception": 0,
        "pending_interrupt": 0,
        "pending_nmi": 0,
        "nmi_masked": 0,
        "interrupt_shadow": 0,
    },
    "activity": {
        "waits_for_sipi": 0,
    },
}
"""The vocabulary of a vCPU's state: groups of elements, each with its value after a hardware reset
(Intel SDM volume 3, table 10-1). Naming one element of a group means writing the whole group, so
that the same function leaves the same state on every hypervisor."""
