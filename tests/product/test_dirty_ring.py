"""KVM's dirty ring against a model of KVM, which fills it, takes entries back, and overruns it."""

from __future__ import annotations

import random
import struct
from mmap import mmap

import pytest
from vmm_arch import kvm_dirty_ring
from vmm_arch.kvm_dirty_ring import DIRTY_RING_SIZE, ENTRIES, DirtyRing


class Kernel:
    """Linux' side of a ring (virt/kvm/dirty_ring.c)."""

    def __init__(self) -> None:
        self.ring = mmap(-1, DIRTY_RING_SIZE)
        self.written = 0
        self.reset_up_to = 0

    @property
    def is_full(self) -> bool:
        return self.written - self.reset_up_to >= ENTRIES - 64

    def push(self, slot: int, page: int) -> None:
        struct.pack_into("<IIQ", self.ring, self.written % ENTRIES * 16, 1, slot, page)
        self.written += 1

    def reset(self) -> None:
        while self.ring[at := self.reset_up_to % ENTRIES * 16] & 2:
            self.ring[at] = 0
            self.reset_up_to += 1
        assert self.reset_up_to <= self.written, "entries were given back that are not written"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(kvm_dirty_ring, "map_run_page", lambda *_: kernel.ring)
    return kernel


@pytest.mark.parametrize("seed", range(12))
def test_no_page_is_lost_without_telling(kernel: Kernel, seed: int) -> None:
    chance = random.Random(seed)
    ring = DirtyRing(0, 0)
    overshoot = chance.choice([0, 0, 63, 64, 65, 1000, ENTRIES, 3 * ENTRIES])
    for _ in range(15):
        pages: set[tuple[int, int]] = set()
        left = chance.choice([0, 1, 2, 3, 100, ENTRIES // 2, ENTRIES - 65, 3 * ENTRIES])
        while left:
            late = 0 if kernel.is_full else overshoot
            while left and (not kernel.is_full or late > 0):
                late -= kernel.is_full
                page = chance.choice([0, 0, 0, 1]), chance.randrange(1 << 40)
                pages.add(page)
                kernel.push(*page)
                left -= 1
            if kernel.is_full:
                ring.make_room()
                kernel.reset()
        if ring.empty():
            kernel.reset()
        found = {(slot, page) for slot, numbers in ring.found for page in numbers}
        ring.found.clear()
        assert ring.overrun or found == pages
        ring.overrun = False


@pytest.mark.parametrize("count", [0, 1, 2, 3, 64, ENTRIES - 1, ENTRIES])
def test_all_that_is_written_is_found(kernel: Kernel, count: int) -> None:
    ring = DirtyRing(0, 0)
    for turn in range(5):
        for page in range(count):
            kernel.push(page % 3 if turn % 2 else 7, page)
        assert ring.empty() == count
        kernel.reset()
        assert kernel.written == kernel.reset_up_to
        found = sorted(page for _, numbers in ring.found for page in numbers)
        ring.found.clear()
        assert found == [*range(count)]
        assert ring.overrun == (count == ENTRIES)
        ring.overrun = False
