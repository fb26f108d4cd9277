"""Writes that the hypervisor collects instead of an exit each: all of them, in order, before what follows."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from vmm_arch import kvm_x86_64 as kvm
from vmm_arch.devices.bus import Device
from vmm_arch.x86_64.bus import Bus

CODE = 0x1000
LOG, OTHER = 0x10, 0x18
MANY = 1000
COUNTS = (
    b"\xb9\xe8\x03"  # mov cx, 1000
    b"\x89\xc8\xe7\x10"  # next: mov ax, cx; out 0x10, ax
    b"\xe2\xfa"  # loop next
    b"\xe6\x18\xf4"  # out 0x18, al; hlt
)
FOREVER = (
    b"\x66\x31\xc0"  # xor eax, eax
    b"\x66\x40"  # next: inc eax
    b"\x66\xe7\x10"  # out 0x10, eax
    b"\xeb\xf9"  # jmp next
)
THEN_SPINS = b"\xb0\x2a\xe6\x10\xeb\xfe"  # mov al, 42; out 0x10, al; jmp $
TO_MEMORY = (
    b"\xc7\x05\x00\x00\x00\xd0\x01\x00\x00\x00"  # mov dword ptr [0xd0000000], 1
    b"\xc6\x05\x08\x00\x00\xd0\x02"  # mov byte ptr [0xd0000008], 2
    b"\xc7\x05\x00\x00\x00\xd0\x03\x00\x00\x00"
    b"\xf4"
)
PATIENCE = 60


class Log:
    """A device that records what was written to it, which may come late."""

    DEFERRABLE = (0, 1)

    def __init__(self) -> None:
        self.values: list[int] = []

    def read(self, offset: int, size: int) -> int:
        return len(self.values)

    def write(self, offset: int, size: int, value: int) -> None:
        self.values.append(value)


def make(code: bytes, vcpus: int = 1, **options: Any) -> Any:
    memory = kvm.GuestMemory(0x10000)
    memory.write(CODE, code)
    vm = kvm.Vm(memory, vcpus=vcpus, **options)
    for vcpu in vm.vcpus:
        kvm.configure_vcpu(vcpu, kvm.RealMode(CODE))
    return vm


def log_on(bus: Bus) -> Log:
    log = Log()
    bus.attach_ports(range(LOG, LOG + 1), log)
    return log


def stopped_after(vcpu: Any, seconds: float) -> None:
    timer = threading.Timer(seconds, vcpu.kick)
    timer.start()
    assert isinstance(vcpu.run(), kvm.Kicked)
    timer.join()


@pytest.fixture
def written() -> list[Any]:
    return []


def test_all_writes_come_in_order_and_before_the_exit_that_follows(written: list[int]) -> None:
    with make(COUNTS) as vm:
        vcpu = vm.vcpus[0]

        def handle(exit: Any) -> None:
            assert (exit.port, exit.size, exit.count) == (LOG, 2, 1)
            written.append(exit.value)

        vm.coalesce_writes([], [range(LOG, LOG + 2)], handle)
        exits = 0
        while True:
            exit = vcpu.run()
            exits += 1
            if isinstance(exit, kvm.IoOut) and exit.port == OTHER:
                break
            written.append(exit.value)  # the ring was full
        assert written == list(range(MANY, 0, -1))
        assert exits < MANY / 50
        assert isinstance(vcpu.run(), kvm.Halt)


def test_writes_to_memory(written: list[Any]) -> None:
    with make(TO_MEMORY) as vm:
        vcpu = vm.vcpus[0]
        entry = kvm.Protected32(CODE)
        kvm.configure_system(vm, entry)
        kvm.reset_vcpu(vcpu, entry)
        vm.coalesce_writes(
            [range(0xD0000000, 0xD0000010)],
            [],
            lambda exit: written.append((exit.address, exit.data)),
        )
        assert isinstance(vcpu.run(), kvm.Halt)
        assert written == [
            (0xD0000000, b"\1\0\0\0"),
            (0xD0000008, b"\2"),
            (0xD0000000, b"\3\0\0\0"),
        ]


def test_nothing_is_left_once_no_vcpu_runs(written: list[int]) -> None:
    """However the run ended: so what is saved then lacks nothing."""
    with make(FOREVER, track_dirty=True) as vm:
        vcpu = vm.vcpus[0]
        vm.coalesce_writes([], [range(LOG, LOG + 4)], lambda exit: written.append(exit.value))

        def runs_for_a_while() -> int:
            timer = threading.Timer(0.1, vcpu.kick)
            timer.start()
            while not isinstance(exit := vcpu.run(), kvm.Kicked):
                written.append(exit.value)
            timer.join()
            state = vcpu.save()
            rax: int = vcpu.get_regs().rax
            assert state.to_json()
            return rax

        for _ in range(5):
            rax = runs_for_a_while()
            assert vm.drain_writes() == 0
            assert written == list(range(1, len(written) + 1))
            assert len(written) in (rax, rax - 1)  # incremented, and not written yet
        snapshot = vm.take_snapshot()
        at = len(written)
        runs_for_a_while()
        vm.reset_to(snapshot)
        assert vm.drain_writes() == 0
        del written[at:]
        runs_for_a_while()
        assert written == list(range(1, len(written) + 1))
        with snapshot.fork() as fork:  # for which nothing is collected
            assert fork.vcpus[0].run().value == at + 1


def test_an_exception_keeps_the_exit_and_the_other_writes(written: list[int]) -> None:
    with make(b"\xb0\x01\xe6\x10\xb0\x02\xe6\x10\xb0\x03\xe6\x10\xe6\x18\xf4") as vm:
        vcpu = vm.vcpus[0]

        def handle(exit: Any) -> None:
            written.append(exit.value)
            if exit.value == 2:
                raise RuntimeError("a device's")

        vm.coalesce_writes([], [range(LOG, LOG + 1)], handle)
        with pytest.raises(RuntimeError, match="a device's"):
            vcpu.run()
        assert written == [1, 2]
        assert vcpu.run().port == OTHER
        assert written == [1, 2, 3]
        assert isinstance(vcpu.run(), kvm.Halt)


def test_each_vcpus_exit_comes_after_its_own_writes(written: list[int]) -> None:
    """Whichever thread handles them, a timer's among others."""
    over = threading.Event()
    with make(COUNTS, vcpus=3) as vm:
        vm.coalesce_writes([], [range(LOG, LOG + 2)], lambda exit: written.append(exit.value))

        def drains() -> None:
            while not over.is_set():
                vm.drain_writes()

        def runs(vcpu: Any) -> int:
            while (exit := vcpu.run()).port != OTHER:
                written.append(exit.value)
            return written.count(1)  # the last one that each writes

        timer = threading.Thread(target=drains)
        timer.start()
        try:
            with ThreadPoolExecutor(3) as threads:
                seen = sorted(threads.map(runs, vm.vcpus))
        finally:
            over.set()
            timer.join()
        assert all(count >= place for place, count in enumerate(seen, 1)), seen
        assert sorted(written) == sorted(3 * list(range(1, MANY + 1)))


