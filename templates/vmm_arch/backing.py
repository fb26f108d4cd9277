"""What backs guest memory: pages of the system, huge ones, or a file; each as one mapping.

Sizes and offsets are in bytes. A file holds the regions one after the other in ascending order,
without what lies between them, so that each byte of it belongs to the guest.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

File: TypeAlias = int | str | os.PathLike[str]
"""An open descriptor, which stays its owner's, or a path."""
HugePages: TypeAlias = int | Literal["transparent"]
"""The size of reserved huge pages in bytes, or what Linux makes of ordinary pages by itself."""

# Linux: asm-generic/mman.h, uapi/asm-generic/hugetlb_encode.h, uapi/linux/magic.h.
_MAP_FIXED: Final = 0x10
_ANONYMOUS: Final = 0x20
_MAP_HUGETLB: Final = 0x40000
_SIZE_SHIFT: Final = 26
_HUGETLBFS_MAGIC: Final = 0x958458F6
_HUGE_PAGES: Final = Path("/sys/kernel/mm/hugepages")
_MOVED: Final = 0x1_0000
"""What is looked at at once: where it is zeros, nothing of the new file is used."""
_STATFS_SIZE: Final = 256
"""More than any struct statfs has."""


class Region(Protocol):
    """What has to be known of a region of guest memory, whose class builds on this module."""

    @property
    def address(self) -> int: ...
    @property
    def size(self) -> int: ...


class BackingError(ValueError):
    """A file cannot back guest memory or hold a copy of it; ``problems`` lists everything wrong.

    Nothing was mapped or written.
    """

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        super().__init__("\n".join(f"{where}: {problem}" for problem in problems))
        self.where = where
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[BackingError], tuple[str, tuple[str, ...]]]:
        return type(self), (self.where, self.problems)


class HugePagesUnavailableError(OSError):
    """The host has no such huge pages, or too few that are free; nothing was mapped."""


def map_pages(size: int) -> mmap.mmap:
    """Map `size` zeroed bytes of ordinary pages; only those that are touched cost memory."""
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _no_reserve())


def map_huge_pages(regions: Sequence[Region], page_size: int) -> mmap.mmap:
    """Map `regions`, one after the other, on zeroed pages of `page_size` that the host reserved.

    All of them are set aside at once, since a page that is missing later would end the process.
    Raises ValueError if the regions are not whole huge pages, HugePagesUnavailableError.
    """
    where = f"huge_pages={page_size:#x}"
    if page_size <= mmap.PAGESIZE or page_size & (page_size - 1):
        raise ValueError(f'{where}: no size of huge pages; give 2 << 20, 1 << 30 or "transparent"')
    if sys.platform != "linux":
        raise _unavailable(errno.ENOTSUP, where, "only Linux has them; leave out huge_pages")
    if not _pool(page_size).is_dir():
        sizes = sorted(int(entry.name[10:-2]) << 10 for entry in _HUGE_PAGES.glob("hugepages-*kB"))
        offered = ", ".join(f"{size:#x}" for size in sizes) or "none"
        problem = f"this host has no huge pages of this size; give one of its sizes: {offered}"
        raise _unavailable(errno.EINVAL, where, problem)
    if problems := list(_broken_pages(regions, page_size)):
        raise ValueError("\n".join(f"{where}: {problem}" for problem in problems))
    size = sum(region.size for region in regions)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_HUGETLB
    with _huge_pages_reserved(where, size, page_size):
        return mmap.mmap(-1, size, flags=flags | (page_size.bit_length() - 1) << _SIZE_SHIFT)


def use_transparent_huge_pages(mapping: mmap.mmap) -> None:
    """Ask Linux to back a mapping of ordinary pages with huge ones where it finds some.

    Raises HugePagesUnavailableError if this system has none, and closes the mapping.
    """
    where = "huge_pages='transparent'"
    try:
        if sys.platform != "linux":
            raise _unavailable(errno.ENOTSUP, where, "only Linux has them; leave out huge_pages")
        try:
            mapping.madvise(mmap.MADV_HUGEPAGE)
        except OSError as error:
            problem = "this kernel was built without them; leave out huge_pages"
            raise _unavailable(error.errno, where, problem) from error
    except BaseException:
        mapping.close()
        raise


