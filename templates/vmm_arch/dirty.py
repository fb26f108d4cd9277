"""Pages that a guest has written: bitmaps as hypervisors give them, and what they mean."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from vmm_arch.errors import HypervisorError
from vmm_arch.memory import PAGE_SIZE


def address_of(bitmap: bytearray) -> int:
    """Where a bitmap lies in this process; it must not be resized meanwhile."""
    return ctypes.addressof(ctypes.c_char.from_buffer(bitmap))


def pages_of(bitmap: bytes | bytearray, address: int) -> Iterator[int]:
    """The addresses of the pages whose bits are set, if the first bit is that of ``address``."""
    for at in range(0, len(bitmap), 8):
        bits = int.from_bytes(bitmap[at : at + 8], "little")
        while bits:
            lowest = bits & -bits
            yield address + (8 * at + lowest.bit_length() - 1) * PAGE_SIZE
            bits ^= lowest


def not_tracked(operation: str) -> HypervisorError:
    """Say that a machine does not keep account of written pages."""
    return HypervisorError(operation, "EINVAL", "the machine was made without track_dirty")
