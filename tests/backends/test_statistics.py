"""What hypervisors count of machines and vCPUs."""

from __future__ import annotations

import gc
import os
from threading import Event, Thread
from typing import Any

import pytest
from backends import Start
from vmm_arch import kvm_x86_64
from vmm_arch.statistic import StatisticUnit
from vmm_arch.x86_64.entry import RealMode
from vmm_arch.x86_64.platform.memory_map import GuestMemory

OUT_THRICE = b"\xe6\x10\xe6\x10\xe6\x10\xf4"  # out 0x10, al; …; hlt
FOREVER = b"\xeb\xfe"
PORT_EXITS = {"kvm_x86_64": "exits", "whp_x86_64": "IoInstructions.Count"}


def test_exits_are_counted(arch: Any, guest: Start) -> None:
    vcpu = guest(OUT_THRICE)
    name = PORT_EXITS[arch.__name__.rpartition(".")[2]]
    before = vcpu.statistics()
    for _ in range(3):
        assert isinstance(vcpu.run(), kvm_x86_64.IoOut)
    assert isinstance(vcpu.run(), kvm_x86_64.Halt)
    after = vcpu.statistics()
    assert after[name].value - before[name].value >= 3
    changed = kvm_x86_64.changed_statistics(before, after)
    assert name in changed
    assert before.keys() == after.keys()


def test_a_machines_own(guest: Start) -> None:
    vcpu = guest(OUT_THRICE)
    found = vcpu.vm.statistics()
    assert found
    assert not found.keys() & vcpu.statistics().keys()


def test_times_are_in_seconds(guest: Start) -> None:
    found = guest(OUT_THRICE).statistics()
    times = [name for name, one in found.items() if one.unit is StatisticUnit.SECONDS]
    assert times
    assert all(0 <= found[name].value < 1000 for name in times if "hist" not in name)


def test_they_can_be_read_while_the_vcpu_runs(guest: Start) -> None:
    vcpu = guest(FOREVER)
    vcpu.statistics()
    started = Event()

    def run() -> None:
        started.set()
        vcpu.run()

    thread = Thread(target=run)
    thread.start()
    started.wait()
    for _ in range(20):
        assert vcpu.statistics()
        assert vcpu.vm.statistics()
    vcpu.kick()
    thread.join()


def test_the_first_time_on_kvm_needs_a_vcpu_that_is_not_running() -> None:
    with GuestMemory(0x10000) as memory, kvm_x86_64.Vm(memory) as vm:
        memory.write(0x1000, OUT_THRICE)
        vcpu = vm.vcpus[0]
        kvm_x86_64.configure_vcpu(vcpu, RealMode(0x1000))
        vcpu._state = 3  # RUNNING, as another thread would have left it
        with pytest.raises(kvm_x86_64.BusyError, match="another thread runs it"):
            vcpu.statistics()
        vcpu._state = 0
        assert vcpu.statistics()


def test_they_change_nothing(arch: Any, memory: GuestMemory) -> None:
    """A vCPU whose counters were read is fresh, and one that waits for an answer waits on."""
    with arch.Vm(memory) as vm:
        memory.write(0x1000, b"\xe4\x10\xf4")  # in al, 0x10; hlt
        vm.vcpus[0].statistics()
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        read = vm.vcpus[0].run()
        vm.vcpus[0].statistics()
        read.complete(7)
        vm.vcpus[0].run()
        assert vm.vcpus[0].get_regs().rax & 0xFF == 7


def test_a_closed_machine_has_none(arch: Any, memory: GuestMemory) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    with arch.Vm(memory, vcpus=2) as vm:
        vm.statistics()
        for vcpu in vm.vcpus:
            vcpu.statistics()
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(arch.ClosedError):
        vm.statistics()
    with pytest.raises(arch.ClosedError):
        vm.vcpus[0].statistics()
