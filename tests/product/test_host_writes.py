"""What the host writes into guest memory is known to those who watch it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from vmm_arch.dirty import WrittenMemory, pages_of, runs
from vmm_arch.memory import GuestMemory, MemoryAccessError, Region

SIZE = 0x10_0000
PAGE = 0x1000


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory([Region(0, SIZE // 2), Region(SIZE // 2, SIZE // 2)]) as memory:
        yield memory


def test_written_pages(memory: GuestMemory) -> None:
    writes = memory.watch()
    assert writes.take() == (set(), [])
    memory.write(0x1FFF, b"ab")
    memory.write(0x5000, bytes(PAGE))
    memory.write(SIZE // 2 - 1, b"ab")  # two regions
    memory.write(SIZE, b"")
    with pytest.raises(MemoryAccessError):
        memory.write(SIZE - 1, b"ab")
    half = SIZE // 2
    assert writes.take() == ({0x1000, 0x2000, 0x5000, half - PAGE, half}, [])
    assert writes.take() == (set(), [])


def test_a_view_counts_as_written_while_it_is_alive(memory: GuestMemory) -> None:
    """And what was made of it; and once more after that, since it may have been used last."""
    earlier = memory.view(0x1000, 1)
    writes = memory.watch()
    view = memory.view(0x2FF0, 0x20)
    part = view[3:5]
    assert writes.take() == (set(), [(0x1000, 0x1001), (0x2FF0, 0x3010)])
    earlier.release()
    del view
    assert writes.take() == (set(), [(0x1000, 0x1001), (0x2FF0, 0x3010)])
    assert writes.take() == (set(), [(0x2FF0, 0x3010)])
    part[:] = b"ab"
    part.release()
    assert writes.take() == (set(), [(0x2FF0, 0x3010)])
    assert writes.take() == (set(), [])
    assert memory.read(0x2FF3, 2) == b"ab"


def test_views_show_the_bytes_asked_for(memory: GuestMemory) -> None:
    """Wherever they are: their owner may be larger than they are."""
    memory.write(0, random.Random(1).randbytes(SIZE))
    chance = random.Random(2)
    for _ in range(300):
        region = chance.choice(memory.regions)
        low = chance.randrange(region.address, region.end)
        size = chance.choice([0, 1, region.end - low, chance.randrange(region.end - low + 1)])
        with memory.view(low, size) as view:
            assert view.format == "B"
            assert not view.readonly
            assert view == memory.read(low, size)


def test_views_that_are_gone_cost_nothing(memory: GuestMemory) -> None:
    views = [memory.view(0, 1) for _ in range(1000)]
    del views
    for _ in range(1000):
        memory.view(0, 1)
    assert len(memory._views._made) < 200


def test_watchers_are_independent(memory: GuestMemory) -> None:
    first, second = memory.watch(), memory.watch()
    memory.write(0, b"a")
    assert first.take() == ({0}, [])
    memory.write(PAGE, b"a")
    assert second.take() == ({0, PAGE}, [])
    memory.unwatch(second)
    memory.write(2 * PAGE, b"a")
    assert first.take() == ({PAGE, 2 * PAGE}, [])
    assert second.take() == (set(), [])


def test_watched_memory_can_be_closed_and_saved(tmp_path: Path) -> None:
    memory = GuestMemory(SIZE)
    writes = memory.watch()
    memory.view(0, 16)[:4] = b"abcd"
    memory.save(tmp_path / "saved")
    memory.close()
    with GuestMemory(SIZE, file=tmp_path / "saved") as copy:
        assert copy.read(0, 4) == b"abcd"
    assert writes.take() == (set(), [(0, 16)])


def test_dirty_pages_and_a_baseline_ask_independently(memory: GuestMemory) -> None:
    written = WrittenMemory(memory.watch())
    written.note([0x3000, 0x1000])
    memory.write(0x7000, b"a")
    written.begin("here")
    assert written.take_guests() == [0x1000, 0x3000]
    written.note([0x5000])
    assert written.take_guests() == [0x5000]
    written.note([0x4000])
    memory.write(0x3FFF, b"ab")
    assert written.since_baseline() == [(0x3000, 0x6000)]
    assert written.since_baseline() == [(0x3000, 0x6000)]
    written.begin("there")
    assert written.since_baseline() == []
    assert written.take_guests() == [0x4000]


def test_runs() -> None:
    chance = random.Random(3)
    for _ in range(300):
        pages = {chance.randrange(40) * PAGE for _ in range(chance.randrange(20))}
        ranges = [(low, low + chance.randrange(1, 9000)) for low in chance.sample(range(90000), 2)]
        covered = set(pages)
        for low, high in ranges:
            covered.update(range(low - low % PAGE, high, PAGE))
        found = list(runs(pages, ranges))
        assert [page for low, high in found for page in range(low, high, PAGE)] == sorted(covered)
        assert all(one[1] < other[0] for one, other in pairwise(found))


@pytest.mark.parametrize("bytes_set", [{}, {0: 1}, {7: 0x80, 8: 0x81, 100: 0xFF}])
def test_bitmaps(bytes_set: dict[int, int]) -> None:
    bitmap = bytearray(1000)
    for at, value in bytes_set.items():
        bitmap[at] = value
    bits = [8 * at + bit for at, value in bytes_set.items() for bit in range(8) if value >> bit & 1]
    assert list(pages_of(bitmap, 0x10000)) == [0x10000 + bit * PAGE for bit in bits]
