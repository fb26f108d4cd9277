"""KVM's dirty ring: where a vCPU reports each page that its guest writes, once until it is reset.

It costs what was written, where the bitmap of KVM_GET_DIRTY_LOG costs what there is of memory: with
one page written in 512 MiB, 0.7 us against 3.7 us in C, and much more to search a bitmap in Python.
With thousands of pages they cost the same. An entry is a ``struct kvm_dirty_gfn``: flags and slot of
32 bits each, and the page's number in the slot (Linux, virt/kvm/api.rst, KVM_CAP_DIRTY_LOG_RING).
"""

from __future__ import annotations

from array import array
from mmap import PAGESIZE
from typing import Final

from vmm_arch.kvm import map_run_page

ENTRIES: Final = 16384
"""Of each vCPU, 256 KiB: a power of 2. A guest that writes more pages makes run() empty it."""
_ENTRY_SIZE: Final = 16
DIRTY_RING_SIZE: Final = ENTRIES * _ENTRY_SIZE
_DIRTY: Final = 1
_GIVEN_BACK: Final = 2
_ALL_GIVEN_BACK: Final = memoryview(array("I", [_GIVEN_BACK]) * ENTRIES)
"""The flag as often as it may be needed at once."""


class DirtyRing:
    """The ring of one vCPU, mapped. Only one thread at a time may use it.

    KVM writes an entry's flags last, and x86 processors show writes in their order. On those that
    do not, KVM does not have KVM_CAP_DIRTY_LOG_RING.

    A full ring is an exit. But a KVM that has no hardware to run guests may find that out too late,
    after a batch of instructions, and by then it has *overrun* its ring: oldest entries were
    replaced before they were read, and where it writes next is not known until it writes again.
    """

    __slots__ = ("_astray", "_at", "_flags", "_numbers", "_slots", "found", "overrun")

    def __init__(self, vcpu: int, page: int) -> None:
        """Map it from a vCPU's descriptor, ``page`` pages behind the run page."""
        mapping = map_run_page(vcpu, DIRTY_RING_SIZE, page * PAGESIZE)
        halves = memoryview(mapping).cast("I")
        self._flags = halves[::4]
        self._slots = halves[1::4]
        self._numbers = memoryview(mapping).cast("Q")[1::2]
        self._at = 0
        """The next entry that KVM expects back."""
        self._astray = False
        """Whether the next one that it writes may be another one."""
        self.found: list[tuple[int, list[int]]] = []
        """The pages of the entries that were taken out: slots, each with numbers of pages."""
        self.overrun = False
        """Whether entries may have been lost since this was last set to False."""

    def empty(self) -> int:
        """Take all entries out, and return how many; KVM_RESET_DIRTY_RINGS then lets KVM reuse them."""
        flags, at, passed = self._flags, self._at, 0
        if flags[at] == _DIRTY and at + 1 < ENTRIES and not self._astray:
            if flags[at + 1] != _DIRTY:  # one page: as often as that, it is worth its own way
                self.found.append((self._slots[at], [self._numbers[at]]))
                flags[at] = _GIVEN_BACK
                self._at = at + 1
                return 1
        elif not self._astray and flags[at] != _DIRTY:
            return 0
        while True:
            if flags[self._at] == _DIRTY:
                end = self._end(self._at)
                self._note(self._at, end)
            elif not self._astray or (end := self._found_again()) == self._at:
                break
            passed += self._give_back(end)
        if passed:
            self._astray = passed >= ENTRIES
            self.overrun |= self._astray
        return passed

    def make_room(self) -> None:
        """The same for a ring of which KVM says that it is full."""
        if not self.empty():
            # It was overrun before, by so much that KVM writes nothing more. Of what KVM counts as
            # used, which is more than half of the ring, all was taken out then.
            self._give_back(min(self._at + ENTRIES // 2, ENTRIES))

    def _end(self, low: int) -> int:
        """The first entry after a written one, up to the ring's end, that is not written."""
        flags, step = self._flags, 1
        while low + step < ENTRIES and flags[low + step] == _DIRTY:
            low += step
            step *= 2
        high = min(low + step, ENTRIES)
        while high - low > 1:
            middle = (low + high) // 2
            if flags[middle] == _DIRTY:
                low = middle
            else:
                high = middle
        return high

    def _found_again(self) -> int:
        """Where entries up to a written one, or to the ring's end, are left out; or stay here."""
        flags = self._flags.tolist()
        if _DIRTY not in flags:
            return self._at
        return flags.index(_DIRTY, self._at) if _DIRTY in flags[self._at :] else ENTRIES

    def _note(self, begin: int, end: int) -> None:
        """Note the pages of some entries, by their slots."""
        numbers = self._numbers[begin:end].tolist()
        slots = self._slots[begin:end].tolist()
        if slots.count(slots[0]) == len(slots):
            self.found.append((slots[0], numbers))
        else:
            by_slot: dict[int, list[int]] = {}
            for slot, number in zip(slots, numbers, strict=True):
                by_slot.setdefault(slot, []).append(number)
            self.found += by_slot.items()

    def _give_back(self, end: int) -> int:
        """Let KVM reuse the entries up to this one, and return how many these are."""
        count = end - self._at
        self._flags[self._at : end] = _ALL_GIVEN_BACK[:count]
        self._at = end % ENTRIES
        return count
