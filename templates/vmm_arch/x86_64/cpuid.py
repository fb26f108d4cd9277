"""CPUID leaves, and the parts of them that a VMM changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

HYPERVISOR_PRESENT = 1 << 31
"""In ECX of leaf 1: the guest runs under a hypervisor."""
TSC_DEADLINE = 1 << 24
"""In ECX of leaf 1: the local APIC's timer has a deadline mode."""
HTT = 1 << 28
"""In EDX of leaf 1: the package has more than one logical processor."""
OSXSAVE = 1 << 27
"""In ECX of leaf 1: a copy of CR4.OSXSAVE."""
X2APIC = 1 << 21
"""In ECX of leaf 1: depends on what emulates the local APIC."""
APIC = 1 << 9
"""In EDX of leaf 1: a copy of the enable bit in the APIC base MSR."""
OSPKE = 1 << 4
"""In ECX of leaf 7: a copy of CR4.PKE."""
CMP_LEGACY = 1 << 1
"""In ECX of leaf 0x80000001 on AMD: the logical processors are cores."""
_AMD = (b"AuthenticAMD", b"HygonGenuine")

Answer: TypeAlias = tuple[int, int, int, int]
"""EAX, EBX, ECX and EDX."""
RANGES = (0, 0x40000000, 0x80000000)
"""The first basic, hypervisor and extended leaf."""
SUBLEAVES = {
    **dict.fromkeys((0x4, 0x7, 0xB, 0x1F), 8),
    0xD: 64,
    **dict.fromkeys((0xF, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1A, 0x1D, 0x1E, 0x20, 0x23), 8),
    0x8000001D: 8,
    0x80000020: 8,
    0x80000026: 8,
}
"""The leaves that depend on ECX, and how many subleaves are queried."""


@dataclass(frozen=True, slots=True)
class CpuidEntry:
    """One CPUID result: for a leaf (EAX) and, if the leaf has them, a subleaf (ECX)."""

    function: int
    index: int | None
    """The subleaf; None if ECX does not matter."""
    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "index" and value is None:
                continue
            if not 0 <= value < 1 << 32:
                raise ValueError(
                    f"CPUID {self.function:#x}: {field.name}={value:#x} is not an unsigned 32-bit value"
                )


def identity(entries: Iterable[CpuidEntry]) -> str:
    """Vendor, family, model and stepping, as in "AuthenticAMD family 25 model 17 stepping 1".

    Source: AMD APM volume 3, E.3.2; Intel SDM volume 2A, CPUID.
    """
    answers = {entry.function: entry for entry in entries if entry.function in (0, 1)}
    if len(answers) < 2:
        return "unknown"
    leaf, vendor = answers[0], b""
    for register in (leaf.ebx, leaf.edx, leaf.ecx):
        vendor += register.to_bytes(4, "little")
    signature = answers[1].eax
    family, model = signature >> 8 & 0xF, signature >> 4 & 0xF
    if family in (0x6, 0xF):
        model |= signature >> 12 & 0xF0
    if family == 0xF:
        family += signature >> 20 & 0xFF
    name = vendor.decode("ascii", "replace")
    return f"{name} family {family} model {model} stepping {signature & 0xF}"


def hypervisor_signature(entries: Iterable[CpuidEntry]) -> str:
    """What a hypervisor calls itself, as in "KVMKVMKVM": leaf 0x40000000; "none" if it does not."""
    for entry in entries:
        if entry.function == 0x40000000:
            registers = (entry.ebx, entry.ecx, entry.edx)
            text = b"".join(register.to_bytes(4, "little") for register in registers)
            return text.rstrip(b"\0").decode("ascii", "replace")
    return "none"


def for_host(entries: Iterable[CpuidEntry], *, deadline: bool) -> list[CpuidEntry]:
    """Adjust the hypervisor's supported CPUID for guests: set the hypervisor bit.

    ``deadline``: whether the local APIC's timer has a deadline mode.
    """
    added = HYPERVISOR_PRESENT | TSC_DEADLINE * deadline
    return [
        replace(entry, ecx=entry.ecx & ~TSC_DEADLINE | added) if entry.function == 1 else entry
        for entry in entries
    ]


