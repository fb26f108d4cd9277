"""Guest memory: read, write and view it by guest-physical address, whatever the hypervisor.

Addresses are guest-physical unless stated otherwise; sizes are in bytes. The guest may write while
the host reads, so read() once and parse the copy.
"""

from __future__ import annotations

import ctypes
import errno
import weakref
from bisect import bisect_right
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from vmm_arch.backing import (
    File,
    HugePages,
    HugePagesUnavailableError,
    Piece,
    map_file,
    map_huge_pages,
    map_pages,
    move_to_file,
    remap,
    use_transparent_huge_pages,
)
from vmm_arch.forks import ForkLock
from vmm_arch.host_writes import HostWrites, Views
from vmm_arch.lazy_pages import LazyPages, PageSource
from vmm_arch.sparse import write_sparse

if TYPE_CHECKING:
    import mmap

    from _typeshed import ReadableBuffer

PAGE_SIZE = 0x1000
LARGE_PAGE_SIZE = 0x20_0000
ADDRESS_LIMIT = 1 << 52
_PIECE = 0x1_0000
"""What is compared at once: pages that are zero in both are not allocated by that."""


class MemoryAccessError(IndexError):
    """An access outside guest memory, or a view that spans two regions; nothing was changed."""


class MemoryInUseError(RuntimeError):
    """The memory cannot be closed while live VMs or views use it; it stays open."""


@dataclass(frozen=True, slots=True)
class Region:
    """Guest memory of `size` bytes from guest-physical `address` on; both are multiples of 0x1000.

    `read_only` restricts the guest only; the host may write (firmware, for instance). Raises
    ValueError if address or size is invalid.
    """

    address: int
    size: int
    read_only: bool = False

    def __post_init__(self) -> None:
        if self.address < 0:
            problem = "starts below 0; start it at 0 or above"
        elif below := self.address % PAGE_SIZE:
            problem = f"starts within a page; start it at {self.address - below:#x}"
        elif self.size <= 0:
            problem = f"is empty; give it {PAGE_SIZE:#x} bytes or more"
        elif above := -self.size % PAGE_SIZE:
            problem = f"ends within a page; give it {self.size + above:#x} bytes"
        elif self.end > ADDRESS_LIMIT:
            problem = (
                f"ends above 2**52, the largest address; end it at {ADDRESS_LIMIT:#x} or below"
            )
        else:
            return
        raise ValueError(f"region of {self.size:#x} bytes at {self.address:#x} {problem}")

    @property
    def end(self) -> int:
        """The first guest-physical address after the region."""
        return self.address + self.size

    def __str__(self) -> str:
        return _interval(self.address, self.end) + (" read-only" if self.read_only else "")


class Annex(NamedTuple):
    """What a machine has besides its own memory: accesses to these addresses go there."""

    addresses: range
    memory: GuestMemory
    shift: int
    """What to subtract from an address to get that memory's."""
    region: Region
    """The addresses again, and whether the guest may write."""


