"""Memory that is added to a machine, aliases of it, and pages that are mapped before they are used."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import ExitStack
from threading import Thread
from typing import Any

import pytest
from backends import backend_module
from vmm_arch.memory import MemoryAccessError, MemoryInUseError, Region
from vmm_arch.x86_64.entry import Protected32
from vmm_arch.x86_64.platform.memory_map import GuestMemory

ADDED = 0x40_0000
ALIAS = 0x80_0000
# mov eax, [0x400000]; inc eax; mov [0x400000], eax; out 0x10, eax; jmp start
COUNTS_THERE = bytes.fromhex("a1 00 00 40 00 40 a3 00 00 40 00 e7 10 eb f1")
# the same at 0x800000
COUNTS_AT_THE_ALIAS = bytes.fromhex("a1 00 00 80 00 40 a3 00 00 80 00 e7 10 eb f1")


@pytest.fixture
def machine(arch: Any) -> Iterator[Any]:
    """A machine with two regions, and code that counts at ADDED."""
    regions = [Region(0, 0x10_0000), Region(0x20_0000, 0x4000)]
    with GuestMemory(regions) as memory, arch.Vm(memory, track_dirty=True) as vm:
        started(arch, vm, COUNTS_THERE)
        vm.dirty_pages()
        yield vm


def started(arch: Any, vm: Any, code: bytes) -> None:
    vm.memory.write(0x1000, code)
    arch.configure_system(vm, entry := Protected32(0x1000))
    arch.configure_vcpu(vm.vcpus[0], entry)


def added(size: int = 0x4000, **options: Any) -> GuestMemory:
    return GuestMemory([Region(ADDED, size, **options)])


def test_a_guest_uses_memory_that_was_added(arch: Any, machine: Any) -> None:
    with added() as memory:
        memory.write(ADDED, b"\5")
        machine.add_memory(memory)
        for value in (6, 7, 8):
            told = machine.vcpus[0].run()
            assert isinstance(told, arch.IoOut)
            assert told.value == value
        assert memory.read(ADDED, 1) == machine.memory.read(ADDED, 1) == b"\x08"
        machine.memory.write(ADDED, b"\x20")
        assert machine.vcpus[0].run().value == 0x21
        with pytest.raises(MemoryInUseError):
            memory.close()
        machine.vcpus[0].get_regs()  # completes the instruction
        machine.remove_memory(memory)
        assert machine.memory.annexes == ()
        read = machine.vcpus[0].run()
        assert isinstance(read, arch.MmioRead)
        assert (read.address, read.size) == (ADDED, 4)
        read.complete(0x100)
        write = machine.vcpus[0].run()
        assert isinstance(write, arch.MmioWrite)
        assert write.value == 0x101
        with pytest.raises(MemoryAccessError):
            machine.memory.read(ADDED, 1)


def test_while_the_guest_runs(arch: Any, machine: Any) -> None:
    """The guest waits in a loop until there is something at ADDED."""
    # wait: mov eax, [0x400000]; cmp eax, -1; je wait; out 0x10, eax
    machine.memory.write(0x1000, bytes.fromhex("a1 00 00 40 00 83 f8 ff 74 f6 e7 10"))
    found: list[Any] = []

    def run() -> None:
        while not found:
            told = machine.vcpus[0].run()
            if isinstance(told, arch.MmioRead):
                told.ignore()
            else:
                found.append(told)

    with added() as memory:
        memory.write(ADDED, (0x1234).to_bytes(4, "little"))
        thread = Thread(target=run)
        thread.start()
        machine.add_memory(memory)
        thread.join()
        assert isinstance(found[0], arch.IoOut)
        assert found[0].value == 0x1234
        machine.vcpus[0].get_regs()
        machine.remove_memory(memory)


def test_its_dirty_pages_are_tracked_until_it_is_removed(arch: Any, machine: Any) -> None:
    with added() as memory:
        machine.add_memory(memory)
        machine.vcpus[0].run()
        machine.vcpus[0].get_regs()
        assert ADDED in machine.dirty_pages()
        assert machine.dirty_pages() == []
        machine.vcpus[0].run()
        machine.vcpus[0].get_regs()
        machine.remove_memory(memory)
        assert ADDED not in machine.dirty_pages()
    with added() as memory:  # in the same place
        machine.add_memory(memory)
        assert machine.dirty_pages() == []
        machine.vcpus[0].run()
        assert ADDED in machine.dirty_pages()
        machine.remove_memory(memory)


def test_an_alias_is_the_same_memory(arch: Any, machine: Any) -> None:
    alias = machine.add_alias(ALIAS, Region(0x20_1000, 0x2000))
    assert alias == Region(ALIAS, 0x2000)
    machine.memory.write(0x1000, COUNTS_AT_THE_ALIAS)
    machine.memory.write(0x20_1000, b"\x40")
    assert machine.memory.read(ALIAS, 1) == b"\x40"
    for value in (0x41, 0x42):
        assert machine.vcpus[0].run().value == value
    assert machine.memory.read(0x20_1000, 1) == b"\x42"
    machine.vcpus[0].get_regs()
    written = machine.dirty_pages()
    assert 0x20_1000 in written  # by its own name
    assert ALIAS not in written
    assert machine.vcpus[0].run().value == 0x43
    machine.vcpus[0].get_regs()
    machine.remove_alias(ALIAS)
    assert 0x20_1000 in machine.dirty_pages()  # what was written before it went is not lost
    assert isinstance(machine.vcpus[0].run(), arch.MmioRead)


def test_an_alias_that_cannot_be_written(arch: Any, machine: Any) -> None:
    """As a ROM that a chipset shows below 1 MiB: reads are the guest's own, writes are exits."""
    with added(read_only=True) as memory:
        memory.write(ADDED, b"\x30")
        machine.add_memory(memory)
        alias = machine.add_alias(ALIAS, Region(ADDED, 0x1000))
        assert alias == Region(ALIAS, 0x1000, read_only=True)
        with pytest.raises(
            MemoryInUseError, match=r"the alias \[0x800000, 0x801000\) read-only shows"
        ):
            machine.remove_memory(memory)
        for code, address in ((COUNTS_THERE, ADDED), (COUNTS_AT_THE_ALIAS, ALIAS)):
            machine.memory.write(0x1000, code)
            regs = machine.vcpus[0].get_regs()
            registers = {"rip": 0x1000}
            for name, value in registers.items():
                setattr(regs, name if hasattr(regs, name) else name.capitalize(), value)
            machine.vcpus[0].set_regs(regs)
            write = machine.vcpus[0].run()
            assert isinstance(write, arch.MmioWrite)
            assert (write.address, write.value) == (address, 0x31)
            assert machine.vcpus[0].run().value == 0x31
        assert memory.read(ADDED, 1) == b"\x30"
        assert machine.dirty_pages() == []
        machine.remove_alias(ALIAS)
        machine.remove_memory(memory)


