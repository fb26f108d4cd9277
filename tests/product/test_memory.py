"""Guest memory: what lies where, what an access may reach, and who keeps it from being closed."""

from __future__ import annotations

import array
import ctypes
import errno
import mmap
import os
import sys
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requirements import require
from vmm_arch.memory import GuestMemory, MemoryAccessError, MemoryInUseError, Region

PAGE = 0x1000
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

LOW = Region(0, 2 * PAGE)
NEXT = Region(2 * PAGE, PAGE)  # adjacent to LOW
ROM = Region(0xFFFF_0000, 0x1_0000, read_only=True)


class AroundDevices(GuestMemory):
    """Memory of a CPU whose devices lie below 4 GiB, and whose first page is not memory."""

    HOLES = (range(3 * GIB, 4 * GIB),)
    START = PAGE


def mapped() -> int:
    """How many bytes this process has mapped. (Linux joins mappings, so their number says less.)"""
    require(sys.platform == "linux", "no /proc/self/statm")
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE


# What lies where


def test_memory_of_one_size_is_one_region_from_0() -> None:
    with GuestMemory(64 * MIB) as memory:
        assert memory.regions == (Region(0, 64 * MIB),)
        assert memory.read(64 * MIB - 8, 8) == bytes(8)


@pytest.mark.parametrize(
    ("size", "regions"),
    [
        (PAGE, [Region(PAGE, PAGE)]),
        (3 * GIB - PAGE, [Region(PAGE, 3 * GIB - PAGE)]),
        (3 * GIB, [Region(PAGE, 3 * GIB - PAGE), Region(4 * GIB, PAGE)]),
        (5 * GIB, [Region(PAGE, 3 * GIB - PAGE), Region(4 * GIB, 2 * GIB + PAGE)]),
    ],
)
def test_memory_laid_out_by_size_avoids_the_holes(size: int, regions: list[Region]) -> None:
    with AroundDevices(size) as memory:
        assert memory.regions == tuple(regions)


ranges = st.builds(
    lambda start, pages: range(start * PAGE, (start + pages) * PAGE),
    st.integers(0, 40),
    st.integers(1, 10),
)


@given(st.integers(1, 30), st.integers(0, 20), st.lists(ranges, max_size=4))
def test_a_layout_takes_the_lowest_pages_outside_every_hole(
    pages: int, start: int, holes: list[range]
) -> None:
    class Memory(GuestMemory):
        START = start * PAGE
        HOLES = tuple(holes)

    with Memory(pages * PAGE) as memory:
        laid_out = [page for r in memory.regions for page in range(r.address, r.end, PAGE)]
    candidates = range(start * PAGE, 100 * PAGE, PAGE)
    free = [page for page in candidates if not any(page in hole for hole in holes)]
    assert laid_out == free[:pages]


def test_exact_regions_are_kept_in_ascending_order() -> None:
    with GuestMemory(iter([ROM, NEXT, LOW])) as memory:
        assert memory.regions == (LOW, NEXT, ROM)
        assert [region.read_only for region in memory.regions] == [False, False, True]


def test_memory_and_regions_show_where_they_are() -> None:
    assert str(LOW) == "[0x0, 0x2000)"
    assert str(ROM) == "[0xffff0000, 0x100000000) read-only"
    with GuestMemory([LOW, ROM]) as memory:
        memory.hold()
        assert repr(memory) == (
            "<GuestMemory [0x0, 0x2000), [0xffff0000, 0x100000000) read-only; mapped into 1 VM(s)>"
        )
        memory.release()
    assert repr(memory).endswith("; closed>")


def test_a_region_lies_at_its_host_address() -> None:
    with GuestMemory([LOW, NEXT, ROM]) as memory:
        for value, region in enumerate(memory.regions, start=1):
            host = memory.host_address(region)
            assert host % mmap.PAGESIZE == 0
            memory.write(region.address, bytes([value]) * region.size)
        for value, region in enumerate(memory.regions, start=1):
            host = memory.host_address(region)
            assert ctypes.string_at(host, region.size) == bytes([value]) * region.size


