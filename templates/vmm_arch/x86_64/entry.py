"""Where and how a guest's first instruction is executed, one class for each mode.

What surrounds it (descriptor tables, page tables) is written to guest memory by
``configure_system``, once for a machine.
"""

from __future__ import annotations

from dataclasses import dataclass

CODE_SELECTOR = 0x10
DATA_SELECTOR = 0x18
TSS_SELECTOR = 0x20


@dataclass(frozen=True, slots=True)
class Entry:
    """What all modes have in common; use one of the classes below. All addresses are
    guest-physical, and paging, where it is on, maps them to themselves."""

    address: int
    """Of the first instruction."""
    rsp: int = 0
    rbx: int = 0
    rsi: int = 0

    @property
    def rip(self) -> int:
        return self.address


@dataclass(frozen=True, slots=True)
class RealMode(Entry):
    """16-bit code below 1 MiB. CS is 0 if the address is below 64 KiB, all other segments are."""

    def __post_init__(self) -> None:
        if not 0 <= self.address < 0x100000:
            where = f"{self.address:#x} is no address that real mode reaches"
            raise ValueError(f"{where}; enter below 0x100000")

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
    """Where the descriptor table is."""


@dataclass(frozen=True, slots=True)
class Long64(Entry):
    """64-bit code: the first 4 GiB mapped to themselves, no interrupts."""

    gdt: int = 0x500
    page_tables: int = 0x9000
    """Where the page tables begin, six pages."""