def test_what_cannot_be_added_changes_nothing(arch: Any, machine: Any) -> None:
    mapped = machine.memory.mapped_regions
    with GuestMemory([Region(0xF_F000, 0x2000), Region(0x20_3000, 0x1000)]) as memory:
        with pytest.raises(ValueError, match="overlaps") as raised:
            machine.add_memory(memory)
        assert str(raised.value).split("\n") == [
            "add_memory: [0xff000, 0x101000) overlaps [0x0, 0x100000), which the machine has; move it",
            "add_memory: [0x203000, 0x204000) overlaps [0x200000, 0x204000), which the machine has;"
            " move it",
        ]
        with pytest.raises(ValueError, match="was not added to the machine"):
            machine.remove_memory(memory)
    with pytest.raises(ValueError, match=r"overlaps \[0x0, 0x100000\)"):
        machine.add_alias(0xF_F000, Region(0, 0x1000))
    with pytest.raises(ValueError, match=r"\[0x200000, 0x205000\) is not within one region"):
        machine.add_alias(ALIAS, Region(0x20_0000, 0x5000))
    with pytest.raises(ValueError, match="there is no alias at 0x800000"):
        machine.remove_alias(ALIAS)
    with pytest.raises(TypeError, match="expected GuestMemory"):
        machine.add_memory(bytes(0x1000))
    assert machine.memory.mapped_regions == mapped
    with added() as memory:
        machine.add_memory(memory)
        with pytest.raises(ValueError, match="overlaps"):
            machine.add_memory(memory)
        machine.remove_memory(memory)


