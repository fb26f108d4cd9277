"""Entries: address and mode of a guest's first instruction, one class for each mode.

Each writes the tables that it needs to guest memory, once for a machine: ``configure_system`` calls
:meth:`Entry.write_tables`. An entry of one's own is a subclass, whose mode is that of its base.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vmm_arch.memory import GuestMemory
from vmm_arch.x86_64.tables import (
    CODE32_ATTRIBUTES,
    CODE64_ATTRIBUTES,
    GDT_SIZE,
    MAPPED,
    PAGE_TABLES_SIZE,
    descriptor_table,
    page_tables,
)
from vmm_arch.x86_64.topology import Topology


class Tables(Protocol):
    """What is used of a :class:`~vmm_arch.x86_64.platform.description.Platform`."""

    def write(self, memory: GuestMemory, topology: Topology, /) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """The base of all modes; use one of the classes below. All addresses are guest-physical; paging,
    if on, maps them to themselves."""

    address: int
    """Of the first instruction."""
    rsp: int = 0
    rax: int = 0
    rbx: int = 0
    rsi: int = 0

    def __post_init__(self) -> None:
        for name in ("address", "rsp", "rax", "rbx", "rsi"):
            value = getattr(self, name)
            if not isinstance(value, int):
                raise TypeError(f"{name}: expected int, got {type(value).__name__}")
            if not 0 <= value < 1 << 64:
                raise ValueError(f"{name}={value:#x} is not an unsigned 64-bit value")

    @property
    def rip(self) -> int:
        return self.address

    def write_tables(
        self, memory: GuestMemory, topology: Topology, platform: Tables | None = None
    ) -> None:
        """Write what the guest needs in memory on a machine with these vCPUs.

        That is nothing but ``platform``, if there is one. Raises MemoryAccessError if it is outside
        guest memory.
        """
        if platform is not None:
            platform.write(memory, topology)


@dataclass(frozen=True, slots=True)
class RealMode(Entry):
    """16-bit code below 1 MiB. CS is 0 if the address is below 64 KiB; all other segments are 0."""

    def __post_init__(self) -> None:
        Entry.__post_init__(self)
        if not 0 <= self.address < 0x100000:
            raise ValueError(f"real mode cannot reach {self.address:#x}; enter below 0x100000")

    @property
    def rip(self) -> int:
        """The offset in the code segment."""
        return self.address & 0xFFFF

    @property
    def cs_base(self) -> int:
        return self.address & 0xF0000

    @property
    def cs_selector(self) -> int:
        return (self.address & 0xF0000) >> 4


@dataclass(frozen=True, slots=True)
class Protected32(Entry):
    """32-bit code: flat segments of 4 GiB, no paging, no interrupts."""

    gdt: int = 0x500
    """Where configure_system() puts the descriptor table: 48 bytes."""

    def __post_init__(self) -> None:
        Entry.__post_init__(self)
        _check_place(self.address, "gdt", self.gdt, GDT_SIZE, 8)

    def write_tables(
        self, memory: GuestMemory, topology: Topology, platform: Tables | None = None
    ) -> None:
        """Write descriptor table, and the platform's tables."""
        Entry.write_tables(self, memory, topology, platform)
        memory.write(self.gdt, descriptor_table(CODE32_ATTRIBUTES))


@dataclass(frozen=True, slots=True)
class Long64(Entry):
    """64-bit code: the first 4 GiB mapped to themselves, no interrupts."""

    gdt: int = 0x500
    """Where configure_system() puts the descriptor table: 48 bytes."""
    page_tables: int = 0x9000
    """Where configure_system() puts the page tables: six pages, by default up to 0xEFFF."""

    def __post_init__(self) -> None:
        Entry.__post_init__(self)
        _check_place(self.address, "gdt", self.gdt, GDT_SIZE, 8)
        _check_place(self.address, "page_tables", self.page_tables, PAGE_TABLES_SIZE, 0x1000)

    def write_tables(
        self, memory: GuestMemory, topology: Topology, platform: Tables | None = None
    ) -> None:
        """Write descriptor table and page tables, and the platform's tables."""
        Entry.write_tables(self, memory, topology, platform)
        memory.write(self.gdt, descriptor_table(CODE64_ATTRIBUTES))
        memory.write(self.page_tables, page_tables(self.page_tables))


def _check_place(address: int, name: str, place: int, size: int, alignment: int) -> None:
    if address >= MAPPED:
        raise ValueError(f"address {address:#x} is beyond the first 4 GiB, which are mapped")
    if not isinstance(place, int):
        raise TypeError(f"{name}: expected int, got {type(place).__name__}")
    if place % alignment or not 0 <= place <= MAPPED - size:
        raise ValueError(f"{name}={place:#x} is not a multiple of {alignment:#x} below 4 GiB")
    if place <= address < place + size:
        raise ValueError(
            f"the code at {address:#x} would be overwritten: {name} takes {size:#x} bytes from"
            f" {place:#x} on; move one of them"
        )
