"""Dirty pages: from a hypervisor's bitmap to guest-physical addresses."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from vmm_arch.errors import HypervisorError
from vmm_arch.memory import PAGE_SIZE


def address_of(bitmap: bytearray) -> int:
    """The host address of a bitmap; valid until the bitmap is resized."""
    return ctypes.addressof(ctypes.c_char.from_buffer(bitmap))


def pages_of(bitmap: bytes | bytearray, address: int) -> Iterator[int]:
    """The addresses of the pages whose bits are set; the first bit is the page at ``address``."""
    for at in range(0, len(bitmap), 8):
        bits = int.from_bytes(bitmap[at : at + 8], "little")
        while bits:
            lowest = bits & -bits
            yield address + (8 * at + lowest.bit_length() - 1) * PAGE_SIZE
            bits ^= lowest


def not_tracked(operation: str) -> HypervisorError:
    """The error for a machine that does not track dirty pages."""
    return HypervisorError(operation, "EINVAL", "the machine was created without track_dirty")
