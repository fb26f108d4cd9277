"""Where a Linux kernel goes in guest memory, and what its own format says of that.

All addresses are guest-physical, all sizes in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmm_arch.boot.ranges import Segment, aligned
from vmm_arch.x86_64.platform import memory_map

HIGH_MEMORY = 0x100000
"""Kernel and initrd go here or above; below is what a PC's firmware and a boot loader need."""
MAPPED = 1 << 32
"""A kernel begins with page tables that map what is below (entry.Long64)."""

HOLE = memory_map.GuestMemory.HOLES[0]
"""Where memory laid out by size has none; it goes on behind."""

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Layout:
    """What a kernel's own format says of how to load it."""

    entry: int
    kernel: range
    """Addresses that are the kernel's until it knows its memory: nothing else may be there."""
    segments: tuple[Segment, ...]
    setup_header: bytes


def memory_up_to(end: int) -> str | None:
    """What to do for RAM up to `end`, or None if no size of memory gives it."""
    return memory_of(end) if end <= HOLE.start else None


def memory_of(size: int) -> str:
    return f"give the guest {aligned(size, _MIB) // _MIB} MiB of memory or more"
