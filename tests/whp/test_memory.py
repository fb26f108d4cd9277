"""Guest-physical memory: mappings, their pages that were written, and translation."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
from vmm_arch.abi import whp_x86_64 as abi

from whp.library import RWX, Partition, call, identity_tables, long_mode

TABLES = 0xA000
CODE = 0x1000
HALT = abi.WHvRunVpExitReasonX64Halt
SUCCESS, NOT_PRESENT, VIOLATION, UNMAPPED, NOT_WRITABLE = 0, 1, 2, 4, 6


@pytest.fixture
def partition() -> Iterator[Partition]:
    """64-bit code at CODE, page tables at TABLES that map everything to itself."""
    with Partition() as partition:
        identity_tables(partition.map(0, 0x10000), TABLES)
        yield partition


def run(partition: Partition, code: str, **registers: int) -> int:
    partition.kept[0][CODE] = bytes.fromhex(code) + b"\xf4"
    partition.set_registers(long_mode(CODE, TABLES, **registers))
    return int(partition.run().ExitReason)


def test_a_mapping_replaces_what_was_there(partition: Partition) -> None:
    first = partition.map(0x100000, 0x4000)
    second = partition.map(0x101000, 0x1000)
    code = "c6 07 01 c6 87 00 10 00 00 02 c6 87 00 20 00 00 03"  # mov byte [rdi + n * 0x1000], …
    assert run(partition, code, Rdi=0x100000) == HALT
    assert (first[0:1], second[0:1], first[0x2000:0x2001]) == (b"\1", b"\2", b"\3")
    assert first[0x1000:0x1001] == b"\0"


def test_part_of_a_mapping_is_unmapped(partition: Partition) -> None:
    memory = partition.map(0x100000, 0x3000)
    memory[0x2000] = b"\x2a"
    call("WHvUnmapGpaRange", partition.handle, 0x101000, 0x1000)
    load = "8a 07"  # mov al, [rdi]
    assert run(partition, load, Rdi=0x100000) == HALT
    assert run(partition, load, Rdi=0x101000) == abi.WHvRunVpExitReasonMemoryAccess
    assert run(partition, load, Rdi=0x102000) == HALT
    assert partition.register(abi.WHvX64RegisterRax) & 0xFF == 0x2A


# Pages that were written


def dirty(partition: Partition, address: int, pages: int) -> list[int]:
    """Which pages were written since this was asked last."""
    bitmap = (ctypes.c_uint64 * ((pages + 63) // 64))()
    size = ctypes.sizeof(bitmap)
    arguments = partition.handle, address, pages * 0x1000, bitmap, size
    call("WHvQueryGpaRangeDirtyBitmap", *arguments)
    return [page for page in range(pages) if bitmap[page // 64] >> page % 64 & 1]


def write_pages(partition: Partition, *addresses: int) -> None:
    for address in addresses:
        assert run(partition, "c6 07 01", Rdi=address) == HALT  # mov byte [rdi], 1


def test_written_pages_are_told_once(partition: Partition) -> None:
    partition.map(0x100000, 100 * 0x1000, RWX | abi.WHvMapGpaRangeFlagTrackDirtyPages)
    dirty(partition, 0x100000, 100)
    write_pages(partition, 0x101000, 0x163000)
    assert dirty(partition, 0x100000, 50) == [1]
    assert dirty(partition, 0x100000, 100) == [99]
    assert dirty(partition, 0x100000, 100) == []
    write_pages(partition, 0x101000)
    assert dirty(partition, 0x101000, 1) == [0]


def test_dirty_pages_are_only_cleared_without_a_bitmap(partition: Partition) -> None:
    partition.map(0x100000, 0x4000, RWX | abi.WHvMapGpaRangeFlagTrackDirtyPages)
    write_pages(partition, 0x101000, 0x102000)
    call("WHvQueryGpaRangeDirtyBitmap", partition.handle, 0x101000, 0x1000, None, 0)
    assert dirty(partition, 0x101000, 2) == [1]


def test_pages_stay_dirty_when_the_mapping_is_cut(partition: Partition) -> None:
    partition.map(0x100000, 0x4000, RWX | abi.WHvMapGpaRangeFlagTrackDirtyPages)
    dirty(partition, 0x100000, 4)
    write_pages(partition, 0x100000, 0x103000)
    call("WHvUnmapGpaRange", partition.handle, 0x101000, 0x1000)
    assert dirty(partition, 0x100000, 1) == [0]
    assert dirty(partition, 0x102000, 2) == [1]


# Translation


def translate(partition: Partition, address: int, flags: int = 0) -> tuple[int, int]:
    """The result, and the page that the address is in."""
    result, found = abi.WHV_TRANSLATE_GVA_RESULT(), ctypes.c_uint64()
    arguments = partition.handle, 0, address, flags, ctypes.byref(result), ctypes.byref(found)
    call("WHvTranslateGva", *arguments)
    return result.ResultCode, found.value


READ, WRITE = abi.WHvTranslateGvaFlagValidateRead, abi.WHvTranslateGvaFlagValidateWrite
EXECUTE, SET_BITS = abi.WHvTranslateGvaFlagValidateExecute, abi.WHvTranslateGvaFlagSetPageTableBits


def test_translation_without_paging(partition: Partition) -> None:
    assert translate(partition, 0x5123) == (SUCCESS, 0x5000)
    assert translate(partition, 0x100123)[0] == UNMAPPED


def test_translation_through_four_levels(partition: Partition) -> None:
    memory = partition.kept[0]
    for address, entry in [(0x6000, 0x7007), (0x7000, 0x8007), (0x8000, 0x9007)]:
        memory[address] = entry.to_bytes(8, "little")
    entries = [0xA067, 0xB065, 1 << 63 | 0xC063, 0, 0x200067]
    for index, entry in enumerate(entries):  # user; not writable; no execution; nothing; beyond
        memory[0x9000 + 8 * index] = entry.to_bytes(8, "little")
    registers = long_mode(CODE, 0x6000)
    registers[abi.WHvX64RegisterEfer] = 0xD00
    registers[abi.WHvX64RegisterCr0] = 0x80010011  # WP
    partition.set_registers(registers)
    assert translate(partition, 0x123, READ | WRITE | EXECUTE) == (SUCCESS, 0xA000)
    assert translate(partition, 0x1000, READ) == (SUCCESS, 0xB000)
    assert translate(partition, 0x1000, WRITE)[0] == VIOLATION
    assert translate(partition, 0x2000, EXECUTE)[0] == VIOLATION
    assert translate(partition, 0x3000)[0] == NOT_PRESENT
    assert translate(partition, 1 << 40)[0] == NOT_PRESENT
    assert translate(partition, 0x4000) == (UNMAPPED, 0x200000)
    data = registers[abi.WHvX64RegisterSs]
    data.Segment.Attributes = 0xC0F3  # now with the rights of a user
    partition.set_registers({abi.WHvX64RegisterSs: data})
    assert translate(partition, 0x2000, READ)[0] == VIOLATION
    assert translate(partition, 0x2000, READ | abi.WHvTranslateGvaFlagPrivilegeExempt)[0] == SUCCESS


def test_translation_sets_the_bits_of_the_tables(partition: Partition) -> None:
    memory = partition.kept[0]
    partition.set_registers(long_mode(CODE, TABLES))
    assert translate(partition, 0x5000, WRITE)[0] == SUCCESS
    assert memory[TABLES : TABLES + 1] == b"\x03"
    translate(partition, 0x5000, WRITE | SET_BITS)
    assert memory[TABLES : TABLES + 1] == b"\x23"
    assert memory[TABLES + 0x2000 : TABLES + 0x2001] == b"\xe3"


def test_translation_to_what_cannot_be_written(partition: Partition) -> None:
    partition.map(0x100000, 0x1000, abi.WHvMapGpaRangeFlagRead)
    partition.set_registers(long_mode(CODE, TABLES))
    assert translate(partition, 0x100000, READ) == (SUCCESS, 0x100000)
    assert translate(partition, 0x100000, WRITE)[0] == NOT_WRITABLE