def test_regions_share_no_byte() -> None:
    with GuestMemory([LOW, NEXT, ROM, Region(4 * GIB, 2 * MIB)]) as memory:
        ends = sorted(
            (memory.host_address(region), memory.host_address(region) + region.size)
            for region in memory.regions
        )
        assert all(end <= start for (_, end), (start, _) in pairwise(ends))


@pytest.mark.parametrize("regions", [[LOW, Region(5 * MIB, 4 * MIB), ROM], [Region(PAGE, GIB)]])
def test_host_addresses_allow_large_pages(regions: list[Region]) -> None:
    """KVM maps large pages only where host and guest-physical addresses agree modulo 2 MiB."""
    with GuestMemory(regions) as memory:
        for region in memory.regions:
            assert (memory.host_address(region) - region.address) % (2 * MIB) == 0


@pytest.mark.parametrize(
    "other", [NEXT, Region(0, PAGE), Region(PAGE, PAGE), Region(0, 2 * PAGE, read_only=True)]
)
def test_only_its_own_regions_have_a_host_address(other: Region) -> None:
    with GuestMemory([LOW, ROM]) as memory:
        with pytest.raises(ValueError, match="not a region of guest memory") as refused:
            memory.host_address(other)
        assert str(refused.value) == (
            f"{other} is not a region of guest memory [0x0, 0x2000),"
            " [0xffff0000, 0x100000000) read-only; give one"
        )


# Regions that cannot be


@pytest.mark.parametrize(
    ("address", "size", "message"),
    [
        (-PAGE, PAGE, "region of 0x1000 bytes at -0x1000 starts below 0; start it at 0 or above"),
        (0x1234, PAGE, "region of 0x1000 bytes at 0x1234 starts within a page; start it at 0x1000"),
        (PAGE, 0, "region of 0x0 bytes at 0x1000 is empty; give it 0x1000 bytes or more"),
        (PAGE, -PAGE, "region of -0x1000 bytes at 0x1000 is empty; give it 0x1000 bytes or more"),
        (PAGE, 0x1001, "region of 0x1001 bytes at 0x1000 ends within a page; give it 0x2000 bytes"),
        (
            (1 << 52) - PAGE,
            2 * PAGE,
            "region of 0x2000 bytes at 0xffffffffff000 ends above 2**52, the largest address;"
            " end it at 0x10000000000000 or below",
        ),
    ],
)
def test_a_region_that_cannot_be_is_refused(address: int, size: int, message: str) -> None:
    with pytest.raises(ValueError, match="region") as refused:
        Region(address, size)
    assert str(refused.value) == message


def test_the_last_page_below_the_limit_is_memory() -> None:
    last = Region((1 << 52) - PAGE, PAGE)
    with GuestMemory([last]) as memory:
        memory.write(last.address, b"\x55" * PAGE)
        assert memory.read(last.end - 1, 1) == b"\x55"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (0, "region of 0x0 bytes at 0x0 is empty; give it 0x1000 bytes or more"),
        (-PAGE, "region of -0x1000 bytes at 0x0 is empty; give it 0x1000 bytes or more"),
        (100, "region of 0x64 bytes at 0x0 ends within a page; give it 0x1000 bytes"),
        ([], "guest memory has no regions; give it one or more"),
        (
            [NEXT, Region(PAGE, 2 * PAGE, read_only=True)],
            "regions [0x1000, 0x3000) read-only and [0x2000, 0x3000) overlap;"
            " move or shrink one of them",
        ),
        ([LOW, LOW], "regions [0x0, 0x2000) and [0x0, 0x2000) overlap; move or shrink one of them"),
    ],
)
def test_memory_that_cannot_be_is_refused(wanted: int | Iterable[Region], message: str) -> None:
    with pytest.raises(ValueError, match="region") as refused:
        GuestMemory(wanted)
    assert str(refused.value) == message


# Access

BASE = 3 * PAGE
"""Where the memory of the property test starts, so that there is something below it."""


@st.composite
def layouts(draw: st.DrawFn) -> list[Region]:
    """A few regions, adjacent or not, and sometimes one that is large enough for large pages."""
    regions, address = [], BASE
    for gap, pages in draw(
        st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=4)
    ):
        regions.append(Region(address + gap * PAGE, pages * PAGE))
        address = regions[-1].end
    if draw(st.booleans()):
        regions.append(Region(address + draw(st.integers(0, 1)) * PAGE, 2 * MIB))
    return regions


