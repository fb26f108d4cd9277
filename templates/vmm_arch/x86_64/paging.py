"""Walks a guest's page tables in its memory (Intel SDM volume 3, 4.3 to 4.5; AMD APM volume 2, 5.3).

A hypervisor's own ``translate`` gives only the result; this shows which entry is not present, and
works with saved registers that the vCPU no longer has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from vmm_arch.memory import PAGE_SIZE, GuestMemory, MemoryAccessError

_CR0_PG = 1 << 31
_CR4_PSE, _CR4_PAE, _CR4_LA57 = 1 << 4, 1 << 5, 1 << 12
_EFER_LMA = 1 << 10
_PRESENT, _LARGE = 1, 1 << 7
_ADDRESS = 0x000F_FFFF_FFFF_F000
_MOST_TABLES = 1 << 14
"""Of a guest: they map 32 GiB if all pages are small ones."""


class Registers(Protocol):
    """The control registers that determine paging."""

    cr0: int
    cr3: int
    cr4: int
    efer: int


@dataclass(frozen=True, slots=True)
class Step:
    """An entry on the way from CR3 to a page."""

    table: str
    index: int
    address: int
    """The entry's guest-physical address."""
    value: int | None
    """The entry; None if there is no memory at its address."""

    def __str__(self) -> str:
        value = "no memory" if self.value is None else f"{self.value:016x}"
        return f"{self.table}[{self.index}] at {self.address:#x}: {value}"


@dataclass(frozen=True, slots=True)
class Walk:
    """The result of a page walk, and its steps."""

    steps: tuple[Step, ...]
    """Empty without paging."""
    physical: int | None
    """The guest-physical address; None if the last entry is not present or not in memory."""

    def __str__(self) -> str:
        return "not mapped" if self.physical is None else f"physical {self.physical:#x}"


@dataclass(frozen=True, slots=True)
class _Level:
    table: str
    shift: int
    bits: int
    may_be_large: bool


_32_BIT = (_Level("PD", 22, 10, True), _Level("PT", 12, 10, False))
_PAE = (_Level("PDPT", 30, 2, False), _Level("PD", 21, 9, True), _Level("PT", 12, 9, False))
_LONG = (
    _Level("PML4", 39, 9, False),
    _Level("PDPT", 30, 9, True),
    _Level("PD", 21, 9, True),
    _Level("PT", 12, 9, False),
)
_LA57 = (_Level("PML5", 48, 9, False), *_LONG)


def walk(memory: GuestMemory, registers: Registers, linear: int) -> Walk:
    """Walk the guest's page tables for a linear address, as they are in memory now.

    Permissions are not checked, only presence. A non-canonical address is not mapped, nor is one of
    more than 32 bits outside long mode.
    """
    if not registers.cr0 & _CR0_PG:
        return Walk((), linear)
    levels = _levels(registers)
    width = levels[0].shift + levels[0].bits
    if not (_canonical(linear, width) if registers.efer & _EFER_LMA else linear < 1 << 32):
        return Walk((), None)
    steps: list[Step] = []
    for level, step in _steps(memory, registers, levels, linear):
        steps.append(step)
        if step.value is None or not step.value & _PRESENT:
            return Walk(tuple(steps), None)
        if level.shift == 12 or (level.may_be_large and step.value & _LARGE):
            offset = linear & ((1 << level.shift) - 1)
            return Walk(tuple(steps), _page(step.value, level) | offset)
    raise AssertionError("the last level maps a page")