def map_file(file: File, offset: int, regions: Sequence[Region], shared: bool) -> mmap.mmap:
    """Map `regions`, one after the other, from `offset` of a file on, writable.

    The mapping keeps a descriptor of its own. Raises BackingError, HugePagesUnavailableError if the
    file is on huge pages and too few are free, OSError if a path cannot be opened.
    """
    where = _named(file)
    with _opened(file, os.O_RDWR if shared else os.O_RDONLY) as descriptor:
        page_size = _require_mappable(where, descriptor, offset, regions)
        size = sum(region.size for region in regions)
        try:
            if sys.platform == "win32":
                access = mmap.ACCESS_WRITE if shared else mmap.ACCESS_COPY
                return mmap.mmap(descriptor, size, access=access, offset=offset)
            # Pages that a private mapping copies are not set aside, as those of no file are not,
            # except for huge ones: to be without those ends the process.
            flags = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
            if page_size:
                with _huge_pages_reserved(where, size, page_size):
                    return mmap.mmap(descriptor, size, flags=flags, offset=offset)
            return mmap.mmap(descriptor, size, flags=flags | _no_reserve(), offset=offset)
        except PermissionError as error:
            if shared:
                problem = "cannot be written; open it for reading and writing, unsealed, or give shared=False"
            else:
                problem = "cannot be read; open it for reading"
            raise BackingError(where, [problem]) from error


class Piece(NamedTuple):
    """A part of a mapping, from one byte to another, and what is mapped there instead."""

    start: int
    end: int
    descriptor: int | None
    """An open file's, or None: zeroed pages of the system."""
    offset: int
    """Where in the file."""


CAN_REMAP: Final = sys.platform == "linux"


def remap(mapping: mmap.mmap, pieces: Iterable[Piece]) -> None:
    """Map other files, or none, copy-on-write in place of parts of a private mapping; in this order.

    They are whole pages in the mapping and the files, and nothing has been written there. Only where
    CAN_REMAP. Raises OSError.
    """
    if sys.platform != "linux":
        raise OSError(errno.ENOTSUP, "only Linux maps a file over another")
    libc = _libc()
    host = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    private = mmap.MAP_PRIVATE | _no_reserve() | _MAP_FIXED
    for start, end, descriptor, offset in pieces:
        flags, file = (
            (private, descriptor) if descriptor is not None else (_ANONYMOUS | private, -1)
        )
        if libc.mmap(host + start, end - start, protection, flags, file, offset) != host + start:
            number = ctypes.get_errno()
            raise OSError(number, f"mmap: {os.strerror(number)}")


def move_to_file(mapping: mmap.mmap, start: int, end: int, descriptor: int) -> None:
    """Move a part of a mapping, whole pages, to a new file that is mapped, shared, in its place.

    Only on Linux. Raises OSError, after which the part is as it was.
    """
    size = end - start
    with mmap.mmap(descriptor, size) as moved:
        for at in range(0, size, _MOVED):
            piece = mapping[start + at : min(start + at + _MOVED, end)]
            if piece.count(0) != len(piece):
                moved[at : at + len(piece)] = piece
    host = ctypes.addressof(ctypes.c_char.from_buffer(mapping)) + start
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    flags = mmap.MAP_SHARED | _MAP_FIXED
    if _libc().mmap(host, size, protection, flags, descriptor, 0) != host:
        number = ctypes.get_errno()
        raise OSError(number, f"mmap: {os.strerror(number)}")


