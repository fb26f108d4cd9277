"""The zero page: what Linux is told of its kernel, its initrd and its memory."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import CODE, GIB, MIB, NOISE, PAGE, Recorded, bzimage, inside
from vmm_arch.abi.linux_x86_64 import CAN_USE_HEAP, LOADED_HIGH, boot_params
from vmm_arch.memory import GuestMemory, MemoryAccessError, Region
from vmm_arch.x86_64.linux.kernel import load_kernel
from vmm_arch.x86_64.linux.zero_page import write_zero_page
from vmm_arch.x86_64.platform.e820 import E820_ACPI, E820_RAM, E820_RESERVED, e820_map


def zero_page(
    kernel: bytes, memory: int | list[Region] = 8 * MIB, *, acpi_rsdp: int = 0, **options: Any
) -> boot_params:
    with Recorded(memory) as guest:
        linux = load_kernel(guest, kernel, **options)
        noise = NOISE * PAGE
        guest.write(0x7000, noise)
        guest.written.clear()
        write_zero_page(guest, linux, acpi_rsdp=acpi_rsdp)
        assert guest.written == [range(0x7000, 0x8000)]
        return boot_params.from_buffer_copy(guest.read(0x7000, PAGE))


def test_the_zero_page_has_the_images_setup_header() -> None:
    page = zero_page(bzimage(root_flags=1, root_dev=0x801, init_size=0x12345, min_alignment=21))
    header = page.hdr
    assert (header.boot_flag, header.header, header.version) == (0xAA55, 0x53726448, 0x020F)
    assert (header.root_flags, header.root_dev, header.init_size) == (1, 0x801, 0x12345)
    assert (header.kernel_alignment, header.min_alignment) == (2 * MIB, 21)


def test_the_header_ends_where_its_jump_leads() -> None:
    """What is behind is the image's code: Linux takes its sentinel for a boot loader's mistake."""
    image = bytearray(bzimage(kernel_info_offset=0x11223344))
    image[0x1EF] = image[0x1F0] = 0xFF
    image[0x26C:0x290] = b"\xff" * 0x24
    for end, info in ((0x26C, 0x11223344), (0x268, 0)):
        image[0x201] = end - 0x202
        page = zero_page(bytes(image))
        assert page.sentinel == 0
        assert page.hdr.kernel_info_offset == info
        assert bytes(page)[end:0x2D0] == bytes(0x2D0 - end)
    image[0x201] = 0x7F
    assert bytes(zero_page(bytes(image)))[0x26C:0x290] == b"\xff" * 0x15 + bytes(0xF)


def test_the_zero_page_says_what_a_boot_loader_has_to() -> None:
    hostile = {
        "type_of_loader": 0x12,
        "ext_loader_ver": 1,
        "ext_loader_type": 1,
        "loadflags": 0xFF,
        "ramdisk_image": 1,
        "ramdisk_size": 1,
        "setup_data": 1,
        "hardware_subarch": 2,
        "cmd_line_ptr": 1,
        "code32_start": 1,
    }
    page = zero_page(bzimage(CODE, b"", **hostile), cmdline="quiet")
    header = page.hdr
    assert (header.type_of_loader, header.ext_loader_type, header.ext_loader_ver) == (0xFF, 0, 0)
    assert header.loadflags == LOADED_HIGH | CAN_USE_HEAP
    assert header.heap_end_ptr == 0xFE00
    assert (header.cmd_line_ptr, page.ext_cmd_line_ptr) == (0x20000, 0)
    assert header.code32_start == 2 * MIB
    assert (header.ramdisk_image, header.ramdisk_size) == (0, 0)
    assert (page.ext_ramdisk_image, page.ext_ramdisk_size) == (0, 0)
    assert (header.setup_data, header.hardware_subarch) == (0, 0)
    assert page.acpi_rsdp_addr == 0


def test_the_zero_page_says_where_the_initrd_is() -> None:
    page = zero_page(bzimage(), initrd=bytes(5))
    assert (page.hdr.ramdisk_image, page.hdr.ramdisk_size) == (8 * MIB - PAGE, 5)
    assert (page.ext_ramdisk_image, page.ext_ramdisk_size) == (0, 0)


def test_the_zero_page_says_where_an_initrd_above_4_gib_is() -> None:
    page = zero_page(
        bzimage(), [Region(0, 4 * MIB), Region(5 * GIB, 8 * MIB)], initrd=bytes(5 * MIB)
    )
    assert (page.ext_ramdisk_image, page.hdr.ramdisk_image) == (1, GIB + 3 * MIB)
    assert (page.ext_ramdisk_size, page.hdr.ramdisk_size) == (0, 5 * MIB)


def test_the_size_of_an_initrd_has_64_bits() -> None:
    with GuestMemory(8 * MIB) as memory:
        linux = load_kernel(memory, bzimage())
        write_zero_page(memory, replace(linux, initrd=range(5 * GIB, 9 * GIB + 5)))
        page = boot_params.from_buffer_copy(memory.read(0x7000, PAGE))
    assert (page.ext_ramdisk_size, page.hdr.ramdisk_size) == (1, 5)


def test_the_zero_page_says_where_acpi_is() -> None:
    assert zero_page(bzimage(), acpi_rsdp=0xE0000).acpi_rsdp_addr == 0xE0000
    for wrong in (-1, 1 << 52):
        with pytest.raises(ValueError, match="give a guest-physical address, or 0"):
            zero_page(bzimage(), acpi_rsdp=wrong)


def test_the_zero_page_goes_where_rsi_says() -> None:
    with GuestMemory(8 * MIB) as memory:
        linux = replace(load_kernel(memory, bzimage()), rsi=0x10000)
        write_zero_page(memory, linux)
        assert memory.read(0x7000, PAGE) == bytes(PAGE)
        assert boot_params.from_buffer_copy(memory.read(0x10000, PAGE)).hdr.boot_flag == 0xAA55
        with pytest.raises(MemoryAccessError):
            write_zero_page(memory, replace(linux, rsi=8 * MIB))


# The e820 map

BELOW = (range(0x9FC00), E820_RAM)
EBDA = (range(0x9FC00, 0xA0000), E820_RESERVED)
TABLES = (range(0xE0000, 0xF0000), E820_ACPI)
BIOS = (range(0xF0000, 0x100000), E820_RESERVED)


@pytest.mark.parametrize(
    ("memory", "entries"),
    [
        (8 * MIB, [BELOW, EBDA, TABLES, BIOS, (range(MIB, 8 * MIB), E820_RAM)]),
        (0x80000, [(range(0x80000), E820_RAM), EBDA, BIOS]),
        ([Region(4 * GIB, MIB)], [EBDA, BIOS, (range(4 * GIB, 4 * GIB + MIB), E820_RAM)]),
        (
            [Region(0, MIB), Region(MIB, MIB), Region(4 * MIB, MIB), Region(5 * MIB, MIB, True)],
            [
                BELOW,
                EBDA,
                TABLES,
                BIOS,
                (range(MIB, 2 * MIB), E820_RAM),
                (range(4 * MIB, 5 * MIB), E820_RAM),
                (range(5 * MIB, 6 * MIB), E820_RESERVED),
            ],
        ),
        (
            [Region(0, 0xE0000), Region(0xE0000, 0x20000, True), Region(0xFFFF0000, 0x10000, True)],
            [
                BELOW,
                EBDA,
                (range(0xE0000, 0x100000), E820_RESERVED),
                (range(0xFFFF0000, 1 << 32), E820_RESERVED),
            ],
        ),
    ],
)
def test_the_e820_map(memory: int | list[Region], entries: list[tuple[range, int]]) -> None:
    with GuestMemory(memory) as guest:
        assert e820_map(guest) == entries


def test_the_zero_page_has_the_e820_map() -> None:
    page = zero_page(bzimage())
    assert [
        (range(entry.addr, entry.addr + entry.size), entry.type)
        for entry in page.e820_table[: page.e820_entries]
    ] == [BELOW, EBDA, TABLES, BIOS, (range(MIB, 8 * MIB), E820_RAM)]
    assert bytes(page)[0x2D0 + 5 * 20 :] == bytes(PAGE - 0x2D0 - 5 * 20)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 40), st.booleans()), min_size=1, max_size=8
    )
)
def test_the_e820_map_agrees_with_the_regions_page_by_page(
    parts: list[tuple[int, int, bool]],
) -> None:
    regions, address = [], 0
    for gap, pages, read_only in parts:
        regions.append(Region(address + gap * 8 * PAGE, pages * 8 * PAGE, read_only))
        address = regions[-1].end
    with GuestMemory(regions) as memory:
        entries = e820_map(memory)
    for (lower, _), (upper, _) in pairwise(entries):
        assert lower.stop <= upper.start
    for page in range(0, address + MIB, PAGE):
        kinds = {kind for addresses, kind in entries if inside(range(page, page + PAGE), addresses)}
        of = [region for region in regions if region.address <= page < region.end]
        if page == 0x9F000:  # in two pieces
            assert not kinds or of[0].read_only
        elif 0xF0000 <= page < MIB or any(region.read_only for region in of):
            assert kinds == {E820_RESERVED}
        elif of and 0xE0000 <= page < 0xF0000:
            assert kinds == {E820_ACPI}
        elif of and not 0xA0000 <= page < MIB:
            assert kinds == {E820_RAM}
        else:
            assert not kinds


def test_more_pieces_than_a_zero_page_lists_are_refused() -> None:
    low = Region(0, 8 * MIB)
    pieces = [Region(16 * MIB + 2 * PAGE * number, PAGE) for number in range(124)]
    with GuestMemory([low, *pieces[:123]]) as memory:
        write_zero_page(memory, load_kernel(memory, bzimage()))
    with GuestMemory([low, *pieces]) as memory:
        linux = load_kernel(memory, bzimage())
        with pytest.raises(
            ValueError, match="memory has 129 ranges, but the zero page lists at most 128"
        ):
            write_zero_page(memory, linux)
        assert memory.read(0x7000, PAGE) == bytes(PAGE)