def for_machine(entries: Iterable[CpuidEntry], *, irqchip: bool) -> list[CpuidEntry]:
    """Remove what a machine lacks: without an irqchip, the local APIC timer's deadline mode."""
    kept = ~(TSC_DEADLINE * (not irqchip))
    return [
        replace(entry, ecx=entry.ecx & kept) if entry.function == 1 else entry for entry in entries
    ]


def enumerated(ask: Callable[[int, int], Answer]) -> Iterator[CpuidEntry]:
    """Query all leaves and subleaves (Intel SDM volume 2, CPUID).

    ``ask`` executes the instruction and returns EAX, EBX, ECX and EDX.
    """
    for base in RANGES:
        highest = ask(base, 0)[0]
        for function in range(base, min(highest, base + 0xFF) + 1 if highest >= base else base):
            if function not in SUBLEAVES:
                yield CpuidEntry(function, None, *ask(function, 0))
                continue
            for index in range(SUBLEAVES[function]):
                answer = ask(function, index)
                if any(answer) or index == 0:
                    yield CpuidEntry(function, index, *answer)


def processors_own(function: int, index: int) -> Answer:
    """The bits of a result that depend on what the guest has enabled, or on the vCPU."""
    match function, index:
        case 0x1, _:
            return 0, 0, OSXSAVE | X2APIC, APIC
        case 0x7, 0:
            return 0, 0, OSPKE, 0
        case 0xD, 0 | 1:  # the size of what XCR0 and XSS enable
            return 0, 0xFFFFFFFF, 0, 0
    return 0, 0, 0, 0


def for_vcpu(entries: Iterable[CpuidEntry], index: int, count: int) -> list[CpuidEntry]:
    """Fill in a vCPU's APIC id and the topology: one package of ``count`` cores with one thread.

    Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E. No leaf is added.
    """
    given = list(entries)
    width = (count - 1).bit_length()
    sharing = (1 << width) - 1  # of a package's APIC ids
    amd = is_amd(given)
    filled = [
        _filled(entry, index, count, width, sharing, amd)
        for entry in given
        if entry.function not in (0xB, 0x1F)
    ]
    for leaf in sorted({entry.function for entry in given} & {0xB, 0x1F}):
        filled += [
            CpuidEntry(leaf, 0, eax=0, ebx=1, ecx=0x100, edx=index),  # threads of a core
            CpuidEntry(leaf, 1, eax=width, ebx=count, ecx=0x201, edx=index),  # cores
            CpuidEntry(leaf, 2, ecx=2, edx=index),
        ]
    return sorted(filled, key=lambda entry: (entry.function, entry.index or 0))


def is_amd(entries: Iterable[CpuidEntry]) -> bool:
    """Whether the processor is one of AMD's, or of Hygon's, which are alike."""
    return any(_vendor(entry) in _AMD for entry in entries if entry.function == 0)


def _vendor(entry: CpuidEntry) -> bytes:
    return b"".join(part.to_bytes(4, "little") for part in (entry.ebx, entry.edx, entry.ecx))


def _filled(
    entry: CpuidEntry, index: int, count: int, width: int, sharing: int, is_amd: bool
) -> CpuidEntry:
    match entry.function:
        case 0x1:
            ebx = entry.ebx & 0xFFFF | index << 24 | min(1 << width, 0xFF) << 16
            return replace(entry, ebx=ebx, edx=entry.edx & ~HTT | HTT * (count > 1))
        case 0x4 if entry.eax & 0x1F:  # Intel's caches: the third level is the package's
            shared = sharing * (entry.eax >> 5 & 7 >= 3)
            return replace(entry, eax=entry.eax & 0x3FFF | shared << 14 | min(sharing, 63) << 26)
        case 0x80000001 if is_amd:
            return replace(entry, ecx=entry.ecx & ~CMP_LEGACY | CMP_LEGACY * (count > 1))
        case 0x80000008:
            return replace(entry, ecx=entry.ecx & ~0xF0FF | width << 12 | count - 1)
        case 0x8000001D if entry.eax & 0x1F:  # AMD's caches
            shared = sharing * (entry.eax >> 5 & 7 >= 3)
            return replace(entry, eax=entry.eax & ~(0xFFF << 14) | shared << 14)
        case 0x8000001E:
            return replace(entry, eax=index, ebx=index, ecx=0)
    return entry