@cache
def _libc() -> ctypes.CDLL:
    """Loaded once: each time makes new classes, which takes longer than a call."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_int64)
    return libc


@contextmanager
def _opened(file: File, flags: int) -> Iterator[int]:
    if isinstance(file, int):
        yield file
        return
    # A pipe without a reader would keep open() waiting, where it is to be refused.
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(file, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def stat_of(where: str, descriptor: int) -> os.stat_result:
    """What the system knows of a regular file; raises BackingError if it is none, or closed."""
    try:
        status = os.fstat(descriptor)
    except OSError as error:
        problem = "is not open; give an open descriptor, or a path"
        raise BackingError(where, [problem]) from error
    if not stat.S_ISREG(status.st_mode):
        raise BackingError(where, ["is not a regular file; give one, or os.memfd_create()'s"])
    return status


def _require_mappable(where: str, descriptor: int, offset: int, regions: Sequence[Region]) -> int:
    """Raise BackingError if the file cannot be mapped; return the size of its huge pages, or 0."""
    length = stat_of(where, descriptor).st_size
    page_size = _huge_page_size(descriptor)
    unit = page_size or mmap.ALLOCATIONGRANULARITY
    size = sum(region.size for region in regions)
    problems = []
    if offset < 0:
        problems.append(f"offset {offset:#x} is below 0; give 0 or more")
    elif below := offset % unit:
        problems.append(
            f"offset {offset:#x} is not a multiple of {unit:#x}, as this system maps files;"
            f" give {offset - below:#x} or {offset - below + unit:#x}"
        )
    if offset >= 0 and length < offset + size:
        problems.append(
            f"ends at {length:#x}, and memory needs [{offset:#x}, {offset + size:#x}) of it;"
            f" ask for less, or extend it with os.truncate(file, {offset + size:#x})"
        )
    if page_size:
        problems += _broken_pages(regions, page_size)
    if problems:
        raise BackingError(where, problems)
    return page_size


def _huge_page_size(descriptor: int) -> int:
    """The size of a hugetlbfs file's pages, which a memfd with MFD_HUGETLB is too; else 0."""
    if sys.platform != "linux":
        return 0
    found = ctypes.create_string_buffer(_STATFS_SIZE)
    libc = _libc()
    if libc.fstatfs(descriptor, found):
        number = ctypes.get_errno()
        raise OSError(number, f"fstatfs: {os.strerror(number)}")
    # struct statfs: f_type, f_bsize, both of the size of a long (asm-generic/statfs.h).
    kind, page_size = (ctypes.c_long * 2).from_buffer(found)
    return page_size if kind == _HUGETLBFS_MAGIC else 0


def _broken_pages(regions: Sequence[Region], page_size: int) -> Iterator[str]:
    for region in regions:
        if region.address % page_size or region.size % page_size:
            yield (
                f"region {region} is not made of whole huge pages;"
                f" start and end it at multiples of {page_size:#x}"
            )


@contextmanager
def _huge_pages_reserved(where: str, size: int, page_size: int) -> Iterator[None]:
    """Name what a refused mapping of huge pages lacks, and how to get it."""
    try:
        yield
    except OSError as error:
        pool, pages = _pool(page_size), size // page_size
        free = (pool / "free_hugepages").read_text().strip()
        problem = (
            f"memory needs {pages} huge pages of {page_size:#x} bytes, and {free} are free, some of"
            f" them perhaps promised to others; reserve more as root (echo {pages} >"
            f" {pool}/nr_hugepages, or hugepagesz={page_size >> 10}K hugepages={pages} on the"
            " command line of the kernel), or use huge_pages='transparent'"
        )
        raise _unavailable(error.errno, where, problem) from error


def _pool(page_size: int) -> Path:
    return _HUGE_PAGES / f"hugepages-{page_size >> 10}kB"


def _unavailable(number: int | None, where: str, problem: str) -> HugePagesUnavailableError:
    return HugePagesUnavailableError(number, f"{where}: {problem}")


def _named(file: File) -> str:
    return f"descriptor {file}" if isinstance(file, int) else os.fspath(file)


def _no_reserve() -> int:
    # Python names the flag since 3.13; the number is Linux's (asm-generic/mman.h).
    return getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
