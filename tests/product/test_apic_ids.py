"""Topologies: APIC ids, and what CPUID and the tables say of them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from acpi_tables import disassembled, tables_at
from hypothesis import given
from hypothesis import strategies as st
from test_cpuid import AMD, HOST, INTEL
from vmm_arch.memory import GuestMemory
from vmm_arch.x86_64.cpuid import CpuidEntry, for_vcpu
from vmm_arch.x86_64.platform.acpi import write_acpi
from vmm_arch.x86_64.topology import Topology, TopologyError, machine_topology

COUNT = st.integers(1, 6)
TOPOLOGIES = st.builds(Topology, COUNT, COUNT, COUNT, COUNT)
AMD_LEVELS = CpuidEntry(0x80000026, 0, eax=1)


def test_the_ids_of_powers_of_two_have_no_gaps() -> None:
    topology = Topology(sockets=2, dies=2, cores=4, threads=2)
    assert topology.apic_ids == list(range(32))


def test_other_counts_leave_ids_out() -> None:
    topology = Topology(sockets=2, cores=3, threads=2)
    assert topology.apic_ids == [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]
    assert str(topology) == "sockets=2,dies=1,cores=3,threads=2"


@given(TOPOLOGIES)
def test_ids_are_distinct_and_in_order(topology: Topology) -> None:
    ids = topology.apic_ids
    assert len(ids) == topology.vcpus
    assert ids == sorted(set(ids))
    assert len({n >> topology.core_shift for n in ids}) == topology.vcpus // topology.threads
    assert len({n >> topology.die_shift for n in ids}) == topology.sockets * topology.dies
    assert len({n >> topology.socket_shift for n in ids}) == topology.sockets


@pytest.mark.parametrize("vendor", [INTEL, AMD], ids=["Intel", "AMD"])
@given(topology=TOPOLOGIES, data=st.data())
def test_a_guest_finds_its_place(vendor: CpuidEntry, topology: Topology, data: Any) -> None:
    """As Linux does: by shifting the APIC id as each level says."""
    index = data.draw(st.integers(0, topology.vcpus - 1))
    entries = for_vcpu([vendor, *HOST, AMD_LEVELS], topology, index)
    found = {(entry.function, entry.index): entry for entry in entries}
    thread, core = index % topology.threads, index // topology.threads
    die = core // topology.cores
    socket = index // topology.vcpus_per_socket
    assert found[1, None].ebx >> 24 == topology.apic_id(index) & 0xFF
    per_level = {
        0xB: {1: topology.threads, 2: topology.vcpus_per_socket},
        0x1F: {1: topology.threads, 2: topology.vcpus_per_socket},
        0x80000026: {
            1: topology.threads,
            3: topology.cores * topology.threads,
            4: topology.vcpus_per_socket,
        },
    }
    if topology.dies > 1:
        per_level[0x1F] |= {2: topology.cores * topology.threads, 5: topology.vcpus_per_socket}
    for leaf, counts in per_level.items():
        shift, place, levels = 0, [], {}
        number = 0
        while (level := found[leaf, number]).ebx:
            apic_id = level.edx
            assert apic_id == topology.apic_id(index)
            assert level.ecx & 0xFF == number
            levels[level.ecx >> 8] = level.ebx
            place.append((apic_id & (1 << level.eax) - 1) >> shift)
            shift = level.eax
            number += 1
        assert found[leaf, number] == CpuidEntry(leaf, number, ecx=number, edx=apic_id)
        assert levels == counts
        assert apic_id >> shift == socket
        assert place[0] == thread
        if len(counts) == 3:
            assert place[1:] == [core % topology.cores, die % topology.dies]
    extended = found[0x8000001E, None]
    assert extended.ebx >> 8 == topology.threads - 1
    in_socket = topology.apic_id(index % topology.vcpus_per_socket)
    assert extended.ebx & 0xFF == in_socket >> topology.core_shift
    assert extended.ecx == topology.dies - 1 << 8 | die
    assert found[0x80000008, None].ecx >> 12 == topology.socket_shift


def test_a_core_shares_its_caches_and_a_die_the_third_level() -> None:
    entries = for_vcpu([INTEL, *HOST], Topology(sockets=2, dies=2, cores=4, threads=2), 0)
    found = {(entry.function, entry.index): entry for entry in entries}
    assert [found[4, i].eax >> 14 & 0xFFF for i in (0, 3)] == [1, 7]
    assert found[4, 3].eax >> 26 == 7  # cores of a socket


def test_dies_of_intels_need_a_leaf_that_the_host_may_lack() -> None:
    host = [CpuidEntry(0, None, 0xD, INTEL.ebx, INTEL.ecx, INTEL.edx), CpuidEntry(0xB, 0)]
    without = for_vcpu(host, Topology(cores=4), 0)
    assert [entry.function for entry in without] == [0, 0xB, 0xB, 0xB]
    entries = for_vcpu(host, Topology(dies=2, cores=2), 0)
    assert entries[0].eax == 0x1F
    assert [entry.function for entry in entries].count(0x1F) == 4


def test_what_cannot_be_is_listed() -> None:
    wrong: Any = {"sockets": 0, "cores": "2", "threads": -1}
    with pytest.raises(TopologyError) as raised:
        Topology(**wrong)
    assert raised.value.problems == (
        "sockets=0: expected a number from 1 on",
        "cores='2': expected a number from 1 on",
        "threads=-1: expected a number from 1 on",
    )
    with pytest.raises(TopologyError, match="131072 vCPUs; give 65536 at most"):
        Topology(sockets=1 << 17)


def test_topology_and_number_must_agree() -> None:
    topology = Topology(sockets=2, cores=2)
    assert machine_topology(topology, 1) == machine_topology(topology, 4) == topology
    assert machine_topology(None, 3) == Topology(cores=3)
    with pytest.raises(TopologyError, match="has 4 vCPUs, and 3 are asked for"):
        machine_topology(topology, 3)
    with pytest.raises(ValueError, match="vcpus=0"):
        machine_topology(None, 0)
    with pytest.raises(TopologyError, match="has APIC ids to 258; 254 is the last one"):
        machine_topology(Topology(sockets=65, cores=3), 1)
    wrong: Any = 4
    with pytest.raises(TypeError, match="expected Topology, got int"):
        machine_topology(wrong, 1)


def test_the_tables_have_every_processor(tmp_path: Path) -> None:
    """Those whose ids no eight bits have as x2APICs (ACPI 6.5, 5.2.12.12)."""
    topology = Topology(sockets=3, cores=100)
    with GuestMemory(0x100000) as memory:
        madt = tables_at(memory, write_acpi(memory, topology))["APIC"]
    found: dict[int, list[int]] = {0: [], 9: []}
    at = 44
    while at < len(madt):
        kind, size = madt[at], madt[at + 1]
        if kind == 0:
            found[0].append(madt[at + 3])
        elif kind == 9:
            found[9] += struct.unpack_from("<I", madt, at + 4)
        at += size
    ids = topology.apic_ids
    assert found == {0: [n for n in ids if n < 255], 9: [n for n in ids if n >= 255]}
    text = disassembled(madt, tmp_path)
    assert "[Processor Local x2APIC]" in text
    assert "[Local x2APIC NMI]" in text
