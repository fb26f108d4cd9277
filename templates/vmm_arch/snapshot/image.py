"""The memory of a snapshot: in files, mostly without a name, that machines map copy-on-write.

Offsets are in bytes from the beginning of guest memory, whose regions lie one after the other
without what is between them, as :meth:`~vmm_arch.memory.GuestMemory.save` writes them.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from mmap import PAGESIZE
from typing import Any, Final, TypeAlias

from vmm_arch.backing import CAN_REMAP, Piece
from vmm_arch.errors import ClosedError
from vmm_arch.forks import ForkLock
from vmm_arch.memory import PAGE_SIZE, GuestMemory, Region
from vmm_arch.snapshot.positions import read_at, write_at

Extent: TypeAlias = tuple[int, int]
"""The offsets of a first byte and of the one after the last: of whole pages."""
_PIECE: Final = 1 << 20
_LARGE_HOLE: Final = 0x4000
_MAPPED_HOLES: Final = 64
_OVERLAYS: Final = 256
"""Of a process's 65,530 mappings, and a few microseconds each."""


class Layer:
    """Memory in a file, from byte ``offset`` on; the descriptor is closed with the last reference.

    What is in no extent is zero, or, in an increment's layer, as in the layer below. As a context
    manager it is closed on an error, whose traceback would keep it open.
    """

    __slots__ = ("__weakref__", "_close", "_holes", "descriptor", "extents", "offset", "size")
    descriptor: int
    offset: int
    size: int
    extents: Sequence[Extent]
    """Ascending, and apart from each other."""

    def __init__(self, descriptor: int, offset: int, size: int, extents: Sequence[Extent]) -> None:
        """Take over an open descriptor."""
        self._close = weakref.finalize(self, os.close, descriptor)
        self._holes: Sequence[Extent] | None = None
        self.descriptor = descriptor
        self.offset = offset
        self.size = size
        self.extents = extents

    @property
    def holes(self) -> Sequence[Extent]:
        """The largest holes; not all, since each costs a machine a mapping."""
        if self._holes is None:
            self._holes = tuple(_largest(between(self.extents, self.size)))
        return self._holes

    def __enter__(self) -> Layer:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if error is not None:
            self._close()

    def pieces(self, extents: Iterable[Extent]) -> Iterator[tuple[int, bytes]]:
        """Read some extents, in pieces with their offsets; OSError if the file was cut short."""
        for start, end in extents:
            for at in range(start, end, _PIECE):
                size = min(_PIECE, end - at)
                piece = read_at(self.descriptor, self.offset + at, size)
                if len(piece) < size:
                    raise OSError(errno.EIO, "a snapshot's file was cut short while it was in use")
                yield at, piece


