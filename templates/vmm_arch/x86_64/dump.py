"""A readable dump of a vCPU, for when its guest has ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

from vmm_arch.activity import Activity
from vmm_arch.errors import HypervisorError, VcpuError
from vmm_arch.memory import GuestMemory
from vmm_arch.x86_64.events import Events
from vmm_arch.x86_64.paging import read_linear, walk

_GENERAL: Final[tuple[tuple[str, ...], ...]] = (
    ("rax", "rbx", "rcx", "rdx"),
    ("rsi", "rdi", "rbp", "rsp"),
    ("r8", "r9", "r10", "r11"),
    ("r12", "r13", "r14", "r15"),
    ("rip", "rflags"),
)
_CONTROL: Final[tuple[tuple[str, ...], ...]] = (
    ("cr0", "cr2", "cr3", "cr4"),
    ("cr8", "efer", "apic_base"),
)
_DEBUG: Final[tuple[tuple[str, ...], ...]] = (("dr0", "dr1", "dr2", "dr3"), ("dr6", "dr7"))
_SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs", "tr", "ldt")
_CODE: Final = 16
"""Bytes of code before RIP, and from RIP on."""
_STACK: Final = 8
"""Words of the stack."""
_EFER_LMA: Final = 1 << 10

AFTER_INIT: Final = (
    "these are the register values after INIT: AMD processors reset themselves at a triple fault,"
    " so the place of the fault is lost"
)


class Vcpu(Protocol):
    """What is used of a vCPU."""

    @property
    def index(self) -> int: ...
    def get_activity(self) -> Activity: ...
    def get_regs(self) -> Any: ...
    def get_sregs(self) -> Any: ...
    def get_debugregs(self) -> Mapping[str, int]: ...
    def get_events(self) -> Events: ...


def dump(vcpu: Vcpu, memory: GuestMemory) -> str:
    """Describe a vCPU that is not running: activity, registers, code, stack and page tables.

    Parts that cannot be read are marked as such; the rest is shown.
    """
    try:
        activity, regs, sregs = vcpu.get_activity(), vcpu.get_regs(), vcpu.get_sregs()
    except (HypervisorError, VcpuError) as error:
        return f"vCPU {vcpu.index}: no registers: {error}"
    does = "" if activity is Activity.RUNNING else f" {activity}"
    lines = [f"vCPU {vcpu.index}:{does}"]
    if _is_after_init(regs, sregs):
        lines.append(f"  {AFTER_INIT}")
    lines += describe(regs, sregs, memory)
    lines += _optional_state(vcpu)
    return "\n".join(lines)


def is_after_init(vcpu: Vcpu) -> bool:
    """Whether a vCPU is at the reset vector, as after INIT (SDM volume 3, table 10-1)."""
    try:
        return _is_after_init(vcpu.get_regs(), vcpu.get_sregs())
    except (HypervisorError, VcpuError):
        return False


def _is_after_init(regs: Any, sregs: Any) -> bool:
    return bool(regs.rip == 0xFFF0 and sregs.cs.base == 0xFFFF0000 and not sregs.cr0 & 1)


def describe(regs: Any, sregs: Any, memory: GuestMemory) -> Iterator[str]:
    """Describe registers, and what they point to in the guest's memory, line by line."""
    for names in _GENERAL:
        yield _row(regs, names)
    for names in _CONTROL:
        yield _row(sregs, names)
    for name in _SEGMENTS:
        segment = getattr(sregs, name)
        yield (
            f"  {name:3} {segment.selector:04x} base {segment.base:016x} limit {segment.limit:08x}"
            f" type {segment.type:x} dpl {segment.dpl} {'l' if segment.l else 'db'}"
            f" {segment.l or segment.db}"
        )
    for name in ("gdt", "idt"):
        table = getattr(sregs, name)
        yield f"  {name}      base {table.base:016x} limit {table.limit:08x}"
    rip, rsp = linear(sregs, "cs", regs.rip), linear(sregs, "ss", regs.rsp)
    yield from _code(memory, sregs, rip)
    yield from _stack(memory, sregs, rsp)
    if sregs.cr0 >> 31 & 1:
        addresses = {"rip": rip, "rsp": rsp}
        if sregs.cr2:
            addresses["cr2"] = sregs.cr2
        for name, address in addresses.items():
            found = walk(memory, sregs, address)
            yield f"  {name} {address:016x}: {found}"
            yield from (f"    {step}" for step in found.steps)


def linear(sregs: Any, segment: str, offset: int) -> int:
    """The linear address of an offset in CS or SS; in 64-bit code, the offset itself."""
    if sregs.efer & _EFER_LMA and sregs.cs.l:
        return offset
    return int(getattr(sregs, segment).base + offset) & 0xFFFFFFFF


def _optional_state(vcpu: Vcpu) -> Iterator[str]:
    """The state that not every hypervisor can read."""
    try:
        debug = vcpu.get_debugregs()
        for names in _DEBUG:
            yield "  " + "  ".join(f"{name:>9} {debug[name]:016x}" for name in names)
    except HypervisorError as error:
        yield f"  no debug registers: {error}"
    try:
        yield f"  pending: {vcpu.get_events()}"
    except HypervisorError as error:
        yield f"  pending events unknown: {error}"


def _row(record: Any, names: tuple[str, ...]) -> str:
    return "  " + "  ".join(f"{name:>9} {getattr(record, name):016x}" for name in names)


def _code(memory: GuestMemory, sregs: Any, rip: int) -> Iterator[str]:
    before = read_linear(memory, sregs, rip - _CODE, _CODE) if rip >= _CODE else []
    found = read_linear(memory, sregs, rip, _CODE)
    if any(byte is not None for byte in before):
        yield f"  before rip: {_bytes(before)}"
    if found[0] is None:
        yield f"  at rip: {rip:#x} is not mapped or has no memory"
    else:
        yield f"  at rip: {_bytes(found)}"


def _stack(memory: GuestMemory, sregs: Any, rsp: int) -> Iterator[str]:
    size = 8 if sregs.efer & _EFER_LMA and sregs.cs.l else 4 if sregs.cr0 & 1 else 2
    found = read_linear(memory, sregs, rsp, _STACK * size)
    words = [found[at : at + size] for at in range(0, len(found), size)]
    shown = [_word(word) for word in words]
    yield f"  at rsp: {' '.join(shown[: _STACK // 2])}"
    yield f"          {' '.join(shown[_STACK // 2 :])}"


def _word(word: list[int | None]) -> str:
    return "".join("??" if byte is None else f"{byte:02x}" for byte in reversed(word))


def _bytes(found: list[int | None]) -> str:
    return " ".join("??" if byte is None else f"{byte:02x}" for byte in found)