class GuestMemory:
    """Zeroed memory for a virtual machine: a size in bytes, laid out around HOLES, or exact regions.

    Only pages that are touched cost memory (Windows counts all against its page file). Raises
    ValueError if regions are invalid or overlap, OSError if the system cannot allocate that much. ::

        with GuestMemory([Region(0, 0x10_0000), Region(0xFFFF_0000, 0x1_0000, True)]) as memory:
            memory.write(0xFFFF_0000, firmware)

    With `file`, an open descriptor or a path, memory is that file's content from byte `offset` on:
    one region after the other in ascending order, without what lies between them. `offset` is a
    multiple of the system's page size (Windows: 0x1_0000). Memory is copy-on-write: writes stay in
    this memory, and only pages that were written cost anything, so any number of machines can
    start from one file. With `shared` they go to the file, and to all that share it. The file is
    mapped, not read: cutting it short later ends the processes that touch what is gone. A descriptor
    may be closed afterwards. Raises BackingError if the file cannot be mapped so. ::

        memory.save("snapshot")
        clones = [GuestMemory(size, file="snapshot") for _ in range(100)]

    `huge_pages` is the size of Linux's reserved huge pages, `2 << 20` or `1 << 30` bytes, of which
    regions must be whole ones, all taken at once; or `"transparent"`, an advice to make huge pages
    where the host can. Raises HugePagesUnavailableError without them. A file has pages of its own:
    for huge ones, give a descriptor of ``os.memfd_create(name, os.MFD_HUGETLB)``.

    With `guest_memfd`, a machine takes its pages from the hypervisor: on KVM from a guest_memfd, which
    belongs to that machine alone. What was written before moves there. Such memory has only ordinary
    regions, which are not read-only, and one machine at a time, whose dirty pages are not tracked.

    With `page_source`, pages are filled when somebody first uses them, by Linux's userfaultfd:
    ``page_source(offset, size)`` returns so many bytes of what :meth:`save` would write, from that
    offset on, more than the one page where several are missing. It is called by one thread at a
    time: one that uses this memory, or one of its own for what a guest uses, so that the guest of a
    snapshot far away starts at once. :meth:`populate` fills all. If it raises an error for a guest's
    page, run() raises PageSourceError from then on. Raises UserfaultfdUnavailableError. ::

        memory = GuestMemory(size, page_source=lambda offset, size: fetch(url, offset, size))
    """

    HOLES: ClassVar[tuple[range, ...]] = ()
    """Guest-physical addresses that memory laid out by size avoids; set by a CPU's subclass."""
    START: ClassVar[int] = 0
    """The guest-physical address where memory laid out by size starts."""

    def __init__(
        self,
        size_or_regions: int | Iterable[Region],
        *,
        file: File | None = None,
        offset: int = 0,
        shared: bool = False,
        huge_pages: HugePages | None = None,
        page_source: PageSource | None = None,
        guest_memfd: bool = False,
    ) -> None:
        if isinstance(size_or_regions, int):
            size_or_regions = self._laid_out(size_or_regions)
        self.regions = tuple(sorted(size_or_regions, key=attrgetter("address")))
        if not self.regions:
            raise ValueError("guest memory has no regions; give it one or more")
        for lower, upper in pairwise(self.regions):
            if lower.end > upper.address:
                raise ValueError(f"regions {lower} and {upper} overlap; move or shrink one of them")

        # One mapping for all regions, so that creating and closing it succeed or fail as a whole. A
        # guest's large pages need host addresses that equal the guest-physical ones in the lower 21
        # bits (Linux, virt/kvm/api.rst, KVM_SET_USER_MEMORY_REGION); small memory has none. Files
        # and huge pages are mapped without gaps: the system aligns those that have large pages. So
        # is memory that is filled page by page, in which there are none.
        gaps = file is None and page_source is None and huge_pages in (None, "transparent")
        large = gaps and any(region.size >= LARGE_PAGE_SIZE for region in self.regions)
        alignment = LARGE_PAGE_SIZE if large else PAGE_SIZE
        padding = len(self.regions) * (alignment - PAGE_SIZE)
        self.guest_memfd = bool(guest_memfd)
        if guest_memfd and (file is not None or huge_pages is not None or page_source is not None):
            raise ValueError("guest_memfd: leave out file, huge_pages and page_source")
        if guest_memfd and any(region.read_only for region in self.regions):
            raise ValueError("guest_memfd: no region of it can be read-only; leave that out")
        if page_source is not None and (file is not None or huge_pages is not None):
            raise ValueError("page_source fills ordinary pages; leave out file and huge_pages")
        self._mapping = self._mapped(padding, file, offset, shared, huge_pages)
        # Only the number is kept: a ctypes object would prevent the mapping from being closed.
        self._host = ctypes.addressof(ctypes.c_char.from_buffer(self._mapping))

        # Runs of adjacent regions, which are adjacent in the mapping too: start, end, and what to
        # subtract from an address to get its offset in the mapping.
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._shifts: list[int] = []
        host = self._host
        for region in self.regions:
            host += (region.address - host) % alignment
            if self._ends and self._ends[-1] == region.address:
                self._ends[-1] = region.end
            else:
                self._starts.append(region.address)
                self._ends.append(region.end)
                self._shifts.append(region.address - (host - self._host))
            host += region.size
        self._shift = self._shifts[0]
        self._low, self._high = self._starts[0] - self._shift, self._ends[0] - self._shift
        self._pages: LazyPages | None = None
        if page_source is not None:
            size = sum(region.size for region in self.regions)
            self._pages = LazyPages(self._host, size, page_source)
            weakref.finalize(self, self._pages.close)
            self._low, self._high = 0, -1  # so that every access looks whether its pages are there
        self.annexes: tuple[Annex, ...] = ()
        """What was added to the machine that has this memory; for :class:`AddedMemory`."""
        self._holders = 0
        self._closes_when_released = False
        self._views = Views()
        self._watchers: tuple[HostWrites, ...] = ()
        self._lock = ForkLock()

    def read(self, address: int, size: int) -> bytes:
        """Copy `size` bytes from guest-physical `address` on, once; may span adjacent regions.

        Raises MemoryAccessError if any of them is outside guest memory.
        """
        offset = address - self._shift
        end = offset + size
        if offset < self._low or size < 0 or end > self._high:  # not in the first run, the hot one
            if self.annexes and (annex := self.annex_at(address, size)):
                return annex.memory.read(address - annex.shift, size)
            offset = self._offset(address, size)
            end = offset + size
        return self._mapping[offset:end]

    def write(self, address: int, data: ReadableBuffer) -> None:
        """Write all of `data`, any bytes-like object, to guest-physical `address`, or nothing.

        Raises MemoryAccessError if any byte would be outside guest memory. A large file is better
        read into a view().
        """
        if type(data) is not bytes:
            # len() may count items, not bytes; and data may be an overlapping view of this memory.
            data = memoryview(data).tobytes()
        offset = address - self._shift
        end = offset + len(data)
        if offset < self._low or end > self._high:
            if self.annexes and (annex := self.annex_at(address, len(data))):
                annex.memory.write(address - annex.shift, data)
                return
            offset = self._offset(address, len(data))
            end = offset + len(data)
        try:
            self._mapping[offset:end] = data
        finally:  # also if a signal's handler raises an error
            for watcher in self._watchers:
                watcher.note(address, len(data))

    def view(self, address: int, size: int) -> memoryview:
        """Return a writable view of `size` bytes within one region, without a copy.

        While the guest runs, two reads of one byte may differ. The memory cannot be closed before
        the view is released. Where writes are tracked it counts as written, as a whole, until it
        and what was made of it are released. Raises MemoryAccessError, also if the bytes span two regions.
        """
        if self.annexes and (annex := self.annex_at(address, size)):
            return annex.memory.view(address - annex.shift, size)
        offset, end = self._offset(address, size), address + size
        region = self._region_at(address)
        if size and end > region.end:
            raise MemoryAccessError(
                f"{_interval(address, end)} spans the end of region {region};"
                " take one view in each region"
            )
        for watcher in self._watchers:
            watcher.note_view((address, end))
        return self._views.make(self._mapping, offset, (address, end))

    def host_address(self, region: Region) -> int:
        """Return the host address of one of `regions` in this process; valid until close().

        What is written there is not tracked.
        """
        if self._region_at(region.address) != region:
            raise ValueError(
                f"{region} is not a region of guest memory {self._listing()}; give one"
            )
        return self._host + self._locate(region.address, region.size)

    @property
    def mapped_regions(self) -> tuple[Region, ...]:
        """The regions, and those of what was added to the machine that has this memory."""
        return (*self.regions, *(annex.region for annex in self.annexes))

    def save(self, file: File, offset: int = 0) -> None:
        """Write all memory to a file from byte `offset` on, as `file` of a new memory reads it.

        The regions lie one after the other, the file ends after the last, and pages of zeros become
        holes (on Windows they are written). A path gets a new file, which replaces an old one once
        it is whole; memory mapped from the old one keeps it (Windows refuses that with a
        PermissionError: close such memory first). A descriptor's file must not reach beyond
        `offset`; its position is left anywhere. No vCPU may run meanwhile, or the copy mixes several
        moments; the memory cannot be closed. Raises BackingError if the file cannot hold it, and
        OSError, after which a path is as before and a descriptor's file is incomplete.
        """
        self._require_open()
        with memoryview(self._mapping) as whole:
            parts = []
            try:
                for region in self.regions:
                    start = self._offset(region.address, region.size)
                    parts.append(whole[start : start + region.size])
                write_sparse(file, offset, parts, sum(region.size for region in self.regions))
            finally:
                for part in parts:
                    part.release()

    def put_back(self, image: memoryview, ranges: Iterable[tuple[int, int]]) -> None:
        """Write ranges of addresses from an image of all memory, as save() lays it out; for a VM.

        Each is from the first address to the one after the last, within a run of adjacent regions.
        It does not count as written.
        """
        if self._pages is not None:
            ranges = list(ranges)
            for low, high in ranges:
                self._offset(low, high - low)  # so that their pages are there
        mapping = self._mapping
        if len(self._starts) == 1:
            start, shift = self._starts[0], self._shift
            for low, high in ranges:
                mapping[low - shift : high - shift] = image[low - start : high - start]
            return
        before = [0, *accumulate(e - s for s, e in zip(self._starts, self._ends, strict=True))]
        for low, high in ranges:
            run = bisect_right(self._starts, low) - 1
            start, shift = self._starts[run] - before[run], self._shifts[run]
            mapping[low - shift : high - shift] = image[low - start : high - start]

    def overwrite(self, image: memoryview) -> None:
        """Make all memory like an image, writing only what differs; for a VM."""
        self.populate()
        at = 0
        for start, end, shift in zip(self._starts, self._ends, self._shifts, strict=True):
            for low in range(start - shift, end - shift, _PIECE):
                size = min(_PIECE, end - shift - low)
                wanted = bytes(image[at : at + size])
                if self._mapping[low : low + size] != wanted:
                    self._mapping[low : low + size] = wanted
                at += size

    @property
    def holders(self) -> int:
        """How many VMs hold the memory."""
        return self._holders

    def watch(self) -> HostWrites:
        """Keep track of what the host writes, from now on, until unwatch(); for a VM.

        Not of what is written through a host_address(), by other memory that shares the file, or by
        another VM's guest.
        """
        watcher = HostWrites(self._views)
        self._watchers += (watcher,)
        return watcher

    def unwatch(self, watcher: HostWrites) -> None:
        """Undo a watch()."""
        self._watchers = tuple(other for other in self._watchers if other is not watcher)

    def remap(self, pieces: Iterable[Piece]) -> None:
        """Map other files, or none, copy-on-write in place of parts of new memory from a file.

        Parts are counted as :meth:`save` writes them, and are whole pages. Only where the system has
        ``backing.CAN_REMAP``. Raises OSError.
        """
        remap(self._mapping, pieces)

    def move_to_file(self, region: Region, descriptor: int) -> None:
        """Move a region, or a part of one, to a new file; for a VM, before it maps the memory."""
        start = self._offset(region.address, region.size)
        move_to_file(self._mapping, start, start + region.size, descriptor)

    @property
    def has_page_source(self) -> bool:
        """Whether pages are filled from a `page_source`."""
        return self._pages is not None

    def populate(self) -> None:
        """Fill all pages that are missing from the `page_source`. Raises what that raises."""
        self._require_open()
        if self._pages is not None:
            self._pages.fill(0, sum(region.size for region in self.regions))

    @property
    def missing(self) -> int:
        """How many bytes the `page_source` has not filled yet."""
        return 0 if self._pages is None else self._pages.missing

    def check_source(self) -> None:
        """Raise PageSourceError if the `page_source` failed when a guest needed a page; for a VM."""
        if self._pages is not None:
            self._pages.check()

    def hold(self, machine: Any = None) -> None:
        """Prevent the memory from being closed; a VM calls this once before it maps the memory.

        The `machine`'s vCPUs are kicked if the `page_source` fails.
        """
        with self._lock:
            self._require_open()
            self._holders += 1
        if self._pages is not None and machine is not None:
            self._pages.add_machine(machine)

    def release(self) -> None:
        """Undo one hold(); a VM calls this once it no longer maps the memory."""
        with self._lock:
            if not self._holders:
                raise RuntimeError("release() without a matching hold() of guest memory")
            self._holders -= 1
            last = self._closes_when_released and not self._holders
        if last:
            with suppress(MemoryInUseError):  # views keep it alive, and free it
                self.close()

    def close_when_released(self) -> None:
        """Let the memory be closed with the last VM that holds it, and not by its owner."""
        self._closes_when_released = True

    def close(self) -> None:
        """Free the memory, or raise MemoryInUseError and change nothing. May be called again.

        The memory is in use while a VM holds it or a view() is alive.
        """
        with self._lock:
            if self._holders:
                raise MemoryInUseError(
                    f"memory is mapped into {self._holders} live VM(s); close them first"
                )
            try:
                if self._pages is None:
                    self._mapping.close()
                else:
                    self._pages.close(self._mapping.close)
            except BufferError:
                raise MemoryInUseError(
                    "views of the memory are alive; release them, and views made from them, first"
                ) from None
            self._starts, self._high = [], -1  # so that every access fails

    @property
    def closed(self) -> bool:
        """Whether the memory has been freed."""
        return self._mapping.closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self.close()
        except MemoryInUseError as in_use:
            if error is None:
                raise
            # The original error matters more, and only its traceback may keep a view alive.
            error.add_note(f"Guest memory was not closed: {in_use}.")

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"mapped into {self._holders} VM(s)"
        return f"<{type(self).__name__} {self._listing()}; {state}>"

    def _mapped(
        self,
        padding: int,
        file: File | None,
        offset: int,
        shared: bool,
        huge_pages: HugePages | None,
    ) -> mmap.mmap:
        """Map all regions, with `padding` more bytes if they are on pages of the system."""
        if file is None and (shared or offset):
            raise ValueError(
                "shared and offset are about a file; give file=, such as os.memfd_create('guest')"
            )
        if file is not None and huge_pages is not None:
            raise ValueError(
                "a file has pages of its own; leave out huge_pages, and for huge ones give"
                " file=os.memfd_create('guest', os.MFD_HUGETLB)"
            )
        if huge_pages not in (None, "transparent") and not isinstance(huge_pages, int):
            raise ValueError(
                f'huge_pages={huge_pages!r}: unknown; give 2 << 20, 1 << 30 or "transparent"'
            )
        size = sum(region.size for region in self.regions)
        try:
            if file is not None:
                return map_file(file, offset, self.regions, shared)
            if isinstance(huge_pages, int):
                return map_huge_pages(self.regions, huge_pages)
            mapping = map_pages(size + padding)
        except HugePagesUnavailableError:
            raise
        except OSError as error:
            if file is not None and error.errno != errno.ENOMEM:
                raise
            error.add_note(
                f"Asked for {size:#x} bytes of guest memory, {self._listing()}. Ask for less, or"
                " raise the limit (ulimit -v, cgroup, vm.overcommit_memory, page file)."
            )
            raise
        if huge_pages is not None:
            use_transparent_huge_pages(mapping)
        return mapping

    @classmethod
    def _laid_out(cls, size: int) -> Iterable[Region]:
        address = cls.START
        for hole in sorted(cls.HOLES, key=attrgetter("start")):
            if size <= hole.start - address:
                break
            if address < hole.start:
                yield Region(address, hole.start - address)
                size -= hole.start - address
            address = max(address, hole.stop)
        yield Region(address, size)

    def _offset(self, address: int, size: int) -> int:
        """The offset in the mapping of `size` bytes at guest-physical `address`, which are there."""
        offset = self._locate(address, size)
        if self._pages is not None:
            self._pages.fill(offset, size)
        return offset

    def _locate(self, address: int, size: int) -> int:
        """The same, whether or not their pages are there."""
        run = bisect_right(self._starts, address) - 1
        if run >= 0 and size >= 0 and address + size <= self._ends[run]:
            return address - self._shifts[run]
        self._require_open()
        if size < 0:
            raise ValueError(f"access to {size} bytes at {address:#x}; ask for 0 bytes or more")
        raise MemoryAccessError(
            f"guest-physical {_interval(address, address + size)} reaches outside guest memory,"
            f" which is {self._listing()}"
        )

    def annex_at(self, address: int, size: int) -> Annex | None:
        """What was added and has all of these addresses."""
        for annex in self.annexes:
            if annex.addresses.start <= address and 0 <= size <= annex.addresses.stop - address:
                return annex
        return None

    def _region_at(self, address: int) -> Region:
        return self.regions[bisect_right(self.regions, address, key=attrgetter("address")) - 1]

    def _require_open(self) -> None:
        if self.closed:
            raise ValueError("guest memory is closed")

    def _listing(self) -> str:
        return ", ".join(map(str, self.regions))


def _interval(start: int, end: int) -> str:
    return f"[{start:#x}, {end:#x})"
