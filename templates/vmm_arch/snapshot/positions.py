"""Reading and writing a file at a position, on every system, by several threads at once."""

from __future__ import annotations

import os
import sys
from threading import Lock
from typing import Final

_MOVING: Final = Lock()
"""For systems where reading and writing moves a position that all threads share."""


def read_at(descriptor: int, at: int, size: int) -> bytes:
    """Read `size` bytes from byte `at` on; less only where the file ends."""
    parts: list[bytes] = []
    while size and (part := _read(descriptor, at, size)):
        parts.append(part)
        at += len(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def write_at(descriptor: int, at: int, data: bytes) -> None:
    """Write all of `data` from byte `at` on."""
    left = memoryview(data)
    while left:
        written = _write(descriptor, at, left)
        at += written
        left = left[written:]


if sys.platform == "win32":

    def _read(descriptor: int, at: int, size: int) -> bytes:
        with _MOVING:
            os.lseek(descriptor, at, os.SEEK_SET)
            return os.read(descriptor, size)

    def _write(descriptor: int, at: int, data: memoryview) -> int:
        with _MOVING:
            os.lseek(descriptor, at, os.SEEK_SET)
            return os.write(descriptor, data)

else:

    def _read(descriptor: int, at: int, size: int) -> bytes:
        return os.pread(descriptor, size, at)

    def _write(descriptor: int, at: int, data: memoryview) -> int:
        return os.pwrite(descriptor, data, at)
