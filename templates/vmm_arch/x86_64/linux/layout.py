"""The layout of a Linux kernel in guest memory, as its image format determines it.

All addresses are guest-physical, all sizes in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmm_arch.boot.ranges import Segment, aligned
from vmm_arch.x86_64.platform import memory_map

HIGH_MEMORY = 0x100000
"""Kernel and initrd are loaded here or above; below is for a PC's firmware and the boot loader."""
MAPPED = 1 << 32
"""The page tables at the kernel's entry map the addresses below this (entry.Long64)."""

HOLE = memory_map.GuestMemory.HOLES[0]
"""The hole in memory that is laid out by size, which continues above it."""

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Layout:
    """How to load a kernel."""

    entry: int
    kernel: range
    """The addresses that the kernel occupies until it has read its memory map."""
    segments: tuple[Segment, ...]
    setup_header: bytes


def memory_up_to(end: int) -> str | None:
    """The remedy that gives RAM up to `end`; None if no size of memory does."""
    return memory_of(end) if end <= HOLE.start else None


def memory_of(size: int) -> str:
    return f"give the guest {aligned(size, _MIB) // _MIB} MiB of memory or more"
