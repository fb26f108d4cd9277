"""Guest memory as a file: pages of zeros become holes, which cost no space where files have them.

What is written here is read back by mapping it (``GuestMemory(…, file=…)``). Sizes are in bytes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator

from vmm_arch.backing import BackingError, File, stat_of
from vmm_arch.replacing import replacing

_PAGE = 0x1000
_PIECE = 1 << 20
_ZEROS = bytes(_PIECE)


def write_sparse(file: File, offset: int, parts: Iterable[memoryview], size: int) -> None:
    """Write `parts`, together `size` bytes, to a file from `offset` on; the file ends behind them.

    A path gets a new file, which replaces the old one when it is whole; memory that is mapped from
    the old one keeps it. A descriptor's file must end at `offset` or before, since cutting a file
    short ends the processes that use memory mapped from it. Raises BackingError, OSError.
    """
    if isinstance(file, int):
        _require_room(file, offset)
        _write(file, offset, parts, size)
        return
    path = os.fspath(file)
    if offset < 0:
        raise BackingError(path, [f"offset {offset:#x} is below 0; give 0 or more"])
    with replacing(path) as descriptor:
        _write(descriptor, offset, parts, size)


def _require_room(descriptor: int, offset: int) -> None:
    where = f"descriptor {descriptor}"
    length = stat_of(where, descriptor).st_size
    problems = []
    if offset < 0:
        problems.append(f"offset {offset:#x} is below 0; give 0 or more")
    elif length > offset:
        problems.append(
            f"ends at {length:#x}, after offset {offset:#x}; give an empty file, or that offset"
        )
    if sys.platform != "win32":
        import fcntl

        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        if flags & os.O_ACCMODE == os.O_RDONLY:
            problems.append("is open for reading only; open it for writing")
        if flags & os.O_APPEND:
            problems.append("is open for appending, so that no hole can be left; open it without")
    if problems:
        raise BackingError(where, problems)


def _write(descriptor: int, offset: int, parts: Iterable[memoryview], size: int) -> None:
    os.ftruncate(descriptor, offset + size)
    for part in parts:
        for start, data in _runs(part):
            os.lseek(descriptor, offset + start, os.SEEK_SET)
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
        offset += len(part)


def _runs(part: memoryview) -> Iterator[tuple[int, bytes]]:
    """Yield the runs of pages that are not zero, copied once, with their offsets in `part`."""
    for start in range(0, len(part), _PIECE):
        piece = bytes(part[start : start + _PIECE])
        if piece == _ZEROS[: len(piece)]:
            continue
        run = None
        for at in range(0, len(piece), _PAGE):
            if piece[at : at + _PAGE] == _ZEROS[:_PAGE]:
                if run is not None:
                    yield start + run, piece[run:at]
                run = None
            elif run is None:
                run = at
        if run is not None:
            yield start + run, piece[run:]