def test_the_places_can_be_replaced(written: list[int]) -> None:
    with make(b"\xe6\x10\xe6\x18\xe6\x10\xe6\x18\xe6\x10\xf4") as vm:
        vcpu = vm.vcpus[0]
        vm.coalesce_writes([], [range(LOG, LOG + 1)], lambda exit: written.append(exit.port))
        assert vcpu.run().port == OTHER
        assert written == [LOG]
        vm.coalesce_writes([], [range(OTHER, OTHER + 1)], lambda exit: written.append(exit.port))
        assert vcpu.run().port == LOG
        assert vcpu.run().port == LOG
        assert written == [LOG, OTHER]
        vm.coalesce_writes([], [], written.append)
        assert isinstance(vcpu.run(), kvm.Halt)


def test_places_that_are_none_change_nothing(written: list[int]) -> None:
    with make(b"\xe6\x10\xf4") as vm:
        for wrong in (range(0), range(-1, 2), range(0xFFFF, 0x10001), range(0, 8, 2)):
            with pytest.raises(ValueError, match="is no range of places"):
                vm.coalesce_writes([], [range(LOG, LOG + 1), wrong], written.append)
        assert vm.vcpus[0].run().port == LOG


def test_serve_hands_on_what_a_guest_without_exits_has_written() -> None:
    bus = Bus()
    with make(THEN_SPINS) as vm:

        class Stops(Log):
            def write(self, offset: int, size: int, value: int) -> None:
                super().write(offset, size, value)
                bus.stop(code=value)

        device: Device = Stops()
        bus.attach_ports(range(LOG, LOG + 1), device)
        assert bus.coalesce(vm)
        ending = kvm.serve(vm, bus, timeout=PATIENCE)
        assert (ending.reason, ending.code) == (kvm.Reason.STOPPED, 42)
        assert "IoOut" not in ending.exits


def test_serve_raises_what_a_device_raises_meanwhile() -> None:
    bus = Bus()
    with make(THEN_SPINS) as vm:

        class Fails(Log):
            def write(self, offset: int, size: int, value: int) -> None:
                raise RuntimeError("a device's")

        bus.attach_ports(range(LOG, LOG + 1), Fails())
        bus.coalesce(vm)
        with pytest.raises(RuntimeError, match="a device's") as raised:
            kvm.serve(vm, bus, timeout=PATIENCE)
        assert any("IoOut" in note for note in raised.value.__notes__)


def test_a_device_sees_the_same_on_every_hypervisor(arch: Any, memory: Any) -> None:
    """Where nothing is collected, each write is an exit."""
    memory.write(CODE, b"\xb0\x01\xe6\x10\xb0\x02\xe6\x10\xe4\x10\xe6\x18\xf4")  # with: in al, 0x10
    bus = Bus()
    log = log_on(bus)
    with arch.Vm(memory) as vm:
        arch.configure_vcpu(vm.vcpus[0], arch.RealMode(CODE))
        assert bus.coalesce(vm) == ("coalesce_writes" not in arch.UNSUPPORTED)
        arch.serve(vm, bus, timeout=PATIENCE)
        assert log.values == [1, 2]
        assert vm.vcpus[0].get_regs().rax & 0xFF == 2
        assert vm.drain_writes() == 0


def test_nothing_to_collect() -> None:
    with make(b"\xf4") as vm:
        assert not Bus().coalesce(vm)


def test_a_machine_that_is_closed() -> None:
    with make(b"\xf4") as vm:
        vm.coalesce_writes([], [range(LOG, LOG + 1)], print)
    with pytest.raises(kvm.ClosedError):
        vm.drain_writes()
