"""What backs guest memory: files, shared or copy-on-write, huge pages; and files that it is saved to."""

from __future__ import annotations

import errno
import mmap
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from process_memory import smaps
from requirements import require
from vmm_arch import backing
from vmm_arch.backing import BackingError, HugePagesUnavailableError
from vmm_arch.memory import GuestMemory, MemoryInUseError, Region

PAGE = 0x1000
MIB = 1 << 20
LOW = Region(PAGE, 2 * PAGE)
HIGH = Region(1 << 32, PAGE)
SIZE = 3 * PAGE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="memfd_create is Linux's")


class AroundDevices(GuestMemory):
    HOLES = (range(2 * PAGE, 8 * PAGE),)
    START = PAGE


@pytest.fixture
def file() -> Iterator[int]:
    """A descriptor of three pages: of ones, twos and threes."""
    descriptor = os.memfd_create("guest")
    os.write(descriptor, b"".join(bytes([page]) * PAGE for page in (1, 2, 3)))
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def no_leak() -> Iterator[None]:
    """The test leaves as many descriptors and mappings of memfds as it found."""

    def held() -> tuple[int, int]:
        maps = Path("/proc/self/maps").read_text()
        return len(os.listdir("/proc/self/fd")), maps.count("memfd:guest")

    before = held()
    yield
    assert held() == before


def content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def data_in(descriptor: int) -> list[range]:
    """The ranges of a file that are not holes."""
    found, at, end = [], 0, os.fstat(descriptor).st_size
    while at < end:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            assert error.errno == errno.ENXIO
            break
        at = os.lseek(descriptor, start, os.SEEK_HOLE)
        found.append(range(start, at))
    return found


# From a file


def test_regions_lie_one_after_the_other_in_the_file(file: int) -> None:
    with GuestMemory([HIGH, LOW], file=file) as memory:
        assert memory.read(LOW.address, LOW.size) == b"\1" * PAGE + b"\2" * PAGE
        assert memory.read(HIGH.address, HIGH.size) == b"\3" * PAGE
    with AroundDevices(SIZE, file=file) as laid_out:
        assert laid_out.regions == (Region(PAGE, PAGE), Region(8 * PAGE, 2 * PAGE))
        assert laid_out.read(8 * PAGE, 2 * PAGE) == b"\2" * PAGE + b"\3" * PAGE


def test_large_regions_have_no_gaps_in_the_file_either() -> None:
    regions = [Region(PAGE, 2 * MIB), Region((1 << 32) + 5 * PAGE, 2 * MIB)]
    descriptor = os.memfd_create("guest")
    os.ftruncate(descriptor, 4 * MIB)
    for at, region in enumerate(regions, start=1):
        os.pwrite(descriptor, bytes([at]) * region.size, (at - 1) * 2 * MIB)
    with GuestMemory(regions, file=descriptor) as memory:
        for at, region in enumerate(regions, start=1):
            assert memory.read(region.address, region.size) == bytes([at]) * region.size
            assert memory.host_address(region) % mmap.PAGESIZE == 0
    os.close(descriptor)


def test_memory_starts_at_an_offset(file: int) -> None:
    with GuestMemory(PAGE, file=file, offset=2 * PAGE) as memory:
        assert memory.read(0, PAGE) == b"\3" * PAGE


def test_a_file_may_be_larger_than_memory(file: int) -> None:
    with GuestMemory(PAGE, file=file) as memory:
        assert memory.read(0, PAGE) == b"\1" * PAGE


def test_private_writes_stay_in_their_memory(file: int) -> None:
    before = content(file)
    with GuestMemory(SIZE, file=file) as one, GuestMemory(SIZE, file=file) as two:
        one.write(PAGE - 2, b"mine")
        with two.view(0, 4) as view:
            view[:] = b"too!"
        assert one.read(PAGE - 2, 4) == b"mine"
        assert (one.read(0, 1), two.read(0, 4)) == (b"\1", b"too!")
        assert two.read(PAGE - 2, 4) == b"\1\1\2\2"
        assert content(file) == before


def test_shared_writes_reach_the_file_and_all_that_share_it(file: int) -> None:
    with (
        GuestMemory(SIZE, file=file, shared=True) as one,
        GuestMemory([LOW, HIGH], file=file, shared=True) as two,
    ):
        one.write(2 * PAGE, b"ours")
        assert two.read(HIGH.address, 4) == b"ours"
        assert os.pread(file, 4, 2 * PAGE) == b"ours"


