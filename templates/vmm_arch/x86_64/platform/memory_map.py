"""The layout of a PC's memory: what is where, and where there is none.

All addresses are guest-physical, all sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from vmm_arch import memory
from vmm_arch.boot.ranges import aligned
from vmm_arch.x86_64.platform.resources import IO_APIC_ADDRESS, LOCAL_APIC_ADDRESS

IRQCHIP_PAGES: Final = {IO_APIC_ADDRESS: "the I/O APIC", LOCAL_APIC_ADDRESS: "the local APICs"}
"""The pages of the interrupt controllers' registers."""
EBDA: Final = range(0x9FC00, 0xA0000)
"""The extended BIOS data area."""
BIOS: Final = range(0xF0000, 0x100000)
HIGH_MEMORY: Final = 0x100000
"""Kernels are loaded here or above; below is for a PC's firmware and the boot loader."""
_MIB = 1 << 20


class GuestMemory(memory.GuestMemory):
    """Guest memory; by size, it leaves out the last GiB below 4 GiB, for devices and firmware."""

    HOLES: ClassVar[tuple[range, ...]] = (range(0xC0000000, 1 << 32),)


HOLE: Final = GuestMemory.HOLES[0]
"""The hole in memory that is laid out by size, which continues above it."""


def memory_up_to(end: int) -> str | None:
    """The remedy that gives RAM up to `end`; None if no size of memory does."""
    return memory_of(end) if end <= HOLE.start else None


def memory_of(size: int) -> str:
    """The remedy that gives memory of this size."""
    return f"give the guest {aligned(size, _MIB) // _MIB} MiB of memory or more"


def check_room_for_irqchip(regions: Iterable[memory.Region]) -> None:
    """Raise ValueError if memory overlaps the interrupt controllers' registers.

    Which of the two the guest would see depends on the hypervisor.
    """
    for region in regions:
        for page, owner in IRQCHIP_PAGES.items():
            if region.address < page + memory.PAGE_SIZE and page < region.end:
                raise ValueError(
                    f"region of {region.size:#x} bytes at {region.address:#x} covers the page at"
                    f" {page:#x}, which belongs to {owner} of an irqchip: end the region there and start"
                    f" another at {page + memory.PAGE_SIZE:#x}, or create the machine without irqchip"
                )
