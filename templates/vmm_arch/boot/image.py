"""The bytes of a kernel or an initrd, wherever they are: read in pieces, never more than are there."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import LittleEndianStructure
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, cast

from vmm_arch.boot.ranges import Segment
from vmm_arch.memory import GuestMemory

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    Source: TypeAlias = str | os.PathLike[str] | ReadableBuffer | BinaryIO
    """A path, the bytes themselves, or a binary file, from where it stands to its end."""

CORRUPT = "the image is corrupt or cut short: get or build it again"
"""What to do about most that can be wrong with an image."""

_PIECE = 1 << 20
_ZEROS = bytes(_PIECE)


class KernelImageError(ValueError):
    """A kernel, its command line or its initrd cannot be loaded; nothing was written.

    Only where a file becomes shorter while it is being loaded, some of it was.
    """


@dataclass(frozen=True, slots=True)
class Image:
    """So many bytes that can be read at any offset. Nothing that they say is trusted."""

    name: str
    size: int
    _file: BinaryIO
    _start: int

    def read(self, offset: int, size: int, what: str) -> bytes:
        """Read `size` bytes from `offset` on; KernelImageError says that not all of `what` is there."""
        if offset + size > self.size:
            place = f"{what}, [{offset:#x}, {offset + size:#x})"
            raise self.error(f"it ends at {self.size:#x}, before the end of {place}", CORRUPT)
        return b"".join(self._pieces(offset, size))

    def copy(self, offset: int, size: int, memory: GuestMemory, address: int) -> None:
        """Copy bytes that are known to exist to a guest-physical address."""
        for piece in self._pieces(offset, size):
            memory.write(address, piece)
            address += len(piece)

    def load(self, segment: Segment, memory: GuestMemory) -> None:
        """Put a segment, known to be in the image and in memory, where it belongs."""
        self.copy(segment.offset, segment.file_size, memory, segment.address)
        _clear(memory, segment.address + segment.file_size, segment.end)

    def rewind(self) -> None:
        """Put the file back to where it stood."""
        self._file.seek(self._start)

    def error(self, problem: str, remedy: str) -> KernelImageError:
        return KernelImageError(f"{self.name}: {problem}; {remedy}")

    def _pieces(self, offset: int, size: int) -> Iterator[bytes]:
        self._file.seek(self._start + offset)
        while size:
            piece = self._file.read(min(size, _PIECE))
            if not piece:
                problem = f"{size:#x} of its {self.size:#x} bytes are gone since it was opened"
                raise self.error(problem, "keep it as it is while it is loaded")
            yield piece
            size -= len(piece)


def terminated(text: str | bytes, role: str) -> bytes:
    """What a kernel is told, as it is written: UTF-8 and a zero. `role` is what errors call it."""
    try:
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else bytes(text)
    except UnicodeEncodeError as error:
        raise KernelImageError(f"{role}: {error}; give bytes") from None
    if 0 in data:
        problem = f"byte {data.index(0)} is zero, where it would end"
        raise KernelImageError(f"{role}: {problem}; remove that byte")
    return data + b"\0"


def described(record: LittleEndianStructure, field: str, base: int = 0) -> str:
    """A field for an error: its name, its offset if the record begins at `base`, its value."""
    offset = base + getattr(type(record), field).offset
    return f"{field} at {offset:#x} is {getattr(record, field):#x}"


def _clear(memory: GuestMemory, start: int, end: int) -> None:
    """Write zeros where something else is: only pages that are touched cost memory."""
    for address in range(start, end, _PIECE):
        size = min(_PIECE, end - address)
        if memory.read(address, size) != _ZEROS[:size]:
            memory.write(address, _ZEROS[:size])


@contextmanager
def opened(source: Source, role: str, limit: int) -> Iterator[Image]:
    """Open an image; `role` is what errors call it if it has no name.

    What can only be read once, such as a pipe, is read here, `limit` bytes of it at most: more is a
    KernelImageError. A file that is given open stays so, and stands afterwards where it stood.
    Raises OSError where one cannot be opened or read, TypeError for anything that is none.
    """
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            yield _image(file, f"{role} {os.fspath(source)}", limit)
    elif isinstance(source, io.TextIOBase):
        raise TypeError(f"the {role} is a text file; open it in binary mode")
    else:
        image = _image(_file(source), role, limit)
        try:
            yield image
        finally:
            image.rewind()


def _file(source: ReadableBuffer | BinaryIO) -> BinaryIO:
    """A binary file as it is, and one made of anything bytes-like, a mapped file included."""
    if isinstance(source, bytes):
        return io.BytesIO(source)  # shares them
    try:
        view = memoryview(cast("ReadableBuffer", source))
    except TypeError:
        if hasattr(source, "read"):
            return cast(BinaryIO, source)
        raise
    with view:
        return io.BytesIO(view.tobytes())


def _image(file: BinaryIO, name: str, limit: int) -> Image:
    if not file.seekable():
        content = io.BytesIO()
        while piece := file.read(_PIECE):
            content.write(piece)
            if content.tell() > limit:
                problem = f"it has more bytes than the guest has memory, {limit:#x}"
                raise KernelImageError(f"{name}: {problem}; give less, or a file")
        content.seek(0)
        file = content
    start = file.tell()
    return Image(name, max(file.seek(0, os.SEEK_END) - start, 0), file, start)
