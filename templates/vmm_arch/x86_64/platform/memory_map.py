"""The layout of guest memory on x86_64."""

from __future__ import annotations

from typing import ClassVar, Final

from vmm_arch import memory
from vmm_arch.x86_64.platform.resources import IO_APIC_ADDRESS, LOCAL_APIC_ADDRESS

IRQCHIP_PAGES: Final = {IO_APIC_ADDRESS: "the I/O APIC", LOCAL_APIC_ADDRESS: "the local APICs"}
"""The pages of the interrupt controllers' registers."""


class GuestMemory(memory.GuestMemory):
    """Guest memory; by size, it leaves out the last GiB below 4 GiB, for devices and firmware."""

    HOLES: ClassVar[tuple[range, ...]] = (range(0xC0000000, 1 << 32),)


def check_room_for_irqchip(guest_memory: memory.GuestMemory) -> None:
    """Raise ValueError if memory overlaps the interrupt controllers' registers.

    Which of the two the guest would see depends on the hypervisor.
    """
    for region in guest_memory.regions:
        for page, owner in IRQCHIP_PAGES.items():
            if region.address < page + memory.PAGE_SIZE and page < region.end:
                raise ValueError(
                    f"region of {region.size:#x} bytes at {region.address:#x} covers the page at"
                    f" {page:#x}, which belongs to {owner} of an irqchip: end the region there and start"
                    f" another at {page + memory.PAGE_SIZE:#x}, or create the machine without irqchip"
                )
