"""Kernel loading: where images come from, command line and initrd, and whatever is in an image."""

from __future__ import annotations

import io
import mmap
import os
import threading
import time
import tracemalloc
from ctypes import sizeof
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from images import (
    CODE,
    DATA,
    GIB,
    MACHINES,
    MIB,
    NOISE,
    PAGE,
    TEXT,
    Part,
    Recorded,
    attempt,
    bzimage,
    elf,
    loaded,
    noisy,
    refused,
    unchanged,
)
from vmm_arch.abi.linux_x86_64 import XLF_KERNEL_64, elf64_hdr, elf64_phdr
from vmm_arch.boot.flat import load_flat
from vmm_arch.boot.image import KernelImageError
from vmm_arch.memory import GuestMemory, Region
from vmm_arch.x86_64.linux.kernel import load_kernel
from vmm_arch.x86_64.platform.memory_map import GuestMemory as X86Memory

# Where images come from


def a_pipe(image: bytes) -> Any:
    read, write = os.pipe()

    def feed() -> None:
        with open(write, "wb") as pipe:
            pipe.write(image)

    threading.Thread(target=feed).start()
    return open(read, "rb")


def a_mapping(image: bytes) -> mmap.mmap:
    mapping = mmap.mmap(-1, len(image))
    mapping[:] = image
    return mapping


@pytest.mark.parametrize(
    "given_as",
    [bytes, bytearray, memoryview, io.BytesIO, a_pipe, a_mapping],
    ids=lambda kind: kind.__name__,
)
def test_kernel_and_initrd_are_bytes_or_files(given_as: Any) -> None:
    initrd = b"initrd" * 1000
    with GuestMemory(8 * MIB) as memory:
        linux = load_kernel(memory, given_as(bzimage()), initrd=given_as(initrd))
        assert memory.read(2 * MIB, len(CODE)) == CODE
        assert linux.initrd is not None
        assert memory.read(linux.initrd.start, len(initrd)) == initrd


@pytest.mark.parametrize("given_as", [Path, str], ids=["path", "str"])
def test_kernel_and_initrd_are_paths(given_as: Any, tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(bzimage())
    (tmp_path / "initrd").write_bytes(b"initrd")
    with GuestMemory(8 * MIB) as memory:
        linux = load_kernel(
            memory, given_as(tmp_path / "kernel"), initrd=given_as(tmp_path / "initrd")
        )
        assert memory.read(2 * MIB, len(CODE)) == CODE
        assert linux.initrd is not None
        assert memory.read(linux.initrd.start, 6) == b"initrd"


def test_a_file_is_read_from_where_it_stands_and_left_there() -> None:
    with GuestMemory(8 * MIB) as memory, io.BytesIO(b"before" + bzimage()) as file:
        file.seek(6)
        for _ in range(2):
            load_kernel(memory, file)
            assert memory.read(2 * MIB, len(CODE)) == CODE
            assert not file.closed
            assert file.tell() == 6
        with pytest.raises(KernelImageError, match="command line"):
            load_kernel(memory, file, cmdline="\0")
        assert file.tell() == 6


def test_a_file_that_is_not_there_is_an_oserror(tmp_path: Path) -> None:
    with GuestMemory(8 * MIB) as memory:
        noisy(memory)
        with pytest.raises(FileNotFoundError):
            load_kernel(memory, tmp_path / "no")
        with pytest.raises(FileNotFoundError):
            load_kernel(memory, bzimage(), initrd=tmp_path / "no")
        with pytest.raises(IsADirectoryError if os.name == "posix" else OSError):
            load_kernel(memory, tmp_path)
        assert unchanged(memory)


@pytest.mark.parametrize("kernel", [None, 5, ["path"]])
def test_what_is_neither_path_nor_bytes_nor_file_is_a_type_error(kernel: Any) -> None:
    with GuestMemory(8 * MIB) as memory, pytest.raises(TypeError, match="bytes-like"):
        load_kernel(memory, kernel)


def test_a_text_file_is_a_type_error() -> None:
    with GuestMemory(8 * MIB) as memory, pytest.raises(TypeError, match="open it in binary mode"):
        load_kernel(memory, io.StringIO("kernel"))  # type: ignore[arg-type]


def test_of_a_file_only_what_is_loaded_is_read(tmp_path: Path) -> None:
    """A vmlinux with debugging information is larger than many a guest."""
    path = tmp_path / "vmlinux"
    path.write_bytes(elf([Part(2 * MIB, TEXT)]))
    os.truncate(path, 1 << 40)
    with GuestMemory(8 * MIB) as memory:
        load_kernel(memory, path)
        assert memory.read(2 * MIB, len(TEXT)) == TEXT
        message = f"initrd {path}: its 0x10000000000 bytes do not fit"
        with pytest.raises(KernelImageError, match=message):
            load_kernel(memory, path, initrd=path)


def test_a_pipe_that_does_not_end_is_refused() -> None:
    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any, /) -> int:
            return len(buffer)

    message = refused(Endless())
    assert message.startswith("kernel: it has more than 0x800000 bytes, the size of guest memory; ")