@pytest.mark.parametrize("shared", [False, True])
def test_a_path_is_opened_as_it_is_needed(tmp_path: Path, shared: bool, no_leak: None) -> None:
    path = tmp_path / "memory"
    path.write_bytes(b"\5" * PAGE)
    for name in (path, str(path)):
        with GuestMemory(PAGE, file=name, shared=shared) as memory:
            memory.write(0, b"data")
            assert memory.read(3, 2) == b"a\5"
    assert path.read_bytes()[:4] == (b"data" if shared else b"\5" * 4)


def test_the_callers_descriptor_stays_the_callers(no_leak: None) -> None:
    descriptor = os.memfd_create("guest")
    os.ftruncate(descriptor, PAGE)
    memory = GuestMemory(PAGE, file=descriptor, shared=True)
    os.close(descriptor)
    memory.write(0, b"kept")
    assert memory.read(0, 4) == b"kept"
    memory.close()
    assert memory.closed


def test_memory_of_a_file_stays_open_while_it_is_used(file: int) -> None:
    memory = GuestMemory(SIZE, file=file)
    view = memory.view(0, 1)
    with pytest.raises(MemoryInUseError, match="views"):
        memory.close()
    view.release()
    memory.hold()
    with pytest.raises(MemoryInUseError, match="1 live VM"):
        memory.close()
    memory.release()
    memory.close()


@pytest.mark.parametrize("shared", [False, True])
def test_a_forked_child_shares_only_what_is_shared(file: int, shared: bool) -> None:
    with GuestMemory(SIZE, file=file, shared=shared) as memory:
        if not (child := os.fork()):
            try:
                memory.write(0, b"child")
                memory.close()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert memory.read(0, 5) == (b"child" if shared else b"\1" * 5)


# Files that cannot be mapped


def read_only(file: int) -> int:
    return os.open(f"/proc/self/fd/{file}", os.O_RDONLY)


def write_only(file: int) -> int:
    return os.open(f"/proc/self/fd/{file}", os.O_WRONLY)


def closed(file: int) -> int:
    descriptor = os.dup(file)
    os.close(descriptor)
    return descriptor


def pipe(file: int) -> int:
    read, write = os.pipe()
    os.close(write)
    return read


@pytest.mark.parametrize(
    ("opened", "arguments", "problems"),
    [
        (os.dup, {"offset": PAGE}, ["ends at 0x3000, and memory needs [0x1000, 0x4000) of it; ask"
            " for less, or extend it with os.truncate(file, 0x4000)"]),
        (os.dup, {"offset": -PAGE}, ["offset -0x1000 is below 0; give 0 or more"]),
        (os.dup, {"offset": 0x1234}, ["offset 0x1234 is not a multiple of 0x1000, as this system maps"
            " files; give 0x1000 or 0x2000", "ends at 0x3000, and memory needs [0x1234, 0x4234) of it;"
            " ask for less, or extend it with os.truncate(file, 0x4234)"]),
        (read_only, {"shared": True}, ["cannot be written; open it for reading and writing, unsealed,"
            " or give shared=False"]),
        (write_only, {}, ["cannot be read; open it for reading"]),
        (closed, {}, ["is not open; give an open descriptor, or a path"]),
        (lambda file: -1, {}, ["is not open; give an open descriptor, or a path"]),
        (pipe, {}, ["is not a regular file; give one, or os.memfd_create()'s"]),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_mapped_is_refused(
    file: int,
    no_leak: None,
    opened: Callable[[int], int],
    arguments: dict[str, Any],
    problems: list[str],
) -> None:
    require(mmap.ALLOCATIONGRANULARITY == PAGE, "pages of another size")
    descriptor = opened(file)
    with pytest.raises(BackingError) as refused:
        GuestMemory(SIZE, file=descriptor, **arguments)
    assert refused.value.problems == tuple(problems)
    assert str(refused.value).startswith(f"descriptor {descriptor}: ")
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)
    if opened is not closed and descriptor >= 0:
        os.close(descriptor)


def test_a_read_only_descriptor_is_enough_for_copy_on_write(file: int) -> None:
    descriptor = read_only(file)
    with GuestMemory(SIZE, file=descriptor) as memory:
        memory.write(0, b"mine")
        assert memory.read(0, 4) == b"mine"
    os.close(descriptor)


def test_paths_that_cannot_be_mapped_are_named(tmp_path: Path, no_leak: None) -> None:
    with pytest.raises(FileNotFoundError, match="missing") as missing:
        GuestMemory(PAGE, file=tmp_path / "missing")
    assert not hasattr(missing.value, "__notes__")
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(BackingError, match=f"^{path}: is not a regular file"):
            GuestMemory(PAGE, file=path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shared": True}, "shared and offset are about a file; give file="),
        ({"offset": PAGE}, "shared and offset are about a file; give file="),
        ({"file": 0, "huge_pages": 2 * MIB}, "a file has pages of its own; leave out huge_pages"),
        ({"huge_pages": "large"}, 'unknown; give 2 << 20, 1 << 30 or "transparent"'),
        ({"huge_pages": 2.5}, "huge_pages=2.5: unknown"),
        ({"huge_pages": 0}, "huge_pages=0x0: no size of huge pages"),
        ({"huge_pages": 3 * MIB}, "huge_pages=0x300000: no size of huge pages"),
    ],
)
def test_arguments_that_contradict_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"file|huge_pages") as refused:
        GuestMemory(4 * MIB, **arguments)
    assert message in str(refused.value)


