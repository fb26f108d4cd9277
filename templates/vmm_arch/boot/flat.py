"""Loads flat binaries: code without a header, on any CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm_arch.boot.image import opened
from vmm_arch.boot.ranges import holds, listing, runs_of
from vmm_arch.memory import GuestMemory

if TYPE_CHECKING:
    from vmm_arch.boot.image import Source


def load_flat(memory: GuestMemory, code: Source, address: int) -> None:
    """Load a flat binary, given as a path, bytes or a binary file, to a guest-physical address.

    Memory that is read-only for the guest is allowed, for firmware. Raises KernelImageError, with
    nothing written, if it is empty or does not fit; OSError if it cannot be read.
    """
    with opened(code, "binary", sum(region.size for region in memory.regions)) as image:
        image.require_content()
        wanted = range(address, address + image.size)
        runs = runs_of(memory, writable=False)
        if not holds(runs, wanted):
            problem = f"it would go to {listing([wanted])}; memory is {listing(runs)}"
            raise image.error(problem, "load it elsewhere, or give the guest memory there")
        image.copy(0, image.size, memory, address)
