"""Multiboot kernels: what one finds in memory and registers, and images that are refused."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from guests.assemble import assemble
from hypothesis import example, given, settings
from hypothesis import strategies as st
from images import (
    DATA,
    GIB,
    MACHINES,
    MIB,
    NOISE,
    PAGE,
    TEXT,
    Part,
    elf,
    noisy,
    unchanged,
)
from vmm_arch.boot.image import KernelImageError
from vmm_arch.memory import GuestMemory, Region
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.x86_64.boot.kernel32 import BootModule
from vmm_arch.x86_64.boot.multiboot import load_multiboot
from vmm_arch.x86_64.platform.memory_map import GuestMemory as X86Memory

from boot.images import ADDRESSES, attempt, elf32, header, what_it_says

TELLS = Path(__file__).with_name("tells.S")
CODE = header() + TEXT
KERNEL = elf32([Part(2 * MIB, CODE, 0x2000), Part(2 * MIB + 0x4000, DATA)])


# What a kernel is told


def test_a_kernel_reads_what_it_is_told(arch: AnyBackend) -> None:
    code = assemble(TELLS, 0x100000)
    modules = [BootModule(b"first\0", "one.txt a=b"), BootModule(b"2nd\0")]
    with X86Memory(4 * MIB) as memory:
        noisy(memory)
        kernel = elf32([Part(MIB, code, 0x1000)])
        entry = load_multiboot(memory, kernel, cmdline="prog -v", modules=modules)
        numbers, text = what_it_says(arch, memory, entry)
    magic, flags, lower, upper, *memory_map, bss, tr = numbers
    assert magic == 0x2BADB002
    assert flags == 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9
    assert (lower, upper) == (639, 3 << 10)
    assert bss == 0
    assert tr == 0x20
    assert text.split(b"\0") == [
        *(b"prog -v", b"vmm-arch", b"one.txt a=b", b"first", b"", b"2nd", b"")
    ]
    entries = [tuple(memory_map[at : at + 3]) for at in range(0, len(memory_map), 3)]
    assert entries == [
        (0, 0x9FC00, 1),
        (0x9FC00, 0x400, 2),
        (0xE0000, 0x10000, 3),
        (0xF0000, 0x10000, 2),
        (MIB, 3 * MIB, 1),
    ]


def test_what_configure_system_writes_is_not_in_the_kernels_way(arch: AnyBackend) -> None:
    """Kernels may be linked to where a descriptor table would be otherwise."""
    with X86Memory(2 * MIB) as memory, arch.Vm(memory) as vm:
        code = header() + bytes(0x8000)
        entry = load_multiboot(memory, elf32([Part(0x400, code)]))
        arch.configure_system(vm, entry)
        assert memory.read(0x400, len(code)) == code
        assert memory.read(0xE0000, 8) == b"RSD PTR "  # there it is looked for


# Where it goes


def loaded(image: bytes, memory: int | list[Region] = 8 * MIB, **options: Any) -> Any:
    with GuestMemory(memory) as guest:
        return load_multiboot(guest, image, **options)


def refused(image: Any, memory: int | list[Region] = 8 * MIB, **options: Any) -> str:
    with GuestMemory(memory) as guest:
        noisy(guest)
        with pytest.raises(KernelImageError) as error:
            load_multiboot(guest, image, **options)
        assert unchanged(guest)
        return str(error.value)


def test_segments_go_to_their_physical_addresses_and_the_rest_of_each_is_zero() -> None:
    with GuestMemory(8 * MIB) as memory:
        noisy(memory)
        entry = load_multiboot(memory, KERNEL)
        assert entry.address == 2 * MIB + 12
        assert entry.segments == (
            range(2 * MIB, 2 * MIB + 0x2000),
            range(2 * MIB + 0x4000, 2 * MIB + 0x4000 + len(DATA)),
        )
        assert memory.read(2 * MIB, 0x2001) == CODE.ljust(0x2000, b"\0") + NOISE
        assert memory.read(2 * MIB + 0x4000, len(DATA) + 1) == DATA + NOISE


def test_a_64_bit_elf_file_is_loaded_as_well() -> None:
    """Its entry is a virtual address, and is entered in 32-bit code, at its physical one."""
    image = elf([Part(2 * MIB, CODE)], e_entry=0xFFFFFFFF80000000 + 2 * MIB + 12)
    entry = loaded(image)
    assert entry.address == 2 * MIB + 12
    assert type(entry).__mro__[1].__name__ == "Protected32"


def test_a_kernel_may_be_linked_below_1_mib() -> None:
    entry = loaded(elf32([Part(0x8000, CODE), Part(MIB, DATA)]))
    assert entry.segments[0].start == 0x8000
    assert entry.information.stop <= 0x9FC00


def test_what_a_kernel_is_told_lies_behind_it_where_low_memory_is_full() -> None:
    low = elf32([Part(0, CODE, 0x9FC00)])
    assert loaded(low).information.start == MIB
    but_for_page_0 = elf32([Part(PAGE, CODE, 0x9EC00)])  # which has the BIOS's variables
    assert loaded(but_for_page_0).information.start == MIB
    module = BootModule(bytes(5), "x" * 0x20000)
    entry = loaded(KERNEL, cmdline="y" * 0x80000, modules=[module])
    assert entry.modules[0].start == 2 * MIB + 0x5000
    assert entry.information.start == 2 * MIB + 0x6000


def test_modules_lie_on_pages_behind_the_kernel() -> None:
    modules = [BootModule(bytes(size)) for size in (1, PAGE, 0, PAGE + 1)]
    starts = [one.start for one in loaded(KERNEL, modules=modules).modules]
    assert starts == [2 * MIB + PAGE * n for n in (5, 6, 7, 7)]


def test_modules_lie_above_1_mib_though_the_kernel_does_not() -> None:
    entry = loaded(elf32([Part(0x8000, CODE)]), modules=[BootModule(b"module")])
    assert entry.modules == (range(MIB, MIB + 6),)


@pytest.mark.parametrize("given_as", [str, Path])
def test_modules_may_be_files(given_as: Any, tmp_path: Path) -> None:
    (tmp_path / "module").write_bytes(b"content")
    with GuestMemory(8 * MIB) as memory:
        module = BootModule(given_as(tmp_path / "module"))
        entry = load_multiboot(memory, KERNEL, modules=[module])
        assert memory.read(entry.modules[0].start, 7) == b"content"


def test_addresses_in_the_header_say_where_an_image_goes_that_is_no_elf_file() -> None:
    before = bytes(20)
    code = before + header(ADDRESSES, MIB + 20, MIB, 0, 0, MIB + 52) + TEXT
    with GuestMemory(8 * MIB) as memory:
        entry = load_multiboot(memory, code)
        assert memory.read(MIB, len(code)) == code
        assert entry.address == MIB + 52
        assert entry.segments == (range(MIB, MIB + len(code)),)


def test_they_say_how_much_of_the_file_is_loaded_and_what_is_zero_behind_it() -> None:
    end = MIB + 40
    code = header(ADDRESSES, MIB, MIB, end, end + 0x2000, MIB + 32) + TEXT
    with GuestMemory(8 * MIB) as memory:
        noisy(memory)
        entry = load_multiboot(memory, code)
        assert memory.read(MIB, 0x2029) == code[:40] + bytes(0x2000) + NOISE
        assert entry.segments == (range(MIB, end + 0x2000),)


def test_they_count_for_an_elf_file_too() -> None:
    image = elf32([Part(2 * MIB, header(ADDRESSES, 3 * MIB, 3 * MIB, 0, 0, 3 * MIB + 32) + TEXT)])
    entry = loaded(image)
    assert entry.address == 3 * MIB + 32
    assert entry.segments == (range(3 * MIB, 3 * MIB + 32 + len(TEXT)),)


# What is refused


def by_header(*addresses: int) -> bytes:
    return header(ADDRESSES, *addresses) + TEXT


REFUSED = [
    (b"", "kernel: it has no Multiboot header in its first 32 KiB; give a Multiboot kernel"),
    (elf32([Part(MIB, TEXT)]), "no Multiboot header in its first 32 KiB"),
    (elf32([Part(MIB, bytes(8192) + header())]), "no Multiboot header in its first 32 KiB"),
    (elf32([Part(MIB, b"x" + header())]), "it has no Multiboot header"),
    (elf32([Part(MIB, header()[:11] + b"x")]), "it has no Multiboot header"),
    (elf32([Part(MIB, header(7))]), "flags at 0x58 is 0x7: it requires a video mode: not supported"),
    (elf32([Part(MIB, header(8))]), "flags at 0x58 is 0x8: it requires a feature that version 0.6.96 does not"),
    (header() + TEXT, "it is not an ELF file, and its Multiboot header has no addresses (flag 16)"),
    (header(ADDRESSES), "it ends at 0xc, before the end of its Multiboot header, [0x0, 0x20)"),
    (by_header(MIB, MIB + 4, 0, 0, MIB), "header_addr at 0xc is 0x100000, load_addr at 0x10 is"),
    (by_header(MIB, MIB - 4, 0, 0, MIB), "the image begins elsewhere; the image is corrupt"),
    (by_header(MIB, MIB, MIB + 0x121, 0, MIB), "load_end_addr at 0x14 is 0x100121: the image ends"),
    (by_header(MIB, MIB, MIB, 0, MIB), "load_end_addr at 0x14 is 0x100000: the image ends elsewhere"),
    (by_header(MIB, MIB, 0, 0, MIB - 1), "entry_addr at 0x1c is 0xfffff, outside what is loaded"),
    (by_header(MIB, MIB, MIB + 32, 0, MIB + 32), "entry_addr at 0x1c is 0x100020, outside what is loaded"),
    (elf32([Part(9 * MIB, CODE)]), "it goes to [0x900000, 0x90010c); RAM is [0x0, 0x9fc00), [0x100000"),
    (elf32([Part(9 * MIB, CODE)]), "; give the guest 10 MiB of memory or more"),
    (elf32([Part(0x9FC00, CODE)]), "it goes to [0x9fc00, 0x9fd0c); RAM is [0x0, 0x9fc00), [0x100000"),
    (elf32([Part(0x9FC00, CODE)]), "; link it to other addresses"),
    (elf32([Part(MIB, CODE)], e_machine=62), "e_machine at 0x12 is 0x3e: for another CPU"),
    (elf32([Part(MIB, CODE)], e_entry=1), "e_entry at 0x18 is 0x1"),
    (elf([Part(1 << 32, CODE)], e_entry=1 << 32), "it goes to [0x100000000, 0x10000010c)"),
    (elf32([Part(0, CODE, 0x9FC00), Part(MIB, DATA, 7 * MIB)]), "boot information do not fit beside"),
]  # fmt: skip


@pytest.mark.parametrize(("image", "message"), REFUSED, ids=range(len(REFUSED)))
def test_an_image_that_cannot_be_loaded_is_refused(image: bytes, message: str) -> None:
    assert message in refused(image)


def test_memory_that_32_bit_code_does_not_reach_is_no_ram() -> None:
    regions = [Region(0, 8 * MIB), Region(4 * GIB, 8 * MIB)]
    message = refused(elf([Part(4 * GIB, CODE)], e_entry=4 * GIB + 12), regions)
    assert "it goes to [0x100000000, 0x10000010c); RAM is [0x0, 0x9fc00), [0x100000, 0x8" in message


def test_what_a_kernel_is_told_is_whole() -> None:
    assert refused(KERNEL, cmdline="a\0b").startswith("command line: byte 1 is zero")
    module = BootModule(b"", "\0")
    assert refused(KERNEL, modules=[module]).startswith("module 0's command line: byte 0 is zero")
    message = refused(KERNEL, cmdline=bytes(b"x" * (8 * MIB)))
    assert message.endswith("give the guest more memory")


def test_a_module_that_does_not_fit_is_refused() -> None:
    modules = [BootModule(b""), BootModule(bytes(6 * MIB))]
    message = refused(KERNEL, modules=modules)
    assert message.startswith("module 1: its 0x600000 bytes do not fit after 0x205000; RAM is ")
    assert message.endswith("give the guest 9 MiB of memory or more")
    with X86Memory(9 * MIB) as memory:
        load_multiboot(memory, KERNEL, modules=modules)


def test_a_module_is_given_with_its_text() -> None:
    with GuestMemory(8 * MIB) as memory, pytest.raises(TypeError) as error:
        load_multiboot(memory, KERNEL, modules=["initrd.img"])  # type: ignore[list-item]
    assert str(error.value) == "expected BootModule, got str"


def test_memory_that_a_kernel_cannot_write_is_no_ram() -> None:
    regions = [Region(0, MIB), Region(MIB, 2 * MIB, read_only=True)]
    assert "RAM is [0x0, 0x9fc00)" in refused(KERNEL, regions)


# Whatever is in an image

FLAT = header(ADDRESSES, MIB, MIB, MIB + 64, MIB + 0x2000, MIB + 32) + TEXT


def test_nothing_is_allocated_because_an_image_says_a_size() -> None:
    hostile = [
        elf32([Part(2 * MIB, CODE, 0xFFFFFFFF)]),
        elf32([Part(2 * MIB, CODE)], e_phnum=0xFFFE, e_phoff=0xFFFFFFFF),
        by_header(MIB, MIB, 0xFFFFFFFF, 0, MIB),
        by_header(MIB, MIB, 0, 0xFFFFFFFF, MIB),
    ]
    with GuestMemory(GIB) as memory:
        for image in hostile:
            tracemalloc.start()
            try:
                with pytest.raises(KernelImageError):
                    load_multiboot(memory, image)
                assert tracemalloc.get_traced_memory()[1] < 256 << 10
            finally:
                tracemalloc.stop()


EDGES = [0, 1, 2, 7, 0xFF, 0xFFFF, 0x8000, 0x9FC00, MIB, 2 * MIB, 8 * MIB, 1 << 31, 0xFFFFFFFF]
values = st.one_of(st.sampled_from(EDGES), st.integers(0, 0xFFFFFFFF))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """An image with a few fields overwritten, cut short or made longer."""
    image = bytearray(draw(st.sampled_from([KERNEL, FLAT])))
    start = image.find(header(struct.unpack_from("<I", image, image.index(header()[:4]) + 4)[0]))
    last = start + 32
    for _ in range(draw(st.integers(0, 4))):
        width = draw(st.sampled_from([1, 2, 4]))
        offset = draw(st.integers(0, last - width))
        image[offset : offset + width] = (draw(values) & (1 << 8 * width) - 1).to_bytes(
            width, "little"
        )
    flags = struct.unpack_from("<I", image, start + 4)[0]
    if draw(st.booleans()):  # so that the change is not refused at once
        image[start : start + 12] = header(flags & 0xFFFF0003)
    if draw(st.booleans()):
        image = image[: draw(st.integers(0, len(image)))]
    return bytes(image) + draw(st.binary(max_size=8))


texts = st.binary(max_size=600)
modules_given = st.lists(
    st.tuples(st.sampled_from([b"", b"m", bytes(PAGE + 1), bytes(5 * MIB)]), texts), max_size=3
)


@settings(deadline=None, max_examples=500)
@given(st.sampled_from(MACHINES), mutated(), texts, modules_given)
@example(MACHINES[0], KERNEL, b"quiet", [(b"module", b"its text")])
@example(MACHINES[0], FLAT, b"quiet", [(b"module", b"its text")])
def test_a_mutated_image_is_refused_or_loaded_as_announced(
    machine: Any, image: bytes, cmdline: bytes, modules: Sequence[tuple[bytes, bytes]]
) -> None:
    attempt(machine, image, cmdline, modules)


@given(st.sampled_from(MACHINES), st.binary(max_size=4096))
def test_rubbish_is_refused(machine: Any, image: bytes) -> None:
    assert attempt(machine, image) is None


def test_the_images_that_are_mutated_can_be_loaded() -> None:
    for image in (KERNEL, FLAT):
        for machine in MACHINES[:3]:
            assert attempt(machine, image, b"quiet", [(b"module", b"text")]) is not None
