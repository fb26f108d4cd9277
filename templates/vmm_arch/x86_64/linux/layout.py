"""The layout of a Linux kernel in guest memory, as its image format determines it.

All addresses are guest-physical, all sizes in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmm_arch.boot.ranges import Segment


@dataclass(frozen=True, slots=True)
class Layout:
    """How to load a kernel."""

    entry: int
    kernel: range
    """The addresses that the kernel occupies until it has read its memory map."""
    segments: tuple[Segment, ...]
    setup_header: bytes