def test_a_file_that_shrinks_while_it_is_loaded_is_an_error() -> None:
    class Shrinking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return b"" if size == len(CODE) else super().read(size)

    with GuestMemory(8 * MIB) as memory, pytest.raises(KernelImageError) as error:
        load_kernel(memory, Shrinking(bzimage()))
    assert str(error.value) == (
        "kernel: it was truncated by 0x300 of its 0x700 bytes since opened;"
        " do not change it while it is loaded"
    )


def test_memory_that_is_closed_is_not_loaded_into() -> None:
    memory = GuestMemory(8 * MIB)
    memory.close()
    with pytest.raises(ValueError, match="guest memory is closed"):
        load_kernel(memory, bzimage())


# The command line


@pytest.mark.parametrize(
    ("cmdline", "written"),
    [
        ("", b"\0"),
        (b"", b"\0"),
        ("console=ttyS0 quiet", b"console=ttyS0 quiet\0"),
        (b"root=\xff", b"root=\xff\0"),
        ("root=\u00e4\udcff", b"root=\xc3\xa4\xff\0"),
        ("x" * 2047, b"x" * 2047 + b"\0"),
    ],
)
def test_the_command_line_is_at_0x20000(cmdline: str | bytes, written: bytes) -> None:
    with GuestMemory(8 * MIB) as memory:
        noisy(memory)
        linux = load_kernel(memory, bzimage(), cmdline=cmdline)
        assert linux.command_line == range(0x20000, 0x20000 + len(written))
        assert memory.read(0x20000, len(written) + 1) == written + NOISE


@pytest.mark.parametrize(
    ("image", "cmdline", "message"),
    [
        (
            bzimage(),
            "x" * 2048,
            "command line: it has 2048 bytes, more than the kernel's 2047 (cmdline_size);"
            " give a shorter one",
        ),
        (bzimage(cmdline_size=3), "quiet", "it has 5 bytes, more than the kernel's 3"),
        (bzimage(cmdline_size=0), "x", "it has 1 bytes, more than the kernel's 0"),
        (elf([Part(MIB, TEXT)]), b"x" * 2048, "more than the kernel's 2047"),
        (bzimage(cmdline_size=0xFFFFFFFF), b"x" * 0x7FC00, "more than the kernel's 523263"),
        (bzimage(), "a\0b", "command line: byte 1 is zero, which would end it; remove that byte"),
        (bzimage(), b"quiet\0", "command line: byte 5 is zero"),
        (bzimage(), "\ud800", "command line: 'utf-8' codec can't encode"),
    ],
)
def test_a_command_line_that_the_kernel_would_not_see_whole_is_refused(
    image: bytes, cmdline: str | bytes, message: str
) -> None:
    assert message in refused(image, cmdline=cmdline)


def test_the_longest_command_line_ends_below_the_ebda() -> None:
    linux = loaded(bzimage(cmdline_size=0xFFFFFFFF), cmdline=b"x" * 0x7FBFF)
    assert linux.command_line == range(0x20000, 0x9FC00)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([Region(PAGE, 8 * MIB)], "kernel: booting needs RAM at [0x0, 0xf000); RAM is [0x1000, "),
        ([Region(0, 0x8000), Region(MIB, 8 * MIB)], "needs RAM at [0x0, 0xf000)"),
        ([Region(0, 0x10000), Region(MIB, 8 * MIB)], "needs RAM at [0x20000, 0x20001)"),
        ([Region(0, MIB, read_only=True), Region(MIB, 8 * MIB)], "give the guest memory from addr"),
    ],
)
def test_booting_takes_low_memory(regions: list[Region], message: str) -> None:
    assert message in refused(bzimage(), regions)


