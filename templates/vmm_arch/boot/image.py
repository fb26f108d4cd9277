"""A kernel or initrd as bytes, wherever they are stored; reads are checked against its size."""

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
    """A path, the bytes themselves, or a binary file, from its current position to its end."""

CORRUPT = "the image is corrupt or cut short: get or build it again"
"""The remedy for most faults of an image."""

_PIECE = 1 << 20
_ZEROS = bytes(_PIECE)


class KernelImageError(ValueError):
    """A kernel, its command line or its initrd cannot be loaded; nothing was written.

    Except if the file is truncated while it is being loaded: then part of it was.
    """


class OtherProtocolError(KernelImageError):
    """A kernel that is entered by another boot protocol than the loader's."""

    def __init__(self, message: str, protocol: str) -> None:
        super().__init__(message)
        self.protocol = protocol
        """Its name, such as ``"pvh"``: ``load_pvh`` is the loader."""

    def __reduce__(self) -> tuple[type[OtherProtocolError], tuple[str, str]]:
        return type(self), (str(self), self.protocol)


@dataclass(frozen=True, slots=True)
class Image:
    """A number of bytes that can be read at any offset. Their content is untrusted."""

    name: str
    size: int
    _file: BinaryIO
    _start: int

    def read(self, offset: int, size: int, what: str) -> bytes:
        """Read `size` bytes from `offset` on; raises KernelImageError if `what` is cut short."""
        if offset + size > self.size:
            place = f"{what}, [{offset:#x}, {offset + size:#x})"
            raise self.error(f"it ends at {self.size:#x}, before the end of {place}", CORRUPT)
        return b"".join(self._pieces(offset, size))

    def copy(self, offset: int, size: int, memory: GuestMemory, address: int) -> None:
        """Copy bytes, already checked to be in the image, to a guest-physical address."""
        for piece in self._pieces(offset, size):
            memory.write(address, piece)
            address += len(piece)

    def load(self, segment: Segment, memory: GuestMemory) -> None:
        """Load a segment, already checked to be in the image and in memory, to its address."""
        self.copy(segment.offset, segment.file_size, memory, segment.address)
        _clear(memory, segment.address + segment.file_size, segment.end)

    def require_content(self) -> None:
        """Raise KernelImageError if there is none."""
        if not self.size:
            raise self.error("it is empty", CORRUPT)

    def rewind(self) -> None:
        """Restore the file's position."""
        self._file.seek(self._start)

    def error(self, problem: str, remedy: str) -> KernelImageError:
        return KernelImageError(f"{self.name}: {problem}; {remedy}")

    def error_of_protocol(self, problem: str, protocol: str) -> OtherProtocolError:
        """The error for a kernel that the loader of another protocol takes."""
        remedy = f"give another kernel; load_{protocol}() is for these"
        return OtherProtocolError(str(self.error(problem, remedy)), protocol)

    def _pieces(self, offset: int, size: int) -> Iterator[bytes]:
        self._file.seek(self._start + offset)
        while size:
            piece = self._file.read(min(size, _PIECE))
            if not piece:
                problem = f"it was truncated by {size:#x} of its {self.size:#x} bytes since opened"
                raise self.error(problem, "do not change it while it is loaded")
            yield piece
            size -= len(piece)


def terminated(text: str | bytes, role: str) -> bytes:
    """A text for a kernel: UTF-8, zero-terminated. `role` names it in errors."""
    try:
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else bytes(text)
    except UnicodeEncodeError as error:
        raise KernelImageError(f"{role}: {error}; give bytes") from None
    if 0 in data:
        problem = f"byte {data.index(0)} is zero, which would end it"
        raise KernelImageError(f"{role}: {problem}; remove that byte")
    return data + b"\0"


def described(record: LittleEndianStructure, field: str, base: int = 0) -> str:
    """A field in an error: its name, its offset (the record begins at `base`) and its value."""
    offset = base + getattr(type(record), field).offset
    return f"{field} at {offset:#x} is {getattr(record, field):#x}"


def _clear(memory: GuestMemory, start: int, end: int) -> None:
    """Write zeros only where memory is not zero: pages that are never touched cost nothing."""
    for address in range(start, end, _PIECE):
        size = min(_PIECE, end - address)
        if memory.read(address, size) != _ZEROS[:size]:
            memory.write(address, _ZEROS[:size])


@contextmanager
def opened(source: Source, role: str, limit: int) -> Iterator[Image]:
    """Open an image; `role` names it in errors if it has no name.

    A source that cannot seek, such as a pipe, is read into memory; KernelImageError if it has more
    than `limit` bytes. A file that is passed open stays open, and its position is restored. Raises
    OSError if the file cannot be opened or read, TypeError for any other kind of object.
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
    """A binary file unchanged, or a bytes-like object (a mapped file included) as a file."""
    if isinstance(source, bytes):
        return io.BytesIO(source)  # without a copy
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
                problem = f"it has more than {limit:#x} bytes, the size of guest memory"
                raise KernelImageError(f"{name}: {problem}; give a smaller one, or a file")
        content.seek(0)
        file = content
    start = file.tell()
    return Image(name, max(file.seek(0, os.SEEK_END) - start, 0), file, start)
