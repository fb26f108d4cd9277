"""CPUID leaves, and the parts of them that a VMM changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

from vmm_arch.x86_64.topology import Topology

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


def for_vcpu(entries: Iterable[CpuidEntry], topology: Topology, index: int) -> list[CpuidEntry]:
    """Fill in a vCPU's APIC id and the topology.

    Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E. Leaves are added only for dies, which
    Intel's leaf 0x1F has.
    """
    given = list(entries)
    apic_id, per_socket = topology.apic_id(index), topology.vcpus_per_socket
    amd = is_amd(given)
    filled = [
        _filled(entry, topology, index, amd)
        for entry in given
        if entry.function not in (0xB, 0x1F, 0x80000026)
    ]
    # The type of each level, how many of its processors are in one, and how to shift to the next.
    thread = (1, topology.threads, topology.core_shift)
    cores = (2, per_socket // topology.dies, topology.die_shift)
    core = (2, per_socket, topology.socket_shift)
    die = (5, per_socket, topology.socket_shift)
    levels = {
        0xB: (thread, core),
        0x1F: (thread, cores, die) if topology.dies > 1 else (thread, core),
        # AMD counts otherwise: 1 is a core, 3 a die, 4 a socket.
        0x80000026: (
            (1, topology.threads, topology.core_shift),
            (3, cores[1], topology.die_shift),
            (4, per_socket, topology.socket_shift),
        ),
    }
    there = {entry.function for entry in given}
    if topology.dies > 1 and 0xB in there and not amd:
        there.add(0x1F)
        filled = [
            replace(entry, eax=max(entry.eax, 0x1F)) if entry.function == 0 else entry
            for entry in filled
        ]
    for leaf in there & levels.keys():
        for number, (kind, count, shift) in enumerate(levels[leaf]):
            filled.append(CpuidEntry(leaf, number, shift, count, kind << 8 | number, apic_id))
        number = len(levels[leaf])
        filled.append(CpuidEntry(leaf, number, ecx=number, edx=apic_id))
    return sorted(filled, key=lambda entry: (entry.function, entry.index or 0))


def is_amd(entries: Iterable[CpuidEntry]) -> bool:
    """Whether the processor is one of AMD's, or of Hygon's, which are alike."""
    return any(_vendor(entry) in _AMD for entry in entries if entry.function == 0)


def _vendor(entry: CpuidEntry) -> bytes:
    return b"".join(part.to_bytes(4, "little") for part in (entry.ebx, entry.edx, entry.ecx))


def _filled(entry: CpuidEntry, topology: Topology, index: int, is_amd: bool) -> CpuidEntry:
    apic_id, count = topology.apic_id(index), topology.vcpus_per_socket
    sharing = (1 << topology.core_shift) - 1, (1 << topology.die_shift) - 1
    """Of the APIC ids of a core, and of a die."""
    match entry.function:
        case 0x1:
            ids = min(1 << topology.socket_shift, 0xFF)
            ebx = entry.ebx & 0xFFFF | (apic_id & 0xFF) << 24 | ids << 16
            return replace(entry, ebx=ebx, edx=entry.edx & ~HTT | HTT * (count > 1))
        case 0x4 if entry.eax & 0x1F:  # Intel's caches: the third level is the die's
            shared = sharing[entry.eax >> 5 & 7 >= 3]
            cores = min((1 << topology.socket_shift - topology.core_shift) - 1, 63)
            return replace(entry, eax=entry.eax & 0x3FFF | (shared & 0xFFF) << 14 | cores << 26)
        case 0x80000001 if is_amd:
            return replace(entry, ecx=entry.ecx & ~CMP_LEGACY | CMP_LEGACY * (count > 1))
        case 0x80000008:
            width, most = topology.socket_shift, min(count - 1, 0xFF)
            return replace(entry, ecx=entry.ecx & ~0xF0FF | (width & 0xF) << 12 | most)
        case 0x8000001D if entry.eax & 0x1F:  # AMD's caches
            shared = sharing[entry.eax >> 5 & 7 >= 3]
            return replace(entry, eax=entry.eax & ~(0xFFF << 14) | (shared & 0xFFF) << 14)
        case 0x8000001E:
            core = (apic_id & (1 << topology.socket_shift) - 1) >> topology.core_shift
            node = index // (count // topology.dies)
            ebx = topology.threads - 1 << 8 | core & 0xFF
            return replace(
                entry, eax=apic_id, ebx=ebx, ecx=topology.dies - 1 << 8 & 0x700 | node & 0xFF
            )
    return entry