# The initrd


def place(initrd: int, memory: int | list[Region], kernel: bytes | None = None) -> range:
    linux = loaded(kernel or bzimage(), memory, initrd=bytes(initrd))
    assert linux.initrd is not None
    assert linux.initrd.stop - linux.initrd.start == initrd
    return linux.initrd


@pytest.mark.parametrize(
    ("size", "memory", "start"),
    [
        (1, 8 * MIB, 8 * MIB - PAGE),
        (PAGE, 8 * MIB, 8 * MIB - PAGE),
        (PAGE + 1, 8 * MIB, 8 * MIB - 2 * PAGE),
        # The kernel's 64 KiB at 2 MiB are in the way, and then not.
        (PAGE, 2 * MIB + 0x11000, 2 * MIB + 0x10000),
        (PAGE, 2 * MIB + 0x10000, 2 * MIB - PAGE),
        (MIB, 2 * MIB + 0x10000, MIB),
        # Memory that the guest cannot write, and memory in two pieces.
        (PAGE, [Region(0, 4 * MIB), Region(4 * MIB, MIB, read_only=True)], 4 * MIB - PAGE),
        (MIB, [Region(0, 4 * MIB), Region(8 * MIB, PAGE)], 3 * MIB),
        (2 * PAGE, [Region(0, 4 * MIB), Region(4 * MIB, PAGE)], 4 * MIB - PAGE),
        # initrd_addr_max is the last address that may be taken, 0x7fffffff.
        (PAGE, 3 * GIB, 2 * GIB - PAGE),
        (PAGE, [Region(0, 4 * MIB), Region(4 * GIB, MIB)], 4 * MIB - PAGE),
        (8 * MIB, [Region(0, 4 * MIB), Region(4 * GIB, 64 * MIB)], 4 * GIB + 56 * MIB),
    ],
)
def test_the_initrd_goes_as_high_as_it_may(
    size: int, memory: int | list[Region], start: int
) -> None:
    assert place(size, memory).start == start


def test_the_initrd_obeys_initrd_addr_max() -> None:
    assert place(PAGE, 8 * MIB, bzimage(initrd_addr_max=5 * MIB - 1)).start == 5 * MIB - PAGE
    assert place(PAGE, 8 * MIB, bzimage(initrd_addr_max=5 * MIB)).start == 5 * MIB - PAGE
    assert place(PAGE, 8 * MIB, bzimage(initrd_addr_max=5 * MIB - 2)).start == 5 * MIB - 2 * PAGE


def test_only_a_kernel_that_can_be_loaded_above_4_gib_takes_an_initrd_above_its_maximum() -> None:
    assert place(PAGE, 8 * MIB, bzimage(initrd_addr_max=0)).start == 8 * MIB - PAGE
    old = bzimage(initrd_addr_max=0, xloadflags=XLF_KERNEL_64)
    message = refused(old, initrd=bytes(PAGE))
    assert message == (
        "initrd: its 0x1000 bytes do not fit below 0x1 (initrd_addr_max) beside the kernel,"
        " [0x200000, 0x210000); RAM is [0x0, 0x800000); give a smaller one"
    )


def test_all_that_the_kernel_needs_to_begin_is_kept_free_for_it() -> None:
    """Not only the file's size: the kernel decompresses itself in place."""
    memory = 10 * MIB
    assert place(MIB, memory, bzimage(init_size=8 * MIB)).start == MIB
    message = refused(bzimage(init_size=8 * MIB), memory, initrd=bytes(MIB + 1))
    assert message.endswith("give the guest 12 MiB of memory or more")


