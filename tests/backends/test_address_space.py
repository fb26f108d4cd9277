"""Guest-virtual memory: through random page tables of every mode, compared with the hypervisor's translation."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmm_arch.errors import HypervisorError
from vmm_arch.memory import MemoryAccessError
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.x86_64.address_space import AddressSpace
from vmm_arch.x86_64.entry import Long64, Protected32
from vmm_arch.x86_64.features import cpuid_features
from vmm_arch.x86_64.paging import mappings
from vmm_arch.x86_64.platform.memory_map import GuestMemory

MEMORY = 4 << 20
TABLES = range(0x10_0000, 0x10_F000, 0x1000)
PAGES = range(0x20_0000, 0x21_0000, 0x1000)
ABSENT = 0xF000_0000
"""A guest-physical address without memory."""

CR0_PG, CR0_PE = 1 << 31, 1
CR4_PSE, CR4_PAE, CR4_LA57 = 1 << 4, 1 << 5, 1 << 12
EFER_LME_LMA = 1 << 8 | 1 << 10


class Mode(NamedTuple):
    """A kind of paging: the shifts of its levels, and which of them may have large pages."""

    cr4: int
    shifts: tuple[int, ...]
    large: tuple[int, ...] = ()
    long: bool = False


MODES = {
    "none": Mode(0, ()),
    "32-bit": Mode(0, (22, 12)),
    "32-bit with large pages": Mode(CR4_PSE, (22, 12), (22,)),
    "PAE": Mode(CR4_PAE, (30, 21, 12), (21,)),
    "four levels": Mode(CR4_PAE, (39, 30, 21, 12), (30, 21), long=True),
    "five levels": Mode(CR4_PAE | CR4_LA57, (48, 39, 30, 21, 12), (30, 21), long=True),
}


def tables(level: int) -> range:
    """The addresses of the three tables that there are of a level."""
    start = TABLES.start + level * 0x3000
    return range(start, start + 0x3000, 0x1000)


def write_tables(memory: GuestMemory, mode: Mode, chance: random.Random) -> None:
    """Fill every table with a few entries at low indices, in the middle and at the end."""
    size = 4 if mode.shifts[0] == 22 else 8
    count = 0x1000 // size
    for level in range(len(mode.shifts)):
        for table in tables(level):
            memory.write(table, bytes(0x1000))
            for index in (0, 1, 2, 3, count // 2, count - 1):
                value = entry(mode, level, chance)
                memory.write(table + index * size, value.to_bytes(size, "little"))


def entry(mode: Mode, level: int, chance: random.Random) -> int:
    """An entry that is valid at a level: of a table or page, a large page, or none."""
    shift = mode.shifts[level]
    flags = 1 | chance.choice([0, 2, 4, 6]) | chance.choice([0, 0x20])
    if shift == 30 and level == 0:
        flags = 1  # those of PAE's first table have no others
    lower: Sequence[int] = tables(level + 1) if shift > 12 else [*PAGES, ABSENT]
    match chance.randrange(6):
        case 0:
            return 0
        case 1:
            return chance.choice(lower) | flags & ~1
        case 2 if shift in mode.large:
            return chance.choice([0, 1, 5]) << shift | flags | 0x80
        case _:
            return chance.choice(lower) | flags


def addresses(mode: Mode, chance: random.Random) -> Iterator[int]:
    for _ in range(40):
        address = chance.randrange(0x1000)
        for shift in mode.shifts:
            bits = {22: 10, 12: 10 if 22 in mode.shifts else 9}.get(shift, 9)
            if mode.shifts[0] == shift == 30:
                bits = 2
            last = (1 << bits) - 1
            address |= min(chance.choice([0, 1, 2, 3, (last + 1) // 2, last]), last) << shift
        top = mode.shifts[0] + 9 if mode.shifts else 0
        if mode.long and address >> top - 1:
            address |= (1 << 64) - (1 << top)
        yield address


@pytest.fixture
def vm(arch: AnyBackend) -> Iterator[Any]:
    with arch.GuestMemory(MEMORY) as memory, arch.Vm(memory) as vm:
        yield vm


def enter(arch: AnyBackend, vm: Any, mode: Mode) -> Any:
    """Put the vCPU into a mode, with the first table."""
    entry = Long64(0x1000, rsp=0x8000) if mode.long else Protected32(0x1000)
    arch.configure_system(vm, entry)
    vcpu = vm.vcpus[0]
    arch.reset_vcpu(vcpu, entry)
    sregs = vcpu.get_sregs()
    sregs.cr4 = sregs.cr4 & ~(CR4_PSE | CR4_PAE) | mode.cr4
    if mode.shifts:
        sregs.cr0 |= CR0_PG | CR0_PE
        sregs.cr3 = TABLES[0]
    vcpu.set_sregs(sregs)
    return vcpu


@pytest.mark.parametrize("name", MODES)
def test_random_tables_lead_where_the_hypervisor_says(arch: AnyBackend, vm: Any, name: str) -> None:
    mode = MODES[name]
    if "pdpe1gb" not in cpuid_features(arch.supported_cpuid()):
        mode = mode._replace(large=tuple(shift for shift in mode.large if shift != 30))

    @given(st.integers(0, 2**32))
    def compare(seed: int) -> None:
        chance = random.Random(seed)
        if mode.shifts:
            write_tables(vm.memory, mode, chance)
        try:
            vcpu = enter(arch, vm, mode)
        except HypervisorError:
            assert mode.cr4 & CR4_LA57, "only five levels are not everywhere"
            return
        space = AddressSpace.of(vcpu)
        for address in addresses(mode, chance):
            physical = space.translate(address)
            assert vcpu.translate(address) == physical, f"{address:#x}: {space.walk(address)}"
            expected = bytes(
                b"".join(byte(vm.memory, space.translate(address + at)) for at in range(3))
            )
            assert space.read_mapped(address, 3) == expected
        if mode.shifts:
            compare_mappings(vm.memory, vcpu.get_sregs(), space, chance)

    compare()


def compare_mappings(
    memory: GuestMemory, sregs: Any, space: AddressSpace, chance: random.Random
) -> None:
    """All that is mapped, in runs that are as long as they can be, and nothing else."""
    end = 0
    for linear, physical, size in mappings(memory, sregs):
        assert linear >= end
        for at in (0, size - 1, chance.randrange(size)):
            assert space.translate(linear + at) == physical + at
        before = space.translate(linear - 1) if linear else None
        assert before is None or before + 1 != physical
        assert linear == end or space.translate(linear - 1) is None
        end = linear + size


def byte(memory: GuestMemory, physical: int | None) -> bytes:
    try:
        return b"" if physical is None else memory.read(physical, 1)
    except MemoryAccessError:
        return b""


# What is mapped where, by hand


@pytest.fixture
def space() -> Iterator[AddressSpace]:
    """Pages 0 and 1 swapped, page 2 not mapped, page 3 read-only, page 4 without memory."""
    with GuestMemory(0x10000) as memory:
        directory, table = 0x1000, 0x2000
        memory.write(directory, (table | 1).to_bytes(4, "little"))
        for index, value in enumerate([0x6003, 0x5003, 0, 0x7001, ABSENT | 3]):
            memory.write(table + 4 * index, value.to_bytes(4, "little"))
        yield AddressSpace(
            memory, SimpleNamespace(cr0=CR0_PG | CR0_PE, cr3=directory, cr4=0, efer=0)
        )


def test_accesses_span_pages(space: AddressSpace) -> None:
    space.write(0xFFE, memoryview(b"abcd"))
    assert (space.memory.read(0x6FFE, 2), space.memory.read(0x5000, 2)) == (b"ab", b"cd")
    assert space.read(0xFFE, 4) == b"abcd"
    space.write(0x3000, b"read-only is no matter")
    assert space.read(0x3000, 4) == b"read"
    assert space.read(0x2000, 0) == b""


def test_nothing_is_written_if_any_byte_is_not_mapped(space: AddressSpace) -> None:
    said = (
        r"guest-virtual \[0x1ffe, 0x2002\): guest-virtual \[0x2000, 0x2002\) is not mapped:"
        r" PT\[2\] at 0x2008: 0000000000000000"
    )
    with pytest.raises(MemoryAccessError, match=said):
        space.write(0x1FFE, b"abcd")
    with pytest.raises(MemoryAccessError, match=said):
        space.read(0x1FFE, 4)
    assert space.memory.read(0x5FFE, 2) == b"\0\0"
    assert space.read_mapped(0x1FFE, 4) == b"\0\0"
    with pytest.raises(MemoryAccessError, match="mapped to physical 0xf0000000, where there is no"):
        space.write(0x3FFF, b"ab")
    assert space.memory.read(0x7FFF, 1) == b"\0"


def test_addresses_that_there_are_not(space: AddressSpace) -> None:
    with pytest.raises(ValueError, match="access to -1 bytes"):
        space.read(0, -1)
    with pytest.raises(MemoryAccessError, match="is not within 64 bits"):
        space.read((1 << 64) - 1, 2)
    with pytest.raises(MemoryAccessError, match=r"is not mapped$"):  # 33 bits, in a mode of 32
        space.read(1 << 32, 1)
    assert space.read_mapped((1 << 64) - 1, 2) == b""
