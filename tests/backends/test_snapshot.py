"""Snapshots of machines: what is in them, and machines that go on from there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from vmm_arch.errors import ClosedError, HypervisorError, StateError, UnansweredError
from vmm_arch.memory import Region
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.snapshot.snapshot import MachineSnapshot
from vmm_arch.x86_64.entry import RealMode
from vmm_arch.x86_64.exits import IoIn, IoOut

# inc ax; mov [0x8000], ax; out 0x10, ax; jmp -9
COUNTS = bytes.fromhex("40 a3 00 80 e7 10 eb f8")
REGIONS = [Region(0, 0x10000), Region(0x10_0000, 0x1000, read_only=True), Region(0x20_0000, 0x4000)]


@contextmanager
def counting(arch: AnyBackend, **options: Any) -> Iterator[Any]:
    with arch.GuestMemory(REGIONS) as memory, arch.Vm(memory, **options) as vm:
        memory.write(0x1000, COUNTS)
        memory.write(0x10_0000, b"read-only")
        memory.write(0x20_3FFF, b"\x5a")
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        yield vm


def count(vm: Any) -> int:
    exit = vm.vcpus[0].run()
    assert isinstance(exit, IoOut)
    return exit.value


@pytest.fixture
def snapshot(arch: AnyBackend) -> Iterator[MachineSnapshot]:
    with counting(arch) as vm:
        assert [count(vm), count(vm)] == [1, 2]
        taken = vm.take_snapshot(devices={"serial": [1, 2]})
        assert count(vm) == 3
    with taken:
        yield taken


def test_a_machine_goes_on_from_a_snapshot_again_and_again(
    arch: AnyBackend, snapshot: MachineSnapshot
) -> None:
    for _ in range(3):
        with snapshot.fork() as vm:
            assert vm.save() == snapshot.state
            assert vm.memory.regions == tuple(REGIONS)
            assert vm.memory.read(0x8000, 2) == b"\2\0"
            assert vm.memory.read(0x10_0000, 9) == b"read-only"
            assert vm.memory.read(0x20_3FFF, 1) == b"\x5a"
            assert [count(vm), count(vm)] == [3, 4]
        assert vm.memory.closed


def test_machines_of_one_snapshot_do_not_see_each_other(
    arch: AnyBackend, snapshot: MachineSnapshot
) -> None:
    if arch.MACHINES_PER_PROCESS == 1:
        with snapshot.fork(), pytest.raises(HypervisorError):
            snapshot.fork()
        return
    with snapshot.fork() as one, snapshot.fork() as other:
        assert [count(one), count(one), count(other)] == [3, 4, 3]
        one.memory.write(0x5000, b"one")
        assert other.memory.read(0x5000, 3) == bytes(3)
        other.memory.write(0x20_0000, b"other")
        assert one.memory.read(0x20_0000, 5) == bytes(5)


def test_what_a_snapshot_is_made_of(snapshot: MachineSnapshot) -> None:
    made = snapshot.configuration
    assert (made.regions, made.vcpus, made.irqchip) == (tuple(REGIONS), 1, False)
    assert snapshot.devices == {"serial": [1, 2]}
    assert snapshot.state.vcpus[0]["rax"] == 2
    assert "0x15000 bytes of memory, 1 vCPUs" in repr(snapshot)


def test_a_machine_with_an_irqchip_and_two_vcpus(arch: AnyBackend) -> None:
    with counting(arch, irqchip=True, vcpus=2) as vm:
        assert count(vm) == 1
        taken = vm.take_snapshot()
    with taken, taken.fork() as vm:
        assert (len(vm.vcpus), vm.irqchip) == (2, True)
        assert vm.save() == taken.state
        assert count(vm) == 2


def test_memory_of_a_closed_snapshot_stays_with_its_machines(snapshot: MachineSnapshot) -> None:
    with snapshot.fork() as vm:
        snapshot.close()
        snapshot.close()
        assert count(vm) == 3
    with pytest.raises(ClosedError, match="the snapshot is closed"):
        snapshot.fork()
    assert "closed" in repr(snapshot)


def test_an_exit_that_waits_is_answered_before(arch: AnyBackend) -> None:
    with counting(arch) as vm:
        vm.memory.write(0x1000, bytes.fromhex("e4 20"))  # in al, 0x20
        waits = vm.vcpus[0].run()
        assert isinstance(waits, IoIn)
        with pytest.raises(UnansweredError):
            vm.take_snapshot()
        waits.complete(1)
        with vm.take_snapshot() as taken:
            assert taken.state.vcpus[0]["rax"] & 0xFF == 1


def test_nothing_is_left_where_a_state_cannot_be_restored(
    arch: AnyBackend, snapshot: MachineSnapshot
) -> None:
    before = os.listdir("/proc/self/fd")
    wrong = type(snapshot)(
        snapshot.configuration, type(snapshot.state)({}, ()), snapshot.memory, {}
    )
    with pytest.raises((StateError, KeyError)):
        wrong.fork()
    assert len(os.listdir("/proc/self/fd")) == len(before)
    with snapshot.fork() as vm:
        assert count(vm) == 3


def test_reading_and_writing_what_a_snapshot_does_not_have_costs_it_nothing(
    arch: AnyBackend,
) -> None:
    """Reading a hole of a file that is in memory makes a page of it, for as long as it is there."""
    with arch.GuestMemory(64 << 20) as memory, arch.Vm(memory) as vm:
        for page in range(0, 8 << 20, 0x40000):
            memory.write(page, b"\1")
        snapshot = vm.take_snapshot()
    with snapshot:
        before = os.fstat(snapshot.memory.descriptor).st_blocks
        with snapshot.fork() as vm:
            assert not any(vm.memory.read(1 << 20, 0x1000)[1:])
            assert vm.memory.read(9 << 20, 55 << 20) == bytes(55 << 20)
            for page in range(16 << 20, 32 << 20, 0x1000):
                vm.memory.write(page, b"\2")
            for page in range(0, 8 << 20, 0x40000):
                assert vm.memory.read(page, 2) == b"\1\0"
            with vm.take_snapshot() as again:
                assert again.memory.top.size == 64 << 20
        assert os.fstat(snapshot.memory.descriptor).st_blocks == before
        with snapshot.fork() as vm:
            assert vm.memory.read(16 << 20, 1) == b"\0"


def test_many_holes_are_few_mappings(arch: AnyBackend) -> None:
    with arch.GuestMemory(64 << 20) as memory, arch.Vm(memory) as vm:
        for page in range(0, 64 << 20, 0x40000):
            memory.write(page, b"\1")
        snapshot = vm.take_snapshot()
    with snapshot, snapshot.fork() as vm:
        assert len(snapshot.memory.whole.extents) == 256
        assert len(snapshot.memory.whole.holes) == 64
        assert all(vm.memory.read(page, 2) == b"\1\0" for page in range(0, 64 << 20, 0x40000))


def test_nothing_is_left_where_holes_cannot_be_mapped(snapshot: MachineSnapshot) -> None:
    before = len(os.listdir("/proc/self/fd"))
    snapshot.memory.whole._holes = [(0x1000, 0x1000)]  # of no size
    with pytest.raises(OSError, match="mmap: Invalid argument"):
        snapshot.fork()
    assert len(os.listdir("/proc/self/fd")) == before