def mappings(memory: GuestMemory, registers: Registers) -> Iterator[tuple[int, int, int]]:
    """Every run of linear addresses that the page tables map: linear and physical address, size.

    In ascending order; a run is contiguous on both sides, and as long as it can be. Presence alone
    counts, as for walk(). Raises ValueError if there are so many tables that they make no sense,
    such as those of a guest that went wrong.
    """
    if not registers.cr0 & _CR0_PG:
        return
    levels = _levels(registers)
    run: tuple[int, int, int] | None = None
    pages = _pages(memory, registers, levels, _root(registers), 0, iter(range(_MOST_TABLES)))
    for linear, physical, size in pages:
        if run is not None and run[0] + run[2] == linear and run[1] + run[2] == physical:
            run = (run[0], run[1], run[2] + size)
            continue
        if run is not None:
            yield run
        run = (linear, physical, size)
    if run is not None:
        yield run


def _pages(
    memory: GuestMemory,
    registers: Registers,
    levels: tuple[_Level, ...],
    table: int,
    base: int,
    tables_left: Iterator[int],
) -> Iterator[tuple[int, int, int]]:
    """Every page that a table of the first of these levels maps, and those below it."""
    if next(tables_left, None) is None:
        raise ValueError(f"there are more than {_MOST_TABLES} page tables at {registers.cr3:#x}")
    level, *lower = levels
    try:
        entries = memory.read(table, _entry_size(levels) << level.bits)
    except MemoryAccessError:
        return
    for index, value in enumerate(memoryview(entries).cast("I" if level.bits == 10 else "Q")):
        if not value & _PRESENT:
            continue
        linear = base | index << level.shift
        if level.table.startswith("PML") and not base and index >> level.bits - 1:
            linear |= (1 << 64) - (1 << level.shift + level.bits)  # canonical
        if level.shift == 12 or (level.may_be_large and value & _LARGE):
            yield linear, _page(value, level), 1 << level.shift
        else:
            yield from _pages(
                memory, registers, tuple(lower), value & _ADDRESS, linear, tables_left
            )


def _page(value: int, level: _Level) -> int:
    """The physical address of the page that an entry maps."""
    page = value & _ADDRESS & ~((1 << level.shift) - 1)
    if level.shift == 22:  # bits 13 to 20 are the page's bits 32 to 39 (PSE-36)
        page |= (value >> 13 & 0xFF) << 32
    return page


def _levels(registers: Registers) -> tuple[_Level, ...]:
    if registers.efer & _EFER_LMA:
        return _LA57 if registers.cr4 & _CR4_LA57 else _LONG
    if registers.cr4 & _CR4_PAE:
        return _PAE
    if registers.cr4 & _CR4_PSE:
        return _32_BIT
    return (_Level("PD", 22, 10, False), _32_BIT[1])


def _steps(
    memory: GuestMemory, registers: Registers, levels: tuple[_Level, ...], linear: int
) -> Iterator[tuple[_Level, Step]]:
    size = _entry_size(levels)
    table = _root(registers)
    for level in levels:
        index = linear >> level.shift & ((1 << level.bits) - 1)
        address = table + index * size
        try:
            value = int.from_bytes(memory.read(address, size), "little")
        except MemoryAccessError:
            value = None
        yield level, Step(level.table, index, address, value)
        table = (value or 0) & _ADDRESS


def _root(registers: Registers) -> int:
    """The address of the first table."""
    return registers.cr3 & (0xFFFF_FFE0 if _levels(registers) is _PAE else _ADDRESS)


def _entry_size(levels: Sequence[_Level]) -> int:
    return 4 if levels[-1].bits == 10 else 8


def _canonical(linear: int, width: int) -> bool:
    upper = linear >> (width - 1)
    return upper in (0, (1 << (65 - width)) - 1)


def read_linear(
    memory: GuestMemory, registers: Registers, linear: int, size: int
) -> list[int | None]:
    """Read bytes at a linear address, across pages; None for each that is not mapped."""
    found: list[int | None] = []
    while len(found) < size:
        at = linear + len(found) & (1 << 64) - 1
        part = min(size - len(found), PAGE_SIZE - at % PAGE_SIZE)
        physical = walk(memory, registers, at).physical
        try:
            found += [None] * part if physical is None else memory.read(physical, part)
        except MemoryAccessError:
            found += [None] * part
    return found
