"""The ring in which KVM collects a guest's writes instead of an exit each (coalesced MMIO and PIO)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from mmap import mmap
from threading import RLock
from typing import Final, TypeAlias

_ends: Final = struct.Struct("<II").unpack_from
_set_first: Final = struct.Struct("<I").pack_into
_ENTRY: Final = struct.Struct("<QII8s")
"""struct kvm_coalesced_mmio: where, how many bytes, whether it is a port, the bytes."""
HEADER: Final = 8
"""The size of struct kvm_coalesced_mmio_ring without its entries."""

Deliver: TypeAlias = Callable[[int, bool, bytes], object]
"""Called with where was written, whether that is a number of the CPU's other address space, and what."""


class CollectedWrites:
    """A machine's ring; each of its vCPUs has the page.

    A write stays in the ring until it was delivered. So whoever sees an empty ring, without a lock,
    knows that everything before was delivered; whoever does not waits for the lock, and for whoever
    delivers at the moment. That keeps a vCPU's exit behind its collected writes, whichever thread
    delivers them.
    """

    def __init__(self, page: mmap, begin: int, page_size: int, deliver: Deliver) -> None:
        """``begin`` is where in the mapping of a vCPU the ring's page is."""
        self._page = page
        self._begin = begin
        self._size = (page_size - HEADER) // _ENTRY.size
        self._deliver = deliver
        self._lock = RLock()
        self._delivering = False

    def drain(self) -> int:
        """Deliver what was collected, in order; returns how many writes that were.

        If delivering one raises, that one counts as delivered, and the others stay.
        """
        page, begin = self._page, self._begin
        first, last = _ends(page, begin)
        if first == last:
            return 0
        with self._lock:
            if self._delivering:  # by this thread, whose device asks again
                return 0
            self._delivering = True
            try:
                return self._drain()
            finally:
                self._delivering = False

    def _drain(self) -> int:
        count = 0
        while True:
            first, last = _ends(self._page, self._begin)
            if first == last:
                return count
            place, size, other, data = _ENTRY.unpack_from(
                self._page, self._begin + HEADER + first * _ENTRY.size
            )
            try:
                self._deliver(place, bool(other), data[:size])
            finally:
                _set_first(self._page, self._begin, (first + 1) % self._size)
            count += 1