def test_an_initrd_shares_no_page_with_the_kernel() -> None:
    kernel = elf([Part(2 * MIB + 8, TEXT)])
    assert place(PAGE, 2 * MIB + 2 * PAGE, kernel).start == 2 * MIB + PAGE
    assert place(PAGE, 2 * MIB + PAGE, kernel).start == 2 * MIB - PAGE


def test_an_empty_initrd_is_refused() -> None:
    assert refused(bzimage(), initrd=b"").startswith("initrd: it is empty; ")


@settings(deadline=None)
@given(
    st.integers(1, 64 * MIB),
    st.integers(4, 24).map(lambda n: n * MIB),
    st.sampled_from([2 * MIB, 16 * MIB, GIB, 3 * GIB - 32 * MIB]),
    st.integers(0x300, 16 * MIB),
)
def test_the_memory_that_an_error_asks_for_is_enough(
    size: int, memory: int, preferred: int, init_size: int
) -> None:
    kernel = bzimage(pref_address=preferred, init_size=init_size)
    asked = 0
    for _ in range(3):
        with X86Memory(memory) as guest:
            try:
                load_kernel(guest, kernel, initrd=bytes(size))
                break
            except KernelImageError as error:
                words = str(error).split()
                assert words[-5:] == ["MiB", "of", "memory", "or", "more"]
                assert int(words[-6]) * MIB > memory
                memory = int(words[-6]) * MIB
                asked += 1
    assert asked <= 2, "once for the kernel and once for the initrd"


# Flat binaries


@pytest.mark.parametrize("given_as", [bytes, io.BytesIO, a_pipe])
def test_a_flat_binary_goes_where_it_is_put(given_as: Any) -> None:
    rom = Region(MIB, PAGE, read_only=True)
    with Recorded([Region(0, MIB), rom]) as memory:
        load_flat(memory, given_as(b"code"), 0x1234)
        load_flat(memory, given_as(b"firmware"), rom.end - 8)
        load_flat(memory, given_as(b"both"), rom.address - 2)
        assert memory.read(0x1234, 4) == b"code"
        assert memory.read(rom.end - 8, 8) == b"firmware"
        assert memory.read(rom.address - 2, 4) == b"both"
        assert len(memory.written) == 3


def test_a_pipe_may_fill_all_of_the_memory() -> None:
    content = os.urandom(2 * MIB)
    with GuestMemory(2 * MIB) as memory:
        load_flat(memory, a_pipe(content), 0)
        assert memory.read(0, 2 * MIB) == content
        with pytest.raises(KernelImageError, match="the size of guest memory"):
            load_flat(memory, a_pipe(content + b"1"), 0)


@pytest.mark.parametrize(
    ("code", "address", "message"),
    [
        (b"", 0x1000, "binary: it is empty; "),
        (
            b"code",
            0xFFE,
            "binary: it would go to [0xffe, 0x1002); memory is [0x0, 0x1000), [0x2000, 0x3000);"
            " load it elsewhere, or give the guest memory there",
        ),
        (b"code", -2, "it would go to [-0x2, 0x2)"),
        (bytes(0x3000), 0, "it would go to [0x0, 0x3000)"),
        (b"code", 1 << 64, "it would go to [0x10000000000000000, 0x10000000000000004)"),
    ],
)
def test_a_flat_binary_that_does_not_fit_is_refused(
    code: bytes, address: int, message: str
) -> None:
    with GuestMemory([Region(0, PAGE), Region(2 * PAGE, PAGE)]) as memory:
        noisy(memory)
        with pytest.raises(KernelImageError) as error:
            load_flat(memory, code, address)
        assert message in str(error.value)
        assert unchanged(memory)


# Whatever is in an image

HOSTILE = [
    bzimage(init_size=0xFFFFFFFF),
    bzimage(syssize=0xFFFFFFFF, init_size=0xFFFFFFFF),
    bzimage(pref_address=(1 << 64) - 1),
    elf([Part(2 * MIB, TEXT, (1 << 64) - 1)]),
    elf([Part(2 * MIB, TEXT, None, (("p_filesz", (1 << 64) - 1), ("p_memsz", (1 << 64) - 1)))]),
    elf([Part(2 * MIB, TEXT)], e_phnum=0xFFFE, e_phoff=(1 << 64) - 1),
]