@st.composite
def accesses(draw: st.DrawFn) -> tuple[int, int, bytes | None]:
    """An address, near a page's edge more often than not, a size, and what to write if anything."""
    edge = draw(st.integers(-1, 16)) * PAGE
    address = edge + draw(st.one_of(st.integers(-9, 9), st.integers(0, PAGE)))
    size = draw(st.one_of(st.integers(0, 16), st.integers(0, 3 * PAGE)))
    fill = draw(st.one_of(st.none(), st.binary(min_size=1, max_size=5)))
    return address, size, None if fill is None else (fill * size)[:size]


@given(layouts(), st.lists(accesses(), max_size=20))
def test_accesses_behave_like_those_to_one_bytearray_with_holes(
    regions: list[Region], steps: list[tuple[int, int, bytes | None]]
) -> None:
    model = bytearray(regions[-1].end)

    def exists(address: int, size: int) -> bool:
        """Whether each byte exists; of no bytes, whether they touch memory."""
        for region in regions:
            if region.address <= address <= region.end:
                if address + size <= region.end:
                    return True
                if address < region.end:
                    size -= region.end - address
                    address = region.end
        return False

    with GuestMemory(regions) as memory:
        for address, size, data in steps:
            try:
                if data is None:
                    assert memory.read(address, size) == model[address : address + size]
                else:
                    memory.write(address, data)
                    model[address : address + size] = data
                assert exists(address, size)
            except MemoryAccessError as error:
                assert not exists(address, size)
                assert f"[{address:#x}, {address + size:#x})" in str(error)
        for region in regions:
            assert memory.read(region.address, region.size) == model[region.address : region.end]


Access = Callable[[GuestMemory, int, int], object]


def write(memory: GuestMemory, address: int, size: int) -> None:
    memory.write(address, bytes(size))


@pytest.mark.parametrize("access", [GuestMemory.read, GuestMemory.view, write])
@pytest.mark.parametrize(
    ("address", "size"),
    [
        (-1, 1),
        (-PAGE, PAGE),
        (-1, 2),
        (3 * PAGE, 1),
        (3 * PAGE - 1, 2),
        (2 * PAGE, ROM.end),  # begins and ends in memory
        (ROM.address - 1, 2),
        (ROM.end, 1),
        (1 << 64, 8),
        (5 * PAGE, 0),
    ],
)
def test_an_access_outside_guest_memory_is_refused(access: Access, address: int, size: int) -> None:
    with GuestMemory([LOW, NEXT, ROM]) as memory:
        with pytest.raises(IndexError) as refused:
            access(memory, address, size)
        assert type(refused.value) is MemoryAccessError
        assert str(refused.value) == (
            f"guest-physical [{address:#x}, {address + size:#x}) reaches outside guest memory, which"
            " is [0x0, 0x2000), [0x2000, 0x3000), [0xffff0000, 0x100000000) read-only"
        )


def test_a_write_that_reaches_outside_writes_nothing() -> None:
    with GuestMemory([LOW, ROM]) as memory:
        with pytest.raises(MemoryAccessError):
            memory.write(LOW.end - 4, b"too long")
        assert memory.read(LOW.end - 4, 4) == bytes(4)


@pytest.mark.parametrize("address", [0, PAGE, ROM.address, -1])
@pytest.mark.parametrize("access", [GuestMemory.read, GuestMemory.view])
def test_a_negative_size_is_refused(access: Access, address: int) -> None:
    with (
        GuestMemory([LOW, ROM]) as memory,
        pytest.raises(ValueError, match="access to -1 bytes at"),
    ):
        access(memory, address, -1)


class Header(ctypes.LittleEndianStructure):
    _fields_ = (("magic", ctypes.c_uint32), ("version", ctypes.c_uint16))
    _pack_ = 1
    _layout_ = "ms"


