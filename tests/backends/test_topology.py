"""Topologies of machines, on every backend."""

from __future__ import annotations

from pathlib import Path

import pytest
from vmm_arch.selftest.x86_64.harness import AnyBackend, AnyVcpu
from vmm_arch.x86_64.entry import Protected32, RealMode
from vmm_arch.x86_64.exits import IoOut
from vmm_arch.x86_64.platform.memory_map import GuestMemory
from vmm_arch.x86_64.topology import Topology, TopologyError

# Says what leaf 1 says in EBX, and then the APIC's own id.
TELLS = bytes.fromhex(
    "b8 01 00 00 00 0f a2"  # mov eax, 1; cpuid
    "89 d8 e7 10"  # mov eax, ebx; out 0x10, eax
    "a1 20 00 e0 fe e7 10"  # mov eax, [0xfee00020]; out 0x10, eax
)
GAPS = Topology(sockets=2, cores=3)


def told(vcpu: AnyVcpu) -> int:
    exit = vcpu.run()
    assert isinstance(exit, IoOut)
    return exit.value


def test_each_vcpu_has_its_id(arch: AnyBackend) -> None:
    entry = Protected32(0x10000)
    with GuestMemory(0x100000) as memory, arch.Vm(memory, topology=GAPS, irqchip=True) as vm:
        assert vm.topology == GAPS
        assert [vcpu.index for vcpu in vm.vcpus] == list(range(6))
        assert [vcpu.apic_id for vcpu in vm.vcpus] == [0, 1, 2, 4, 5, 6]
        memory.write(0x10000, TELLS)
        arch.configure_system(vm, entry)
        for vcpu in vm.vcpus:
            arch.configure_vcpu(vcpu, entry)
            lapic = vcpu.get_lapic()
            assert lapic[0x20] >> 24 == vcpu.apic_id
            (leaf,) = (one for one in vcpu.cpuid if one.function == 1)
            assert leaf.ebx >> 24 == vcpu.apic_id
        assert told(vm.vcpus[0]) >> 24 == 0
        assert told(vm.vcpus[0]) >> 24 == 0


def test_a_reset_keeps_the_id(arch: AnyBackend) -> None:
    with GuestMemory(0x100000) as memory, arch.Vm(memory, topology=GAPS, irqchip=True) as vm:
        for vcpu in vm.vcpus:
            arch.configure_vcpu(vcpu, RealMode(0x1000))
        last = vm.vcpus[-1]
        arch.reset_vcpu(last, RealMode(0x1000))
        assert last.get_lapic()[0x20] >> 24 == 6


def test_a_snapshot_knows_the_topology(arch: AnyBackend, tmp_path: Path) -> None:
    with GuestMemory(0x10000) as memory, arch.Vm(memory, topology=GAPS) as vm:
        for vcpu in vm.vcpus:
            arch.configure_vcpu(vcpu, RealMode(0x1000))
        taken = vm.take_snapshot()
    with taken:
        taken.save(tmp_path / "snapshot")
    with arch.Snapshot.load(tmp_path / "snapshot") as snapshot, snapshot.fork() as vm:
        assert vm.topology == GAPS
        assert vm.vcpus[-1].apic_id == 6


def test_a_machine_and_its_topology_must_agree(arch: AnyBackend) -> None:
    with GuestMemory(0x10000) as memory:
        with pytest.raises(TopologyError, match="has 6 vCPUs, and 4 are asked for"):
            arch.Vm(memory, vcpus=4, topology=GAPS)
        with arch.Vm(memory, vcpus=6, topology=GAPS) as vm:
            assert len(vm.vcpus) == 6