def test_windows_maps_files_without_posix_flags(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    for flag in ("MAP_PRIVATE", "MAP_SHARED", "MAP_ANONYMOUS", "MAP_NORESERVE", "MADV_HUGEPAGE"):
        monkeypatch.delattr(mmap, flag, raising=False)
    before = content(file)
    with GuestMemory([LOW, HIGH], file=file) as memory:
        memory.write(HIGH.address, b"mine")
        assert (memory.read(HIGH.address, 5), content(file)) == (b"mine\3", before)
    with GuestMemory([LOW, HIGH], file=file, shared=True) as memory:
        memory.write(HIGH.address, b"ours")
        assert os.pread(file, 4, 2 * PAGE) == b"ours"
    for huge_pages in (2 * MIB, "transparent"):
        with pytest.raises(HugePagesUnavailableError, match="only Linux has them; leave out"):
            GuestMemory(4 * MIB, huge_pages=huge_pages)


# Huge pages


def pool(size: int) -> Path:
    return Path(f"/sys/kernel/mm/hugepages/hugepages-{size >> 10}kB")


@pytest.mark.parametrize("size", [2 * MIB, 1024 * MIB])
@pytest.mark.parametrize("of_file", [False, True])
def test_huge_pages_that_are_not_there_are_named(size: int, of_file: bool, no_leak: None) -> None:
    require(pool(size).is_dir(), "this kernel has no such pages")
    wanted = 1 << 46  # more than any host has
    arguments: dict[str, Any] = {"huge_pages": size}
    if of_file:
        descriptor = os.memfd_create("guest", os.MFD_HUGETLB | (size.bit_length() - 1) << 26)
        os.ftruncate(descriptor, wanted)
        arguments = {"file": descriptor}
    with pytest.raises(HugePagesUnavailableError) as refused:
        GuestMemory(wanted, **arguments)
    if of_file:
        os.close(descriptor)
    assert refused.value.errno == errno.ENOMEM
    assert f"memory needs {wanted // size} huge pages of {size:#x} bytes, and " in str(
        refused.value
    )
    assert f"(echo {wanted // size} > {pool(size)}/nr_hugepages, or hugepagesz=" in str(
        refused.value
    )


def test_huge_pages_of_a_size_that_the_host_does_not_have_are_named() -> None:
    require(sys.platform == "linux", "only Linux has them")
    with pytest.raises(HugePagesUnavailableError) as refused:
        GuestMemory(1 << 40, huge_pages=1 << 38)
    assert "this host has no huge pages of this size; give one of its sizes: " in str(refused.value)


def test_regions_are_whole_huge_pages() -> None:
    require(sys.platform == "linux", "only Linux has them")
    with pytest.raises(ValueError, match="huge_pages=0x200000") as refused:
        GuestMemory(
            [Region(0, MIB), Region(MIB, MIB), Region(4 * MIB, 2 * MIB)], huge_pages=2 * MIB
        )
    assert str(refused.value).splitlines() == [
        f"huge_pages=0x200000: region {region} is not made of whole huge pages;"
        " start and end it at multiples of 0x200000"
        for region in ("[0x0, 0x100000)", "[0x100000, 0x200000)")
    ]


REGIONS = [Region(2 * MIB, 2 * MIB), Region(1 << 32, 2 * MIB)]


@pytest.mark.parametrize("of_file", [False, True])
def test_memory_is_on_reserved_huge_pages(of_file: bool, no_leak: None) -> None:
    free = pool(2 * MIB) / "free_hugepages"
    require(free.exists() and int(free.read_text()) >= 2, "fewer than two huge pages are free")
    arguments: dict[str, Any] = {"huge_pages": 2 * MIB}
    if of_file:
        descriptor = os.memfd_create("guest", os.MFD_HUGETLB)
        os.ftruncate(descriptor, 4 * MIB)
        with pytest.raises(BackingError) as refused:
            GuestMemory(MIB, file=descriptor, offset=PAGE)
        assert [problem.split(";")[0] for problem in refused.value.problems] == [
            "offset 0x1000 is not a multiple of 0x200000, as this system maps files",
            "region [0x0, 0x100000) is not made of whole huge pages",
        ]
        arguments = {"file": descriptor, "shared": True}
    with GuestMemory(REGIONS, **arguments) as memory:
        for region in REGIONS:
            host = memory.host_address(region)
            assert host % (2 * MIB) == 0
            assert smaps(host)["KernelPageSize"] == "2048 kB"
            memory.write(region.end - 4, b"huge")
            assert memory.read(region.end - 4, 4) == b"huge"
    if of_file:
        os.close(descriptor)


def test_transparent_huge_pages_are_asked_for_where_they_fit() -> None:
    require(Path("/sys/kernel/mm/transparent_hugepage").is_dir(), "this kernel has none")
    with GuestMemory(REGIONS, huge_pages="transparent") as memory:
        for region in REGIONS:
            host = memory.host_address(region)
            assert (host - region.address) % (2 * MIB) == 0
            assert "hg" in smaps(host)["VmFlags"].split()
    with GuestMemory(REGIONS) as memory:
        assert "hg" not in smaps(memory.host_address(REGIONS[0]))["VmFlags"].split()


def test_a_kernel_without_transparent_huge_pages_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", 12345)  # EINVAL, as from a kernel without them
    before = Path("/proc/self/statm").read_text().split()[0]
    with pytest.raises(HugePagesUnavailableError, match="built without them; leave out") as refused:
        GuestMemory(64 * MIB, huge_pages="transparent")
    assert refused.value.errno == errno.EINVAL
    after = Path("/proc/self/statm").read_text().split()[0]
    assert (int(after) - int(before)) * mmap.PAGESIZE < 64 * MIB


# Saving


@pytest.mark.parametrize("offset", [0, 2 * PAGE])
def test_pages_of_zeros_become_holes(offset: int, no_leak: None) -> None:
    with GuestMemory([LOW, Region(16 * PAGE, MIB), HIGH]) as memory:
        memory.write(2 * PAGE, b"low")
        memory.write(17 * PAGE + 5, b"two" * PAGE)  # three pages and a bit
        memory.write(HIGH.end - 1, b"\1")
        descriptor = os.memfd_create("guest")
        memory.save(descriptor, offset)
        end = offset + 3 * PAGE + MIB
        assert os.fstat(descriptor).st_size == end
        assert data_in(descriptor) == [
            range(offset + PAGE, offset + 2 * PAGE),
            range(offset + 3 * PAGE, offset + 7 * PAGE),
            range(end - PAGE, end),
        ]
        with GuestMemory(memory.regions, file=descriptor, offset=offset) as clone:
            for region in memory.regions:
                assert clone.read(region.address, region.size) == memory.read(
                    region.address, region.size
                )
        os.close(descriptor)


writes = st.lists(
    st.tuples(st.integers(0, 600 * PAGE - 1), st.binary(max_size=3 * PAGE)), max_size=8
)


@given(writes, st.booleans())
def test_what_was_saved_is_read_back(steps: list[tuple[int, bytes]], high: bool) -> None:
    class Memory(GuestMemory):
        HOLES = (range(300 * PAGE, 310 * PAGE),) if high else ()

    with Memory(600 * PAGE) as memory, tempfile.TemporaryDirectory() as folder:
        for address, data in steps:
            for region in memory.regions:
                if region.address <= address < region.end:
                    memory.write(address, data[: region.end - address])
        path = Path(folder, "saved")
        memory.save(path)
        assert os.listdir(folder) == ["saved"]
        held = b"".join(memory.read(region.address, region.size) for region in memory.regions)
        assert path.read_bytes() == held
        with Memory(600 * PAGE, file=path) as clone:
            for region in clone.regions:
                assert clone.read(region.address, region.size) == memory.read(
                    region.address, region.size
                )


def test_a_path_is_replaced_and_not_cut_short(tmp_path: Path, no_leak: None) -> None:
    path = tmp_path / "snapshot"
    path.write_bytes(b"\1" * 4 * PAGE)
    with (
        GuestMemory(4 * PAGE, file=path) as other,
        GuestMemory(4 * PAGE, file=path) as memory,
        GuestMemory(PAGE) as small,
    ):
        memory.write(PAGE, b"mine")
        memory.save(path)
        assert path.read_bytes() == b"\1" * PAGE + b"mine" + b"\1" * (3 * PAGE - 4)
        small.save(path)
        assert path.read_bytes() == bytes(PAGE)
        assert other.read(0, 4 * PAGE) == b"\1" * 4 * PAGE
        assert memory.read(3 * PAGE, 1) == b"\1"
    assert os.listdir(tmp_path) == ["snapshot"]


@pytest.mark.parametrize(
    ("flags", "problems"),
    [
        (os.O_RDWR, ["ends at 0x3000, after offset 0x1000; give an empty file, or that offset"]),
        (os.O_RDONLY, ["ends at 0x3000, after offset 0x1000; give an empty file, or that offset",
            "is open for reading only; open it for writing"]),
        (os.O_RDWR | os.O_APPEND, ["ends at 0x3000, after offset 0x1000; give an empty file, or that"
            " offset", "is open for appending, so that no hole can be left; open it without"]),
    ],
)  # fmt: skip
def test_a_file_that_would_be_harmed_is_refused(file: int, flags: int, problems: list[str]) -> None:
    descriptor = os.open(f"/proc/self/fd/{file}", flags)
    before = content(file)
    with GuestMemory(PAGE, file=file, shared=True) as memory:
        with pytest.raises(BackingError) as refused:
            memory.save(descriptor, PAGE)
        assert refused.value.problems == tuple(problems)
    os.close(descriptor)
    assert content(file) == before


def test_paths_that_cannot_be_saved_to_are_as_before(tmp_path: Path, no_leak: None) -> None:
    with GuestMemory(PAGE) as memory:
        for path in (tmp_path, Path("/dev/null")):
            with pytest.raises(BackingError, match=f"^{path}: is not a regular file, and would be"):
                memory.save(path)
        with pytest.raises(BackingError, match="offset -0x1 is below 0"):
            memory.save(tmp_path / "saved", -1)
        with pytest.raises(FileNotFoundError):
            memory.save(tmp_path / "missing" / "saved")
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match=r"^guest memory is closed$"):
        memory.save(tmp_path / "saved")


def test_a_full_disk_leaves_the_path_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_leak: None
) -> None:
    path = tmp_path / "snapshot"
    path.write_bytes(b"old")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    memory = GuestMemory(PAGE)
    memory.write(0, b"new")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space") as refused:
            memory.save(path)
    assert refused.value.errno == errno.ENOSPC
    memory.close()  # the error's traceback keeps no view alive
    assert (os.listdir(tmp_path), path.read_bytes()) == (["snapshot"], b"old")


def test_what_backs_memory_is_told_apart_on_every_file_system(tmp_path: Path, file: int) -> None:
    ordinary = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    assert [backing._huge_page_size(descriptor) for descriptor in (file, ordinary)] == [0, 0]
    os.close(ordinary)
    if pool(2 * MIB).is_dir():
        huge = os.memfd_create("huge", os.MFD_HUGETLB | 21 << 26)
        assert backing._huge_page_size(huge) == 2 * MIB
        os.close(huge)
