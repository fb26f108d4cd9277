"""What a guest reads of its processors: the parts of CPUID that a machine fills in."""

from __future__ import annotations

import pytest
from vmm_arch.x86_64.cpuid import CpuidEntry, enumerated, for_host, for_machine, for_vcpu
from vmm_arch.x86_64.topology import Topology

INTEL = CpuidEntry(0, None, 0x1F, 0x756E6547, 0x6C65746E, 0x49656E69)
AMD = CpuidEntry(0, None, 0x10, 0x68747541, 0x444D4163, 0x69746E65)
HOST = [
    CpuidEntry(1, None, ebx=0x05100800, ecx=0x40, edx=0x10000001),
    CpuidEntry(4, 0, eax=0xFC1FC121),  # a first-level cache of a host with many cores
    CpuidEntry(4, 3, eax=0xFC1FC163),  # its third level
    CpuidEntry(4, 4),
    CpuidEntry(0xB, 0, eax=1, ebx=2, ecx=0x100, edx=5),
    CpuidEntry(0x1F, 0, eax=1, ebx=2, ecx=0x100, edx=5),
    CpuidEntry(0x80000001, None, ecx=0x3),
    CpuidEntry(0x80000008, None, eax=0x3030, ecx=0x7001),
    CpuidEntry(0x8000001D, 3, eax=0x1C163),
    CpuidEntry(0x8000001E, None, eax=9, ebx=9, ecx=9),
]


def leaves(vendor: CpuidEntry, index: int, count: int) -> dict[tuple[int, int | None], CpuidEntry]:
    filled = for_vcpu([vendor, *HOST], Topology(cores=count), index)
    return {(entry.function, entry.index): entry for entry in filled}


@pytest.mark.parametrize("vendor", [INTEL, AMD], ids=["Intel", "AMD"])
@pytest.mark.parametrize("count", [1, 2, 4, 6, 255])
def test_every_leaf_tells_the_same_apic_id_and_count(vendor: CpuidEntry, count: int) -> None:
    index = count - 1
    cpuid = leaves(vendor, index, count)
    assert cpuid[1, None].ebx >> 24 == index
    assert cpuid[1, None].ebx & 0xFFFF == 0x0800  # what the host says stays
    assert cpuid[1, None].edx >> 28 & 1 == (count > 1)
    for leaf in (0xB, 0x1F):
        threads, cores, end = (cpuid[leaf, subleaf] for subleaf in range(3))
        assert {threads.edx, cores.edx, end.edx} == {index}
        assert (threads.eax, threads.ebx, threads.ecx) == (0, 1, 0x100)
        assert (cores.ebx, cores.ecx) == (count, 0x201)
        assert 1 << cores.eax >= count > (1 << cores.eax) // 2
        assert (end.eax, end.ebx, end.ecx) == (0, 0, 2)
    assert cpuid[0x80000008, None].ecx & 0xFF == count - 1
    assert cpuid[0x8000001E, None].eax == index


def test_caches_are_a_cores_own_but_for_the_third_level() -> None:
    cpuid = leaves(INTEL, 0, 4)
    assert [cpuid[4, i].eax >> 14 & 0xFFF for i in (0, 3)] == [0, 3]
    assert cpuid[4, 3].eax >> 26 == 3
    assert cpuid[4, 4].eax == 0  # the end of the list
    assert cpuid[0x8000001D, 3].eax >> 14 & 0xFFF == 3


def test_only_amd_says_that_its_logical_processors_are_cores() -> None:
    assert leaves(AMD, 0, 2)[0x80000001, None].ecx == 0x3
    assert leaves(AMD, 0, 1)[0x80000001, None].ecx == 0x1
    assert leaves(INTEL, 0, 1)[0x80000001, None].ecx == 0x3


def test_leaves_that_a_host_does_not_have_stay_away() -> None:
    assert for_vcpu([INTEL], Topology(cores=4), 0) == [INTEL]


@pytest.mark.parametrize("deadline", [False, True])
@pytest.mark.parametrize("before", [0x40, 0x1000040])
def test_a_host_says_that_it_is_one_and_whether_it_has_the_timer(
    before: int, deadline: bool
) -> None:
    (entry,) = for_host([CpuidEntry(1, None, ecx=before)], deadline=deadline)
    assert entry.ecx == 1 << 31 | deadline << 24 | 0x40


def test_a_machine_without_an_irqchip_has_no_timer() -> None:
    given = CpuidEntry(1, None, ecx=0x1000040)
    assert for_machine([given], irqchip=True) == [given]
    assert for_machine([given], irqchip=False) == [CpuidEntry(1, None, ecx=0x40)]


def test_all_leaves_and_subleaves_are_asked_for() -> None:
    has = {
        (0, 0): (0xD, 1, 2, 3),
        (4, 0): (1, 0, 0, 0),
        (4, 3): (4, 0, 0, 0),
        (0xD, 0): (7, 8, 9, 0),
        (0xD, 62): (0, 0, 1, 0),
        (0x80000000, 0): (0x80000001, 0, 0, 0),
        (0x80000001, 0): (0, 0, 5, 6),
    }
    found = list(enumerated(lambda function, index: has.get((function, index), (0, 0, 0, 0))))
    said = {(e.function, e.index or 0): (e.eax, e.ebx, e.ecx, e.edx) for e in found}
    assert {place: answer for place, answer in said.items() if any(answer)} == has
    assert [e.function for e in found if e.index is None] == [
        *(n for n in range(0xD) if n not in (4, 7, 0xB)),
        *(0x80000000, 0x80000001),
    ]
    assert [e.index for e in found if e.function == 0xD] == [0, 62]


def test_a_register_has_32_bits() -> None:
    with pytest.raises(ValueError, match="CPUID 0x1: eax=0x100000000 is not an unsigned 32-bit"):
        CpuidEntry(1, None, eax=1 << 32)
