"""Sets of MSRs whose accesses are exits, and the bitmaps that a hypervisor gets of them."""

from __future__ import annotations

import pytest
from vmm_arch.x86_64.msr_exits import AllExcept, MsrBitmap, MsrSet, listed, msr_bitmaps


def exits(bitmaps: list[MsrBitmap], default: bool, index: int, *, is_write: bool) -> bool:
    """What a hypervisor decides: the first bitmap that has the MSR, otherwise the default."""
    for bitmap in bitmaps:
        at = index - bitmap.base
        if bitmap.is_write == is_write and 0 <= at < bitmap.count:
            return not bitmap.allowed[at // 8] >> at % 8 & 1
    return default


READS, WRITES = [0x10, 0x1B, 0x277, 0x3010, 0xC0000080, 0xC0000082], [0x4B564D00, 0xFFFFFFFF, 0]


@pytest.mark.parametrize("denied", [False, True])
def test_bitmaps_say_what_the_sets_say(denied: bool) -> None:
    reads: MsrSet = AllExcept(READS) if denied else READS
    writes: MsrSet = AllExcept(WRITES) if denied else WRITES
    bitmaps = list(msr_bitmaps(reads, writes, 0x3000))
    assert [(b.is_write, b.base, b.count) for b in bitmaps] == [
        (False, 0x10, 0x268),
        (False, 0x3010, 1),
        (False, 0xC0000080, 3),
        (True, 0, 1),
        (True, 0x4B564D00, 1),
        (True, 0xFFFFFFFF, 1),
    ]
    for index in {*READS, *WRITES, 1, 0x276, 0x3011, 0xC0000081, 0xFFFFFFFE}:
        assert exits(bitmaps, denied, index, is_write=False) == ((index in READS) != denied)
        assert exits(bitmaps, denied, index, is_write=True) == ((index in WRITES) != denied)
    assert all(len(b.allowed) % 8 == 0 and 8 * len(b.allowed) >= b.count for b in bitmaps)


def test_neighbours_are_split_where_a_bitmap_is_full() -> None:
    bitmaps = list(msr_bitmaps(range(10), (), 4))
    assert [(b.base, b.count, b.allowed) for b in bitmaps] == [
        (0, 4, bytes(8)),
        (4, 4, bytes(8)),
        (8, 2, bytes(8)),
    ]


def test_what_is_no_msr_is_refused_by_number() -> None:
    with pytest.raises(ValueError, match="-0x1, 0x100000000: the index of an MSR is an unsigned"):
        listed([-1, 0x10, 1 << 32])
    with pytest.raises(ValueError, match="0x100000000"):
        AllExcept([1 << 32])


def test_how_they_print() -> None:
    assert repr(AllExcept()) == "AllExcept([])"
    assert repr(AllExcept([0xC0000080, 5])) == "AllExcept([0x5, 0xc0000080 (MSR_EFER)])"