@pytest.mark.parametrize(
    "data",
    [
        b"\1\2\3\4\5\6",
        bytearray(b"\1\2\3\4\5\6"),
        memoryview(b"\0\1\2\3\4\5\6")[1:],
        memoryview(b"\6\5\4\3\2\1")[::-1],
        array.array("H", b"\1\2\3\4\5\6"),
        Header.from_buffer_copy(b"\1\2\3\4\5\6"),
    ],
    ids=lambda data: type(data).__name__,
)
def test_everything_bytes_like_can_be_written(data: Any) -> None:
    with GuestMemory(PAGE) as memory:
        memory.write(0x100, data)
        assert memory.read(0xFE, 10) == b"\0\0\1\2\3\4\5\6\0\0"
        with pytest.raises(MemoryAccessError, match=r"\[0xffb, 0x1001\)"):
            memory.write(PAGE - 5, data)


@pytest.mark.parametrize("data", [5, "text", [1, 2], None])
def test_what_is_not_bytes_like_is_not_written(data: Any) -> None:
    with GuestMemory(PAGE) as memory:
        with pytest.raises(TypeError, match="bytes-like"):
            memory.write(0, data)
        assert memory.read(0, PAGE) == bytes(PAGE)


def test_guest_memory_can_be_moved_within_itself() -> None:
    content = bytes(range(256)) * 8
    with GuestMemory(PAGE) as memory:
        for source, destination in ((0, 1), (0x200, 0x100)):
            memory.write(source, content)
            with memory.view(source, len(content)) as moved:
                memory.write(destination, moved)
            assert memory.read(destination, len(content)) == content


def test_the_host_writes_what_the_guest_may_only_read() -> None:
    with GuestMemory([LOW, ROM]) as memory:
        memory.write(ROM.end - 16, b"\xea\x5b\xe0\x00\xf0")
        assert memory.read(ROM.end - 16, 5) == b"\xea\x5b\xe0\x00\xf0"


def test_what_was_read_does_not_change_and_what_is_viewed_does() -> None:
    with GuestMemory(PAGE) as memory, memory.view(0x10, 4) as view:
        copy = memory.read(0x10, 4)
        memory.write(0x10, b"code")
        assert (copy, bytes(view)) == (bytes(4), b"code")


def test_a_view_writes_to_guest_memory() -> None:
    with GuestMemory([LOW, NEXT, ROM]) as memory:
        for region in memory.regions:
            with memory.view(region.address, region.size) as view:
                assert (len(view), view.format, view.readonly) == (region.size, "B", False)
                view[-2:] = b"\x55\xaa"
            assert memory.read(region.end - 2, 2) == b"\x55\xaa"
        assert memory.read(LOW.end - 2, 4) == b"\x55\xaa\0\0"


def test_a_view_spans_no_two_regions() -> None:
    with GuestMemory([LOW, NEXT]) as memory:
        with pytest.raises(MemoryAccessError) as refused:
            memory.view(LOW.end - 1, 2)
        assert str(refused.value) == (
            "[0x1fff, 0x2001) spans the end of region [0x0, 0x2000); take one view in each region"
        )


# Who keeps it from being closed


def test_closed_memory_is_gone() -> None:
    memory = GuestMemory([LOW, ROM])
    assert not memory.closed
    memory.close()
    memory.close()
    assert memory.closed
    uses: list[Callable[[], object]] = [
        lambda: memory.read(0, 1),
        lambda: memory.read(0, 0),
        lambda: memory.read(5 * PAGE, 1),
        lambda: memory.write(0, b"data"),
        lambda: memory.write(ROM.address, b""),
        lambda: memory.view(0, 1),
        lambda: memory.host_address(ROM),
        memory.hold,
    ]
    for use in uses:
        with pytest.raises(ValueError, match=r"^guest memory is closed$"):
            use()
    assert memory.regions == (LOW, ROM)


def test_closing_gives_the_memory_back() -> None:
    before = mapped()
    for _ in range(50):
        with GuestMemory([LOW, ROM, Region(4 * GIB, GIB)]) as memory:
            memory.host_address(ROM)
    assert mapped() < before + GIB


def test_memory_stays_open_until_the_last_vm_lets_go() -> None:
    memory = GuestMemory([LOW, ROM])
    memory.hold()
    memory.hold()
    for vms in (2, 1):
        with pytest.raises(
            MemoryInUseError, match=rf"^memory is mapped into {vms} live VM\(s\); close them first$"
        ):
            memory.close()
        memory.write(0, b"alive")
        assert memory.read(0, 5) == b"alive"
        memory.release()
    memory.close()
    assert memory.closed