@pytest.mark.parametrize("image", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_is_allocated_because_an_image_says_a_size(image: bytes) -> None:
    with GuestMemory(GIB) as memory:
        tracemalloc.start()
        try:
            with pytest.raises(KernelImageError):
                load_kernel(memory, image)
            assert tracemalloc.get_traced_memory()[1] < 256 << 10
        finally:
            tracemalloc.stop()


def test_the_most_that_an_image_can_ask_for_is_done_in_pieces() -> None:
    """All of a guest's memory becomes zero without ever being in the host's twice."""
    image = elf([Part(MIB, TEXT, GIB - MIB)])
    with GuestMemory(GIB) as memory:
        tracemalloc.start()
        start = time.monotonic()
        try:
            load_kernel(memory, image)
            assert tracemalloc.get_traced_memory()[1] < 4 * MIB
        finally:
            tracemalloc.stop()
    assert time.monotonic() - start < 30


def test_as_many_segments_as_there_can_be_are_looked_at_once() -> None:
    image = elf([Part(2 * MIB + 0x100 * index, b"x") for index in range(0xFFFE)])
    with GuestMemory(32 * MIB) as memory:
        start = time.monotonic()
        linux = load_kernel(memory, image)
        assert time.monotonic() - start < 30
    assert linux.kernel.stop == 2 * MIB + 0x100 * 0xFFFD + 1


SMALL = bzimage(CODE[:0x210])
TINY = elf([Part(2 * MIB, TEXT, 0x2000), Part(2 * MIB + 0x4000, DATA)])
edges = [
    0,
    1,
    2,
    0x1FF,
    0x7F,
    0x80,
    0xFF,
    0x200,
    0xFFFF,
    2 * MIB,
    4 * GIB - 1,
    (1 << 63),
    (1 << 64) - 1,
]
values = st.one_of(st.sampled_from(edges), st.integers(0, (1 << 64) - 1))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """An image with a few fields overwritten, cut short or made longer."""
    image = bytearray(draw(st.sampled_from([SMALL, TINY])))
    first, last = (
        (0x1F1, 0x26C)
        if image[:4] != b"\x7fELF"
        else (0, sizeof(elf64_hdr) + 2 * sizeof(elf64_phdr))
    )
    for _ in range(draw(st.integers(0, 4))):
        width = draw(st.sampled_from([1, 2, 4, 8]))
        offset = draw(st.integers(first, last - width))
        value = draw(values) & (1 << 8 * width) - 1
        image[offset : offset + width] = value.to_bytes(width, "little")
    if draw(st.booleans()):
        image = image[: draw(st.integers(0, len(image)))]
    return bytes(image) + draw(st.binary(max_size=8))


@settings(deadline=None, max_examples=500)
@given(
    st.sampled_from(MACHINES),
    mutated(),
    st.binary(max_size=2100),
    st.sampled_from([None, b"", b"initrd", bytes(PAGE + 1), bytes(5 * MIB), bytes(9 * MIB)]),
)
@example(MACHINES[0], SMALL, b"quiet", b"initrd")
@example(MACHINES[0], TINY, b"quiet", b"initrd")
def test_a_mutated_image_is_refused_or_loaded_as_announced(
    machine: Any, image: bytes, cmdline: bytes, initrd: bytes | None
) -> None:
    attempt(machine, image, cmdline, initrd)


@given(st.sampled_from([SMALL, TINY]), st.data())
def test_an_image_that_is_cut_short_is_refused(image: bytes, data: st.DataObject) -> None:
    least = 16 if image is SMALL else 1  # a bzImage's size is in paragraphs
    assert attempt(MACHINES[0], image[: data.draw(st.integers(0, len(image) - least))]) is None


@given(st.sampled_from(MACHINES), st.binary(max_size=4096))
def test_rubbish_is_refused(machine: Any, image: bytes) -> None:
    assume(image[:4] != b"\x7fELF" and image[0x202:0x206] != b"HdrS")
    assert attempt(machine, image) is None


def test_the_images_that_are_mutated_can_be_loaded() -> None:
    for image in (SMALL, TINY):
        for machine in MACHINES[:3]:
            assert attempt(machine, image, b"quiet", b"initrd") is not None
