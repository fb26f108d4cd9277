"""Written pages of guest memory: from a hypervisor's bitmap, and for those who ask for them."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from vmm_arch.errors import HypervisorError
from vmm_arch.host_writes import HostWrites, Range
from vmm_arch.memory import PAGE_SIZE

_MARKED: Final = re.compile(rb"[^\0]+")


def address_of(bitmap: bytearray) -> int:
    """The host address of a bitmap; valid until the bitmap is resized."""
    return ctypes.addressof(ctypes.c_char.from_buffer(bitmap))


def pages_of(bitmap: bytes | bytearray, address: int) -> Iterator[int]:
    """The addresses of the pages whose bits are set; the first bit is the page at ``address``."""
    for marked in _MARKED.finditer(bitmap):
        page = address + 8 * marked.start() * PAGE_SIZE
        for byte in marked[0]:
            while byte:
                lowest = byte & -byte
                yield page + (lowest.bit_length() - 1) * PAGE_SIZE
                byte ^= lowest
            page += 8 * PAGE_SIZE


def not_tracked(operation: str) -> HypervisorError:
    """The error for a machine that does not track dirty pages."""
    return HypervisorError(operation, "EINVAL", "the machine was created without track_dirty")


class WrittenMemory:
    """What of a machine's memory was written, for two who ask independently of each other.

    One is ``dirty_pages()``, for what the guest has written since the last call. The other wants to
    know what the guest *and the host* have written since a moment of its own, the *baseline*, when
    memory was like something that it knows. The hypervisor tells each page once; ``note()`` is given
    what it tells before either is asked.
    """

    __slots__ = ("_guests", "_host", "_latest", "_pages", "_ranges", "baseline", "on_reset")

    def __init__(self, host: HostWrites) -> None:
        self._host = host
        self._guests: set[int] = set()
        """What dirty_pages() has not returned yet."""
        self._latest: list[int] = []
        self._pages: set[int] = set()
        self._ranges: list[Range] = []
        """What was written since the baseline, as far as it is known."""
        self.baseline: object = None
        """What memory was like; None if nobody wants to know."""
        self.on_reset: list[Callable[[Sequence[Range] | None], object]] = []
        """Called after a reset of the machine, with what of memory was written; None for all."""

    def note(self, pages: list[int]) -> None:
        """Note addresses of pages that the guest has written, in any order."""
        self._guests.update(pages)
        if self.baseline is not None:
            self._pages.update(pages)

    def forget(self, removed: range) -> None:
        """Forget what was written to addresses at which there is no memory any more."""
        self._guests = {page for page in self._guests if page not in removed}
        self._pages = {page for page in self._pages if page not in removed}
        self._latest = [page for page in self._latest if page not in removed]

    def take_guests(self) -> list[int]:
        """Return and clear the pages that the guest has written, in ascending order."""
        found, self._guests = self._guests, set()
        return sorted(found)

    def since_baseline(self) -> list[Range]:
        """What was written since the baseline, whole pages, ascending, apart from each other."""
        return self.changed([])

    def changed(self, pages: list[int]) -> list[Range]:
        """The same, with pages that the guest has written and that note() was not given."""
        self._latest += pages
        if not self._host.is_clean:
            written, ranges = self._host.take()
            self._pages |= written
            self._ranges += ranges
        if self._pages or self._ranges:
            return list(runs([*self._latest, *self._pages], self._ranges))
        return adjacent(self._latest)

    def begin(self, baseline: object) -> None:
        """Forget what was written: from now on memory is like ``baseline``."""
        self._host.take()
        self.is_like(baseline)

    def is_like(self, baseline: object, *, forget_guests: bool = False) -> None:
        """The same, if that is true but for what was written since changed() was called last.

        ``forget_guests`` also clears what dirty_pages() has not returned.
        """
        if forget_guests and self._guests:
            self._guests.clear()
        self._latest.clear()
        self._pages.clear()
        self._ranges.clear()
        self.baseline = baseline


def adjacent(pages: list[int]) -> list[Range]:
    """Pages, which it sorts, as runs of adjacent ones: many times quicker than runs()."""
    if not pages:
        return []
    pages.sort()
    found = []
    begin = end = pages[0]
    for page in pages:
        if page > end:
            found.append((begin, end))
            begin = page
        end = page + PAGE_SIZE
    found.append((begin, end))
    return found


def runs(pages: Iterable[int], ranges: Iterable[Range] = ()) -> Iterator[Range]:
    """Pages and ranges as runs of whole pages, ascending, neither overlapping nor adjacent."""
    found = [(page, page + PAGE_SIZE) for page in pages]
    found += [(low - low % PAGE_SIZE, high + -high % PAGE_SIZE) for low, high in ranges]
    found.sort()
    if not found:
        return
    begin, end = found[0]
    for low, high in found:
        if low > end:
            yield begin, end
            begin = low
        end = max(end, high)
    yield begin, end
