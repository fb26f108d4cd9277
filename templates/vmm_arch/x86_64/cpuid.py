"""What the CPUID instruction answers, leaf by leaf, and the parts that VMMs change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

HYPERVISOR_PRESENT = 1 << 31
"""In ECX of leaf 1: the guest runs under a hypervisor."""
TSC_DEADLINE = 1 << 24
"""In ECX of leaf 1: the local APIC's timer has a deadline mode."""
HTT = 1 << 28
"""In EDX of leaf 1: the package has more than one logical processor."""


@dataclass(frozen=True, slots=True)
class CpuidEntry:
    """One answer of CPUID: for a leaf in EAX and, where the leaf has them, a subleaf in ECX."""

    function: int
    index: int | None
    """The subleaf; None if ECX does not matter."""
    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0


def for_vcpu(
    entries: Iterable[CpuidEntry], index: int, count: int, *, irqchip: bool
) -> list[CpuidEntry]:
    """Fill in what tells one vCPU from another: its APIC id and how many there are.

    Hypervisors differ in whether the bits for a hypervisor and for the APIC timer's deadline mode
    come set; here they say what is so.
    """
    filled = []
    width = (count - 1).bit_length()
    for entry in entries:
        match entry.function:
            case 0x1:
                ebx = entry.ebx & 0xFFFF | index << 24 | min(1 << width, 0xFF) << 16
                ecx = entry.ecx & ~TSC_DEADLINE | HYPERVISOR_PRESENT | TSC_DEADLINE * irqchip
                edx = entry.edx & ~HTT | HTT * (count > 1)
                entry = replace(entry, ebx=ebx, ecx=ecx, edx=edx)
            case 0xB | 0x1F:
                entry = replace(entry, edx=index)
                if entry.index == 0:  # threads of a core: one
                    entry = replace(entry, eax=0, ebx=1, ecx=0x100)
                elif entry.index == 1:  # logical processors of the package
                    entry = replace(entry, eax=width, ebx=count, ecx=0x201)
                else:
                    entry = replace(entry, eax=0, ebx=0, ecx=entry.index or 0)
            case 0x8000001E:
                entry = replace(entry, eax=index)
        filled.append(entry)
    return filled