def test_not_where_the_interrupt_controllers_are(arch: Any, memory: GuestMemory) -> None:
    with arch.Vm(memory, irqchip=True) as vm:
        more = GuestMemory([Region(0xFEC0_0000, 0x1000)])
        with more, pytest.raises(ValueError, match="belongs to the I/O APIC"):
            vm.add_memory(more)
        with pytest.raises(ValueError, match="belongs to the local APICs"):
            vm.add_alias(0xFEE0_0000, Region(0, 0x1000))


def test_snapshots_and_resets_are_refused_meanwhile(arch: Any, machine: Any) -> None:
    with machine.take_snapshot() as snapshot, added() as memory:
        machine.reset_to(snapshot)
        machine.add_memory(memory)
        problem = r"memory was added to the machine.*: \[0x400000, 0x404000\); remove it first"
        with pytest.raises(arch.SnapshotError, match=problem):
            machine.take_snapshot()
        with pytest.raises(arch.StateError, match=problem):
            machine.reset_to(snapshot)
        machine.vcpus[0].run()
        machine.vcpus[0].get_regs()
        machine.remove_memory(memory)
        machine.memory.write(0x3000, b"changed")
        machine.reset_to(snapshot)  # which knows nothing of pages that are gone
        assert machine.memory.read(0x3000, 7) == bytes(7)
        alias = machine.add_alias(ALIAS, Region(0x20_0000, 0x1000))
        with pytest.raises(arch.SnapshotError, match="memory was added"):
            machine.take_snapshot()
        machine.remove_alias(alias.address)
        machine.take_snapshot(base=snapshot).close()


def test_a_closed_machine_lets_go_of_it(arch: Any, memory: GuestMemory) -> None:
    gc.collect()
    files = len(os.listdir("/proc/self/fd"))
    with added() as more:
        with arch.Vm(memory) as vm:
            vm.add_memory(more)
            vm.add_alias(ALIAS, Region(0, 0x1000))
            assert len(memory.mapped_regions) == 3
        assert len(memory.mapped_regions) == 1
    assert len(os.listdir("/proc/self/fd")) == files


def test_views_and_accesses_of_the_host(machine: Any) -> None:
    with added() as memory:
        machine.add_memory(memory)
        machine.add_alias(ALIAS, Region(0x20_0000, 0x1000))
        with machine.memory.view(ADDED + 0x10, 4) as view:
            view[:] = b"view"
        assert memory.read(ADDED + 0x10, 4) == b"view"
        machine.memory.write(ALIAS + 4, b"here")
        assert machine.memory.read(0x20_0004, 4) == b"here"
        with pytest.raises(MemoryAccessError):
            machine.memory.read(ALIAS + 0xFFF, 2)
        machine.remove_memory(memory)


def test_two_machines_share_added_memory() -> None:
    """On a hypervisor that has several machines in a process."""
    arch = backend_module("kvm_x86_64")
    with ExitStack() as stack:
        shared, one, other = (
            stack.enter_context(memory)
            for memory in (added(), GuestMemory(0x10000), GuestMemory(0x10000))
        )
        machines = [stack.enter_context(arch.Vm(memory)) for memory in (one, other)]
        for vm in machines:
            vm.add_memory(shared)
            started(arch, vm, COUNTS_THERE)
        values = [vm.vcpus[0].run().value for vm in (*machines, *machines)]
        assert values == [1, 2, 3, 4]


def test_pages_are_there_before_they_are_used(arch: Any, machine: Any) -> None:
    for start, size, problem in (
        (0x10, 0x1000, "give whole pages"),
        (0x20_3000, 0x2000, "there is no memory at 0x204000"),
    ):
        with pytest.raises(ValueError, match=problem):
            machine.prefault(start, size)
    try:
        machine.prefault(0x20_0000, 0x4000)
    except arch.HypervisorUnavailableError as error:
        assert "KVM_PRE_FAULT_MEMORY" in str(error)  # not every host's KVM can
        assert "Linux 6.11, with nested paging" in str(error)
    machine.vcpus[0].run()