class MemoryImage:
    """A copy of guest memory at one moment: it costs the pages that are not zero.

    An increment's costs only what was written since its base, which it shares. Machines map one over
    the other, unless there are too many pieces, or the system cannot: then, and if somebody asks for
    all in one file, it is put together once. May be used by several threads.
    """

    __slots__ = ("__weakref__", "_below", "_lock", "_top", "_whole")
    _top: Layer | None
    """None once it is closed."""
    _below: tuple[Layer, ...]
    """What an increment's layer lies on, the lowest first, until it is whole."""
    _whole: Layer | None

    def __init__(self, top: Layer, base: MemoryImage | None = None) -> None:
        """Take a layer with all of memory, or one that lies on another image.

        Raises ClosedError if the other one is closed.
        """
        self._top = top
        self._below = base._layers() if base is not None else ()
        self._whole = top if base is None else None
        self._lock = ForkLock()

    @classmethod
    def of(cls, memory: GuestMemory) -> MemoryImage:
        """Copy memory, which nobody may change meanwhile. Raises OSError."""
        size = sum(region.size for region in memory.regions)
        with Layer(nameless_file(), 0, size, ()) as layer:
            memory.save(layer.descriptor)
            layer.extents = tuple(_data(layer.descriptor, size))
        return cls(layer)

    @classmethod
    def of_written(
        cls, memory: GuestMemory, written: Iterable[tuple[int, int]], base: MemoryImage
    ) -> MemoryImage:
        """Copy what was written since ``base``: from each first address to the one after the last.

        They are those of whole pages, ascending. Raises ClosedError, OSError.
        """
        extents: list[Extent] = []
        size = sum(region.size for region in memory.regions)
        with Layer(nameless_file(), 0, size, extents) as layer:
            os.ftruncate(layer.descriptor, size)
            for address, offset, length in _offsets(memory.regions, written):
                for at in range(0, length, _PIECE):
                    piece = memory.read(address + at, min(_PIECE, length - at))
                    write_at(layer.descriptor, offset + at, piece)
                start = extents.pop()[0] if extents and extents[-1][1] == offset else offset
                extents.append((start, offset + length))
            return cls(layer, base)

    @property
    def descriptor(self) -> int:
        """A file with all of memory; stays open until :meth:`close`. Raises ClosedError, OSError."""
        return self.whole.descriptor

    @property
    def offset(self) -> int:
        """Where memory begins in that file."""
        return self.whole.offset

    @property
    def top(self) -> Layer:
        """All of memory, or of an increment what it adds. Raises ClosedError."""
        if (top := self._top) is None:
            raise _closed()
        return top

    @property
    def whole(self) -> Layer:
        """All of memory, which for an increment is put together now. Raises ClosedError, OSError."""
        with self._lock:
            if self._whole is None:
                self._whole = _merged(self._layers_unlocked())
                self._below = ()
            return self._whole

    def map(self, make: Callable[..., Any], regions: Iterable[Region]) -> Any:
        """Map it copy-on-write: memory of a class ``make``, closed with the machines that hold it."""
        layers = self._layers()
        if not _can_overlay(layers):
            layers = (self.whole,)
        lowest, *over = layers
        memory = make(regions, file=lowest.descriptor, offset=lowest.offset)
        try:
            if CAN_REMAP:
                memory.remap(Piece(*hole, None, 0) for hole in lowest.holes)
            for layer in over:
                memory.remap(
                    Piece(start, end, layer.descriptor, layer.offset + start)
                    for start, end in layer.extents
                )
        except BaseException:
            memory.close()
            raise
        memory.close_when_released()
        return memory

    def close(self) -> None:
        """Let the files go; what was mapped from it, or lies on it, stays. May be called again."""
        with self._lock:
            self._top = self._whole = None
            self._below = ()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._top is None

    def _layers(self) -> tuple[Layer, ...]:
        with self._lock:
            return self._layers_unlocked()

    def _layers_unlocked(self) -> tuple[Layer, ...]:
        if self._top is None:
            raise _closed()
        return (self._whole,) if self._whole is not None else (*self._below, self._top)


def nameless_file() -> int:
    """Open a file that only its descriptors keep alive; in memory where the system has that."""
    if sys.platform == "linux":
        return os.memfd_create("vmm-arch snapshot")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _closed() -> ClosedError:
    return ClosedError("the snapshot is closed")


def _can_overlay(layers: Sequence[Layer]) -> bool:
    """Whether layers can be mapped over each other, without being put together."""
    mappings = sum(len(layer.extents) for layer in layers[1:])
    return not mappings or (CAN_REMAP and PAGESIZE == PAGE_SIZE and mappings <= _OVERLAYS)


def _merged(layers: Sequence[Layer]) -> Layer:
    """Put layers together, the lowest first."""
    size = layers[0].size
    with Layer(nameless_file(), 0, size, ()) as merged:
        os.ftruncate(merged.descriptor, size)
        for layer in layers:
            for at, piece in layer.pieces(layer.extents):
                write_at(merged.descriptor, at, piece)
        merged.extents = tuple(_data(merged.descriptor, size))
    return merged


def between(extents: Iterable[Extent], size: int) -> Iterator[Extent]:
    """What is in no extent."""
    end = 0
    for start, after in extents:
        if end < start:
            yield end, start
        end = after
    if end < size:
        yield end, size


def _largest(holes: Iterable[Extent]) -> list[Extent]:
    """The largest, of whole pages of the system."""
    aligned = ((start + -start % PAGESIZE, end - end % PAGESIZE) for start, end in holes)
    large = [(start, end) for start, end in aligned if end - start >= _LARGE_HOLE]
    return sorted(sorted(large, key=lambda hole: hole[0] - hole[1])[:_MAPPED_HOLES])


def _data(descriptor: int, size: int) -> Iterator[Extent]:
    """Where a file is no hole, as far as the system says."""
    if sys.platform == "win32":
        yield 0, size
        return
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but holes
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        start -= start % PAGE_SIZE  # files may have smaller blocks
        end += -end % PAGE_SIZE
        yield start, end


def _offsets(
    regions: Iterable[Region], ranges: Iterable[tuple[int, int]]
) -> Iterator[tuple[int, int, int]]:
    """Yield the address, offset and size of each piece of the ranges that lies in one region."""
    given = list(ranges)
    offset = 0
    for region in regions:
        for start, end in given:
            low, high = max(start, region.address), min(end, region.end)
            if low < high:
                yield low, offset + low - region.address, high - low
        offset += region.size
