"""Event descriptors: rung by the guest without an exit, and raising its interrupt lines."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_irqchip import BEGINNING, EDGE, HANDLERS, LEVEL, LINES, PATIENCE, machine, port_of, within
from vmm_arch import kvm_x86_64 as kvm
from vmm_arch import whp_x86_64
from vmm_arch.events import EventInUseError
from vmm_arch.x86_64.doorbell import Doorbell

CODE = 0x1000
BELL = 0xD0000000
TO_PORTS = (
    b"\xb0\x05\xe6\x10"  # mov al, 5; out 0x10, al
    b"\xb0\x06\xe6\x10"  # mov al, 6; out 0x10, al
    b"\xe7\x10"  # out 0x10, ax
    b"\xe6\x11"  # out 0x11, al
    b"\xf4"
)
TO_MEMORY = (
    b"\xc7\x05\x00\x00\x00\xd0\x01\x00\x00\x00"  # mov dword ptr [0xd0000000], 1
    b"\xc7\x05\x00\x00\x00\xd0\x02\x00\x00\x00"
    b"\xf4"
)


@pytest.fixture
def event() -> Iterator[int]:
    descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def vm() -> Iterator[Any]:
    with kvm.GuestMemory(0x10000) as memory, kvm.Vm(memory) as vm:
        yield vm


def exits(vm: Any, code: bytes, entry: Any = None) -> list[str]:
    """Run the code until it halts; the exits before that."""
    vcpu = vm.vcpus[0]
    vm.memory.write(CODE, code)
    kvm.configure_system(vm, entry or kvm.RealMode(CODE))
    kvm.configure_vcpu(vcpu, entry or kvm.RealMode(CODE))
    found = []
    while not isinstance(exit := vcpu.run(), kvm.Halt):
        found.append(repr(exit))
    return found


@pytest.mark.parametrize(
    ("bell", "rings", "rest"),
    [
        (Doorbell(port=0x10), 3, 1),
        (Doorbell(port=0x10, size=1), 2, 2),
        (Doorbell(port=0x10, size=1, value=5), 1, 3),
        (Doorbell(port=0x12), 0, 4),
    ],
)
def test_a_port_rings(vm: Any, event: int, bell: Doorbell, rings: int, rest: int) -> None:
    vm.add_ioeventfd(event, bell)
    assert len(exits(vm, TO_PORTS)) == rest
    assert (os.eventfd_read(event) if rings else 0) == rings
    with pytest.raises(BlockingIOError):
        os.eventfd_read(event)


def test_addresses_ring_by_value(vm: Any, event: int) -> None:
    other = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        vm.add_ioeventfd(event, Doorbell(address=BELL, size=4, value=1))
        vm.add_ioeventfd(other, Doorbell(address=BELL, size=4, value=2))
        assert exits(vm, TO_MEMORY, kvm.Protected32(CODE)) == []
        assert os.eventfd_read(event) == os.eventfd_read(other) == 1
    finally:
        os.close(other)


def test_what_was_taken_back_is_an_exit_again(vm: Any, event: int) -> None:
    bell = Doorbell(port=0x10)
    vm.add_ioeventfd(event, bell)
    vm.remove_ioeventfd(bell)
    assert len(exits(vm, TO_PORTS)) == 4
    with pytest.raises(KeyError, match="no doorbell at port 0x10"):
        vm.remove_ioeventfd(bell)


def test_the_callers_descriptor_can_be_closed(vm: Any) -> None:
    mine = os.eventfd(0)
    bell = Doorbell(port=0x10)
    vm.add_ioeventfd(mine, bell)
    os.close(mine)
    assert len(exits(vm, TO_PORTS)) == 1
    vm.remove_ioeventfd(bell)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Doorbell(port=0x10), Doorbell(port=0x10, size=4, value=1)),
        (Doorbell(address=BELL, size=4), Doorbell(address=BELL, size=4, value=3)),
        (Doorbell(address=BELL, size=4, value=3), Doorbell(address=BELL, size=4, value=3)),
    ],
)
def test_two_at_one_place_are_refused(vm: Any, event: int, one: Any, other: Any) -> None:
    vm.add_ioeventfd(event, one)
    with pytest.raises(EventInUseError, match="there is one already"):
        vm.add_ioeventfd(event, other)
    vm.remove_ioeventfd(one)
    vm.add_ioeventfd(event, other)


def test_memory_cannot_ring(vm: Any, event: int) -> None:
    with pytest.raises(ValueError, match="address 0x2000: guest memory is there"):
        vm.add_ioeventfd(event, Doorbell(address=0x2000))


def test_bad_descriptors_are_refused_and_nothing_is_left(vm: Any) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    bell = Doorbell(port=0x10)
    with open("/dev/null") as other, pytest.raises(kvm.HypervisorError, match="not an eventfd"):
        vm.add_ioeventfd(other.fileno(), bell)
    with pytest.raises(OSError, match="Bad file descriptor"):
        vm.add_ioeventfd(1 << 20, bell)
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert len(exits(vm, TO_PORTS)) == 4


def test_everything_wrong_with_a_doorbell_at_once() -> None:
    with pytest.raises(ValueError, match=r"either.*16 bits.*1, 2, 4 or 8") as wrong:
        Doorbell(address=1, port=1 << 16, size=3)
    assert "value" not in str(wrong.value)
    with pytest.raises(ValueError, match="does not fit into 1 bytes"):
        Doorbell(port=1, size=1, value=256)
    with pytest.raises(ValueError, match="a value needs a size"):
        Doorbell(port=1, value=2)


def test_the_machine_closes_its_duplicates(event: int) -> None:
    other = os.eventfd(0)
    before = sorted(os.listdir("/proc/self/fd"))
    with kvm.GuestMemory(0x100000) as memory, kvm.Vm(memory, irqchip=True) as vm:
        vm.add_ioeventfd(event, Doorbell(port=0x10))
        vm.add_irqfd(event, 5)
        vm.add_irqfd(other, 6, resample=event)
    assert sorted(os.listdir("/proc/self/fd")) == before
    os.close(other)


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Any]:
    """A machine whose guest has programmed the I/O APIC and waits."""
    with machine(kvm, tmp_path, BEGINNING + LINES + HANDLERS) as vm:
        assert port_of(within(PATIENCE, vm.vcpus[0])) == 0x10
        yield vm


def test_an_event_raises_a_line(waiting: Any, event: int) -> None:
    waiting.add_irqfd(event, EDGE)
    for _ in range(3):
        os.eventfd_write(event, 1)
        assert port_of(within(PATIENCE, waiting.vcpus[0])) == 0x11
    waiting.remove_irqfd(event, EDGE)
    os.eventfd_write(event, 1)
    assert isinstance(within(0.1, waiting.vcpus[0]), kvm.Kicked)
    with pytest.raises(KeyError, match=f"line {EDGE} does not have this event"):
        waiting.remove_irqfd(event, EDGE)


def test_the_end_of_a_level_interrupt_rings(waiting: Any, event: int) -> None:
    ended = os.eventfd(0, os.EFD_NONBLOCK)
    waiting.add_irqfd(event, LEVEL, resample=ended)
    os.eventfd_write(event, 1)
    assert port_of(within(PATIENCE, waiting.vcpus[0])) == 0x12
    assert isinstance(
        within(0.1, waiting.vcpus[0]), kvm.Kicked
    )  # it ended it, and was not interrupted again
    assert select.select([ended], [], [], PATIENCE)[0] == [ended]
    os.close(ended)


def test_lines_that_are_refused(waiting: Any, event: int) -> None:
    with pytest.raises(ValueError, match="lines 0 to 23"):
        waiting.add_irqfd(event, 24)
    waiting.add_irqfd(event, 5)
    with pytest.raises(EventInUseError, match="line 5: it has this event already"):
        waiting.add_irqfd(event, 5)
    with pytest.raises(kvm.HypervisorError, match="EBUSY: the event raises another line"):
        waiting.add_irqfd(event, 6)


def test_without_an_irqchip(vm: Any, event: int) -> None:
    with pytest.raises(kvm.HypervisorError, match=r"add_irqfd: ENXIO: .* without an irqchip"):
        vm.add_irqfd(event, 5)


def test_whp_says_why_not() -> None:
    for operation in ("add_ioeventfd", "remove_ioeventfd", "add_irqfd", "remove_irqfd"):
        assert whp_x86_64.UNSUPPORTED[operation]


def test_messages_are_interrupts(arch: Any, tmp_path: Path) -> None:
    with machine(arch, tmp_path, BEGINNING + LINES + HANDLERS) as vm:
        assert port_of(within(PATIENCE, vm.vcpus[0])) == 0x10
        for _ in range(3):
            assert vm.signal_msi(0xFEE00000, 0x30)
            assert port_of(within(PATIENCE, vm.vcpus[0])) == 0x11
        vm.signal_msi(0xFEE00000, 0x32)
        assert port_of(within(PATIENCE, vm.vcpus[0])) == 0x13
        with pytest.raises(ValueError, match=r"none of local APICs.*begin at 16"):
            vm.signal_msi(0x1000, 5)


def test_messages_need_an_irqchip(arch: Any, memory: Any) -> None:
    with (
        arch.Vm(memory) as vm,
        pytest.raises(arch.HypervisorError, match=r"signal_msi: ENXIO: .* without an irqchip"),
    ):
        vm.signal_msi(0xFEE00000, 0x30)