def test_a_release_without_a_hold_is_refused() -> None:
    with GuestMemory(PAGE) as memory:
        memory.hold()
        memory.release()
        with pytest.raises(RuntimeError, match="without a matching hold"):
            memory.release()


def a_slice(view: memoryview) -> object:
    return view[1:2]


def a_record(view: memoryview) -> object:
    return ctypes.c_uint32.from_buffer(view)


@pytest.mark.parametrize("region", [LOW, NEXT, ROM])
@pytest.mark.parametrize("made_from", [memoryview, a_slice, a_record])
def test_memory_stays_open_and_whole_while_a_view_lives(
    region: Region, made_from: Callable[[memoryview], object]
) -> None:
    memory = GuestMemory([LOW, NEXT, ROM])
    memory.write(LOW.end - 2, b"span")
    view: object = made_from(memory.view(region.address, 8))
    with pytest.raises(MemoryInUseError, match=r"^views of the memory are alive; release them"):
        memory.close()
    assert not memory.closed
    assert memory.read(LOW.end - 2, 4) == b"span"
    memory.write(ROM.address, b"firmware")
    assert ctypes.string_at(memory.host_address(ROM), 8) == b"firmware"
    memory.hold()
    memory.release()
    del view
    memory.close()
    assert memory.closed


def test_a_refused_access_keeps_nothing_alive() -> None:
    memory = GuestMemory(PAGE)
    with pytest.raises(MemoryAccessError) as refused:
        memory.view(PAGE, 1)
    memory.close()
    assert refused.value.__traceback__ is not None


def test_leaving_the_context_reports_memory_in_use() -> None:
    memory = GuestMemory(PAGE)
    with pytest.raises(MemoryInUseError, match="1 live VM"), memory:
        memory.hold()
    assert not memory.closed
    memory.release()
    memory.close()


def test_leaving_the_context_by_an_error_does_not_hide_that_error() -> None:
    memory = GuestMemory(PAGE)
    view = memory.view(0, 1)
    with pytest.raises(ZeroDivisionError) as error, memory:
        view[0] //= 0
    (note,) = error.value.__notes__
    assert note.startswith("Guest memory was not closed: views of the memory are alive")
    view.release()
    memory.close()


# What the system gives


def test_terabytes_cost_only_what_is_touched() -> None:
    require(sys.platform == "linux", "memory is reserved, or paid for, on other systems")
    overcommit = Path("/proc/sys/vm/overcommit_memory").read_text().strip()
    require(overcommit != "2", "vm.overcommit_memory=2 counts all that is mapped")
    far = Region(1 << 51, 4 * TIB)
    with GuestMemory([LOW, far]) as memory:
        for address in (far.address, far.end - 8):
            assert memory.read(address, 8) == bytes(8)
            memory.write(address, b"terabyte")
            assert memory.read(address, 8) == b"terabyte"
        with memory.view(far.address, far.size) as view:
            assert (len(view), bytes(view[-8:])) == (4 * TIB, b"terabyte")


@pytest.mark.parametrize(
    "wanted", [1 << 52, [Region(0, GIB), Region(1 << 40, 1 << 50), Region(1 << 39, PAGE)]]
)
def test_memory_that_the_system_does_not_give_leaves_nothing_behind(
    wanted: int | list[Region],
) -> None:
    before = mapped()
    for _ in range(50):
        with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)) as refused:
            GuestMemory(wanted)
    assert refused.value.errno == errno.ENOMEM
    assert mapped() < before + GIB
    (note,) = refused.value.__notes__
    assert note.startswith("Asked for 0x")
    assert "[0x0, 0x" in note
    assert "Ask for less, or raise the limit" in note


def test_windows_maps_without_posix_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    for flag in ("MAP_PRIVATE", "MAP_ANONYMOUS", "MAP_NORESERVE"):
        monkeypatch.delattr(mmap, flag, raising=False)
    with GuestMemory([LOW, ROM]) as memory:
        memory.write(ROM.address, b"firmware")
        assert memory.read(ROM.address, 8) == b"firmware"
