"""Serving whole machines: how guests end, who may end them, and that nothing is left running."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from requirements import require
from scripted import ScriptedMachine, ScriptedVcpu
from vmm_arch import kvm_x86_64 as arch
from vmm_arch.activity import Activity
from vmm_arch.devices.serial import REGISTERS, Serial16550
from vmm_arch.ending import Ending, Reason
from vmm_arch.exits import Failure, Kicked, OtherExit, SystemEvent
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.serve import _join, serve
from vmm_arch.x86_64.bus import Bus
from vmm_arch.x86_64.entry import Entry, Protected32, RealMode
from vmm_arch.x86_64.exits import EndOfInterrupt, Exit
from vmm_arch.x86_64.platform.pc import attach_pc_devices
from vmm_arch.x86_64.platform.resources import SERIAL_LINE, SERIAL_PORT

LATE = 20
"""Seconds after which a guest that should have ended is given up."""
SOON = 0.1
SERIAL_PORTS = range(SERIAL_PORT, SERIAL_PORT + REGISTERS)

# Real-mode code, at any address.
HALTS = bytes.fromhex("f4")  # hlt
WAITS = bytes.fromhex("fb f4 eb fd")  # sti; 1: hlt; jmp 1b
SPINS = bytes.fromhex("eb fe")  # jmp to itself
ASKS_AND_HALTS = bytes.fromhex("e4 10 f4")  # in al, 0x10; hlt
TELLS_AND_HALTS = bytes.fromhex("b0 2a e6 10 f4")  # mov al, 42; out 0x10, al; hlt
TELLS_FOREVER = bytes.fromhex("e6 10 eb fc")  # 1: out 0x10, al; jmp 1b
TRIPLE_FAULTS = bytes.fromhex("0f 0b")  # ud2, in 64-bit code: no handler for it, nor for that
RESETS_BY_I8042 = bytes.fromhex("b0 fe e6 64 eb fe")  # mov al, 0xfe; out 0x64, al; jmp $
RESETS_BY_CF9 = bytes.fromhex("b0 06 ba f9 0c ee eb fe")  # mov al, 6; mov dx, 0xcf9; out dx, al
POWERS_OFF = bytes.fromhex("b0 34 ba 00 06 ee eb fe")  # mov al, 0x34; mov dx, 0x600; out dx, al


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def machine() -> Iterator[Callable[..., arch.Vm]]:
    """Make a machine in which each vCPU has code of its own, which is 0x1000 bytes long at most."""
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    opened: list[arch.Vm | arch.GuestMemory] = []

    def make(
        *codes: bytes, mode: type[arch.Entry] = arch.RealMode, irqchip: bool = False
    ) -> arch.Vm:
        memory = arch.GuestMemory(0x20000)
        opened.append(memory)
        vm = arch.Vm(memory, vcpus=len(codes), irqchip=irqchip)
        opened.append(vm)
        for vcpu, code in zip(vm.vcpus, codes, strict=True):
            address = 0x1000 * (1 + vcpu.index)
            memory.write(address, code)
            entry = mode(address, rsp=0x8000)
            arch.configure_system(vm, entry)
            arch.configure_vcpu(vcpu, entry)
        return vm

    yield make
    for thing in reversed(opened):
        thing.close()


Make = Callable[..., arch.Vm]


@dataclass
class Answers:
    """A device that answers reads, and notes what is written and by which thread."""

    answer: Callable[[], int] = lambda: 0
    written: list[int] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    def read(self, offset: int, size: int) -> int:
        self.threads.add(threading.current_thread().name)
        return self.answer()

    def write(self, offset: int, size: int, value: int) -> None:
        self.threads.add(threading.current_thread().name)
        self.written.append(value)


class Broken:
    """A device that raises whatever is done with it."""

    def read(self, offset: int, size: int) -> int:
        raise LookupError("no such register")

    def write(self, offset: int, size: int, value: int) -> None:
        raise LookupError("no such register")


def later(seconds: float, what: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(seconds, what)
    timer.start()
    return timer


# Guests that end by themselves


def test_a_guest_that_halts(machine: Make, bus: Bus) -> None:
    device = Answers()
    bus.attach_ports(range(0x10, 0x11), device)
    ending = serve(machine(TELLS_AND_HALTS), bus, timeout=LATE)
    assert (ending.reason, ending.vcpu, ending.message) == (Reason.HALTED, 0, "")
    assert ending.exits == {"IoOut": 1, "Halt": 1}
    assert 0 < ending.seconds < LATE
    assert device.written == [42]


def test_a_guest_that_faults_three_times(machine: Make, bus: Bus) -> None:
    ending = serve(machine(TRIPLE_FAULTS, mode=arch.Long64), bus, timeout=LATE)
    assert (ending.reason, ending.vcpu) == (Reason.SHUTDOWN, 0)
    assert ending.exits == {"Shutdown": 1}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (RESETS_BY_I8042, Reason.RESET),
        (RESETS_BY_CF9, Reason.RESET),
        (POWERS_OFF, Reason.POWER_OFF),
    ],
)
@pytest.mark.parametrize("vcpu", [0, 1])
def test_a_guest_that_asks_a_device(
    machine: Make, bus: Bus, code: bytes, reason: Reason, vcpu: int
) -> None:
    attach_pc_devices(bus)
    codes = [SPINS, SPINS]
    codes[vcpu] = code
    ending = serve(machine(*codes), bus, timeout=LATE)
    assert (ending.reason, ending.vcpu) == (reason, vcpu)
    assert ending.exits["IoOut"] == 1


def test_a_failure_says_what_the_hypervisor_says(machine: Make, bus: Bus) -> None:
    """Code where there is no memory: KVM fetches nothing there and cannot emulate that."""
    jumps_away = bytes.fromhex("ea 00 00 00 90")  # jmp 0x9000:0
    ending = serve(machine(jumps_away), bus, timeout=LATE)
    assert (ending.reason, ending.vcpu) == (Reason.FAILED, 0)
    assert ending.message.startswith("KVM_RUN: KVM_EXIT_INTERNAL_ERROR 1: KVM could not emulate")
    assert ending.exits == {"Failure": 1}


# Several vCPUs


def test_the_first_vcpu_runs_here_and_the_others_in_threads(machine: Make, bus: Bus) -> None:
    device = Answers()
    bus.attach_ports(range(0x10, 0x11), device)
    ending = serve(machine(*[TELLS_AND_HALTS] * 3), bus, timeout=LATE)
    assert ending.reason is Reason.HALTED
    assert ending.exits == {"IoOut": 3, "Halt": 3}
    assert device.written == [42] * 3
    assert device.threads == {threading.current_thread().name, "vCPU 1", "vCPU 2"}


@pytest.mark.parametrize("last", [0, 1])
def test_a_machine_is_halted_once_its_last_vcpu_is(machine: Make, bus: Bus, last: int) -> None:
    halted = threading.Event()

    def trace(vcpu: int, exit: Exit) -> None:
        if isinstance(exit, arch.Halt):
            halted.set()

    bus.attach_ports(range(0x10, 0x11), Answers(lambda: int(halted.wait(LATE))))
    codes = [HALTS, HALTS]
    codes[last] = ASKS_AND_HALTS
    ending = serve(machine(*codes), bus, timeout=LATE, trace=trace)
    assert (ending.reason, ending.vcpu) == (Reason.HALTED, last)
    assert ending.exits == {"IoIn": 1, "Halt": 2}


@pytest.mark.parametrize("vcpu", [0, 1])
def test_one_vcpus_end_is_the_machines(machine: Make, bus: Bus, vcpu: int) -> None:
    codes = [SPINS, SPINS]
    codes[vcpu] = TRIPLE_FAULTS
    ending = serve(machine(*codes, mode=arch.Long64), bus, timeout=LATE)
    assert (ending.reason, ending.vcpu) == (Reason.SHUTDOWN, vcpu)


def test_vcpus_that_nobody_ever_started_end_with_the_first(machine: Make, bus: Bus) -> None:
    ending = serve(
        machine(TRIPLE_FAULTS, b"", b"", mode=arch.Long64, irqchip=True), bus, timeout=LATE
    )
    assert (ending.reason, ending.vcpu) == (Reason.SHUTDOWN, 0)
    assert ending.exits["Shutdown"] == 1


STARTS_A_SECOND = bytes.fromhex(  # 32-bit code, which reaches the local APIC without paging
    "c7 05 f0 00 e0 fe ff 01 00 00"  # mov dword [0xfee000f0], 0x1ff: switch the local APIC on
    "c7 05 10 03 e0 fe 00 00 00 01"  # mov dword [0xfee00310], 1 << 24: to APIC id 1
    "c7 05 00 03 e0 fe 00 45 00 00"  # mov dword [0xfee00300], 0x4500: INIT
    "c7 05 10 03 e0 fe 00 00 00 01"  # mov dword [0xfee00310], 1 << 24
    "c7 05 00 03 e0 fe 02 46 00 00"  # mov dword [0xfee00300], 0x4602: SIPI to 0x2000
    "f4"  # hlt: nothing will wake it
)


def test_a_second_vcpu_that_the_first_one_starts(machine: Make, bus: Bus) -> None:
    """With an irqchip HLT is no exit: only the second vCPU can end this."""
    attach_pc_devices(bus)
    vm = machine(STARTS_A_SECOND, POWERS_OFF, mode=arch.Protected32, irqchip=True)
    ending = serve(vm, bus, timeout=LATE)
    assert (ending.reason, ending.vcpu) == (Reason.POWER_OFF, 1)


# Guests that stand still, where interrupt controllers keep HLT from being an exit

STANDS_STILL = "every vCPU is halted with interrupts off"
SECOND_HALTS = bytes.fromhex("fa f4 eb fd")  # cli; 1: hlt; jmp 1b
SECOND_WAITS = WAITS


@pytest.fixture
def on_any(arch: AnyBackend) -> Iterator[Callable[..., Any]]:
    """Make a machine with interrupt controllers, each vCPU with code of its own, on any backend."""
    opened: list[Any] = []

    def make(*codes: bytes, mode: type[Entry] = RealMode) -> Any:
        memory = arch.GuestMemory(0x20000)
        opened.append(memory)
        vm = arch.Vm(memory, vcpus=len(codes), irqchip=True)
        opened.append(vm)
        for vcpu, code in zip(vm.vcpus, codes, strict=True):
            memory.write(0x1000 * (1 + vcpu.index), code)
        entry = mode(0x1000, rsp=0x8000)
        arch.configure_system(vm, entry)
        for vcpu in vm.vcpus:
            arch.configure_vcpu(vcpu, entry)
        return vm

    yield make
    for thing in reversed(opened):
        thing.close()


@pytest.mark.parametrize("vcpus", [1, 3])
def test_a_guest_that_nothing_can_wake(on_any: Callable[..., Any], bus: Bus, vcpus: int) -> None:
    """The others wait for the first to start them, which it never will."""
    vm = on_any(HALTS, *[b""] * (vcpus - 1))
    ending = serve(vm, bus, timeout=LATE)
    assert (ending.reason, ending.vcpu, ending.message) == (Reason.HALTED, None, STANDS_STILL)
    assert ending.exits == {}
    assert ending.seconds < LATE / 2
    activities = [vcpu.get_activity() for vcpu in vm.vcpus]
    assert activities == [Activity.HALTED_FOR_GOOD] + [Activity.NOT_STARTED] * (vcpus - 1)
    vm.vcpus[0].inject_nmi()
    assert vm.vcpus[0].get_activity() in (Activity.HALTED, Activity.RUNNING)  # for it is awake


def test_two_vcpus_that_nothing_can_wake(on_any: Callable[..., Any], bus: Bus) -> None:
    vm = on_any(STARTS_A_SECOND, SECOND_HALTS, mode=Protected32)
    ending = serve(vm, bus, timeout=LATE)
    assert (ending.reason, ending.message) == (Reason.HALTED, STANDS_STILL)
    assert [vcpu.get_activity() for vcpu in vm.vcpus] == [Activity.HALTED_FOR_GOOD] * 2


@pytest.mark.parametrize("second", [SECOND_WAITS, SPINS], ids=["waits", "spins"])
def test_one_vcpu_that_is_alive_keeps_the_guest_alive(
    on_any: Callable[..., Any], bus: Bus, second: bytes
) -> None:
    """It might wake the other one, by an NMI for instance."""
    vm = on_any(STARTS_A_SECOND, second, mode=Protected32)
    ending = serve(vm, bus, timeout=20 * SOON)
    assert ending.reason is Reason.TIMEOUT
    alive = Activity.HALTED if second is SECOND_WAITS else Activity.RUNNING
    assert [v.get_activity() for v in vm.vcpus] == [Activity.HALTED_FOR_GOOD, alive]


def test_a_guest_that_waits_for_an_interrupt_is_alive(on_any: Callable[..., Any], bus: Bus) -> None:
    vm = on_any(WAITS)
    ending = serve(vm, bus, timeout=20 * SOON)
    assert ending.reason is Reason.TIMEOUT
    assert set(ending.exits) <= {"Kicked"}
    assert vm.vcpus[0].get_activity() is Activity.HALTED


def test_a_device_that_is_slow_is_waited_for(on_any: Callable[..., Any], bus: Bus) -> None:
    """Also while the other vCPU is halted for good, and goes on meanwhile."""

    def work() -> int:
        time.sleep(20 * SOON)
        return 0

    bus.attach_ports(range(0x10, 0x11), Answers(work))
    attach_pc_devices(bus)
    vm = on_any(STARTS_A_SECOND, bytes.fromhex("e4 10") + POWERS_OFF, mode=Protected32)
    assert serve(vm, bus, timeout=LATE).reason is Reason.POWER_OFF


def test_what_cannot_be_looked_at_is_raised(
    on_any: Callable[..., Any], bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = on_any(HALTS)

    def fail(vcpu: Any) -> Activity:
        raise LookupError("no activity")

    monkeypatch.setattr(type(vm.vcpus[0]), "get_activity", fail)
    with pytest.raises(LookupError, match="no activity") as caught:
        serve(vm, bus, timeout=LATE)
    assert caught.value.__notes__ == [
        "This happened while checking whether every vCPU has halted for good."
    ]


# Guests that are ended


@pytest.mark.parametrize("vcpus", [1, 2])
def test_a_timeout_ends_a_guest_that_spins(machine: Make, bus: Bus, vcpus: int) -> None:
    ending = serve(machine(*[SPINS] * vcpus), bus, timeout=SOON)
    assert (ending.reason, ending.vcpu) == (Reason.TIMEOUT, None)
    assert SOON <= ending.seconds < LATE
    assert set(ending.exits) <= {"Kicked"}


def test_no_vcpu_spins_while_the_guest_does_nothing(machine: Make, bus: Bus) -> None:
    vm = machine(WAITS, b"", irqchip=True)
    before = time.process_time()
    ending = serve(vm, bus, timeout=15 * SOON)
    assert ending.reason is Reason.TIMEOUT
    assert set(ending.exits) <= {"Kicked"}
    assert time.process_time() - before < 2 * SOON


def test_a_guest_that_was_ended_can_be_served_on(machine: Make, bus: Bus) -> None:
    device = Answers()
    bus.attach_ports(range(0x10, 0x11), device)
    vm = machine(TELLS_FOREVER)
    for _ in range(3):
        told = len(device.written)
        assert serve(vm, bus, timeout=SOON).reason is Reason.TIMEOUT
        assert len(device.written) > told


@pytest.mark.parametrize("vcpus", [1, 2])
def test_another_thread_stops_the_guest(machine: Make, bus: Bus, vcpus: int) -> None:
    stopping = later(SOON, bus.stop)
    ending = serve(machine(*[SPINS] * vcpus), bus, timeout=LATE)
    stopping.join()
    assert (ending.reason, ending.vcpu) == (Reason.STOPPED, None)


def test_a_device_stops_the_guest(machine: Make, bus: Bus) -> None:
    def stop() -> int:
        bus.stop()
        return 0

    bus.attach_ports(range(0x10, 0x11), Answers(stop))
    ending = serve(machine(SPINS, ASKS_AND_HALTS), bus, timeout=LATE)
    assert (ending.reason, ending.vcpu) == (Reason.STOPPED, 1)
    assert ending.exits["IoIn"] == 1
    assert "Halt" not in ending.exits


def test_a_stop_that_comes_early_ends_the_next_guest_and_no_other(machine: Make, bus: Bus) -> None:
    vm = machine(HALTS)
    bus.stop()
    ending = serve(vm, bus, timeout=LATE)
    assert (ending.reason, ending.exits) == (Reason.STOPPED, {})
    assert serve(vm, bus, timeout=LATE).reason is Reason.HALTED


def test_a_signals_handler_stops_the_guest(machine: Make, bus: Bus) -> None:
    """It runs in the calling thread, while that one's vCPU is in the guest."""
    vm = machine(SPINS, SPINS)
    before = signal.signal(signal.SIGALRM, lambda number, frame: bus.stop())
    signal.setitimer(signal.ITIMER_REAL, SOON)
    try:
        ending = serve(vm, bus, timeout=LATE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (ending.reason, ending.vcpu) == (Reason.STOPPED, None)


def test_kicks_without_a_reason_change_nothing(machine: Make, bus: Bus) -> None:
    vm = machine(SPINS)
    noticed = threading.Semaphore(0)

    def kick() -> None:
        for _ in range(3):
            vm.vcpus[0].kick()
            assert noticed.acquire(timeout=LATE)
        bus.stop()

    kicking = later(SOON, kick)
    ending = serve(vm, bus, timeout=LATE, trace=lambda vcpu, exit: noticed.release())
    kicking.join()
    assert ending.reason is Reason.STOPPED
    assert ending.exits["Kicked"] >= 3


# Guests that are paused

COUNTS_AND_RESTS = bytes.fromhex("66 ff 06 00 80 eb f9")  # 1: inc dword [0x8000]; jmp 1b
COUNTS_TOO = bytes.fromhex("66 ff 06 04 80 eb f9")  # the same at 0x8004
SENDS_A_STRING = bytes.fromhex(
    "be 00 30 b9 40 00 ba 10 00"  # mov si, 0x3000; mov cx, 64; mov dx, 0x10
    "f3 6e f4"  # rep outsb; hlt
)


@pytest.fixture
def machine_of(arch: AnyBackend) -> Iterator[Callable[..., Any]]:
    """Make a machine without interrupt controllers, each vCPU with code of its own."""
    opened: list[Any] = []

    def make(*codes: bytes) -> Any:
        memory = arch.GuestMemory(0x10000)
        opened.append(memory)
        vm = arch.Vm(memory, vcpus=len(codes))
        opened.append(vm)
        for vcpu, code in zip(vm.vcpus, codes, strict=True):
            address = 0x1000 * (1 + vcpu.index)
            memory.write(address, code)
            arch.configure_vcpu(vcpu, RealMode(address))
        return vm

    yield make
    for thing in reversed(opened):
        thing.close()


def test_no_vcpu_runs_during_a_pause_and_all_go_on_afterwards(
    machine_of: Callable[..., Any], bus: Bus
) -> None:
    vm = machine_of(COUNTS_AND_RESTS, COUNTS_TOO)
    counted: list[bytes] = []
    states: list[Any] = []

    def look() -> None:
        counted.append(vm.memory.read(0x8000, 8))
        states.append(vm.save())
        time.sleep(SOON)
        assert vm.memory.read(0x8000, 8) == counted[-1]
        if len(counted) == 5:
            bus.stop()
        else:
            pauses.append(later(SOON, partial(bus.pause, look)))

    pauses = [later(SOON, partial(bus.pause, look))]
    ending = serve(vm, bus, timeout=LATE)
    for pause in pauses:
        pause.join()
    assert (ending.reason, ending.exits) == (Reason.STOPPED, {})
    for before, after in pairwise(counted):
        assert before[:4] != after[:4]
        assert before[4:] != after[4:]
    assert len(states) == len(counted) == 5


def test_an_instruction_is_complete_before_the_pause_whatever_it_accesses(
    machine_of: Callable[..., Any], bus: Bus
) -> None:
    """Its first access asks for the pause; the rest of the string goes out before."""
    written: list[int] = []
    seen: list[tuple[int, int]] = []
    vm = machine_of(SENDS_A_STRING)
    vm.memory.write(0x3000, bytes(range(64)))

    def look() -> None:
        regs = vm.vcpus[0].get_regs()
        seen.append((len(written), 64 - (regs.rcx & 0xFFFF)))

    class Asks(Answers):
        def write(self, offset: int, size: int, value: int) -> None:
            if not written:
                bus.pause(look)
            written.append(value)

    bus.attach_ports(range(0x10, 0x11), Asks())
    assert serve(vm, bus, timeout=LATE).reason is Reason.HALTED
    assert written == list(range(64))
    assert seen
    for sent, counted in seen:
        assert sent == counted


def test_a_signals_handler_pauses_the_guest(machine: Make, bus: Bus) -> None:
    vm = machine(SPINS, SPINS)
    before = signal.signal(signal.SIGALRM, lambda number, frame: bus.pause(bus.stop))
    signal.setitimer(signal.ITIMER_REAL, SOON)
    try:
        ending = serve(vm, bus, timeout=LATE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ending.reason is Reason.STOPPED


def test_a_pause_that_is_asked_for_early_is_the_next_guests(machine: Make, bus: Bus) -> None:
    vm = machine(SPINS, SPINS)
    called: list[int] = []
    bus.pause(partial(called.append, 1))
    bus.pause(partial(called.append, 2))
    assert serve(vm, bus, timeout=SOON).reason is Reason.TIMEOUT
    assert serve(vm, bus, timeout=SOON).reason is Reason.TIMEOUT
    assert called == [1, 2]


def test_a_guest_that_ends_before_is_not_paused(machine: Make, bus: Bus) -> None:
    """Nor is the next one."""
    called: list[int] = []

    def ask() -> int:
        bus.stop()
        bus.pause(partial(called.append, 1))
        return 0

    bus.attach_ports(range(0x10, 0x11), Answers(ask))
    assert serve(machine(SPINS, ASKS_AND_HALTS), bus, timeout=LATE).reason is Reason.STOPPED
    assert serve(machine(SPINS), bus, timeout=SOON).reason is Reason.TIMEOUT
    assert called == []


def test_a_vcpu_that_has_halted_is_not_waited_for(machine: Make, bus: Bus) -> None:
    halting = later(SOON, partial(bus.pause, bus.stop))
    assert serve(machine(HALTS, SPINS), bus, timeout=LATE).reason is Reason.STOPPED
    halting.join()


def test_a_vcpu_that_never_started_is_not_waited_for(machine: Make, bus: Bus) -> None:
    halting = later(SOON, partial(bus.pause, bus.stop))
    vm = machine(SPINS, b"", irqchip=True)
    assert serve(vm, bus, timeout=LATE).reason is Reason.STOPPED
    halting.join()


def test_a_pause_waits_for_a_device_that_works_and_ends_with_it(machine: Make, bus: Bus) -> None:
    """The other vCPU waits already when the guest ends instead."""
    called: list[int] = []

    def work() -> int:
        bus.pause(partial(called.append, 1))
        time.sleep(2 * SOON)
        bus.stop()
        return 0

    bus.attach_ports(range(0x10, 0x11), Answers(work))
    ending = serve(machine(SPINS, ASKS_AND_HALTS), bus, timeout=LATE)
    assert (ending.reason, called) == (Reason.STOPPED, [])


@pytest.mark.parametrize("codes", [(SPINS,), (SPINS, SPINS), (HALTS, SPINS)])
def test_what_is_raised_during_a_pause_is_raised_here(
    machine: Make, bus: Bus, codes: tuple[bytes, ...]
) -> None:
    def fail() -> None:
        raise LookupError("no such file")

    failing = later(SOON, partial(bus.pause, fail))
    with pytest.raises(LookupError, match="no such file"):
        serve(machine(*codes), bus, timeout=LATE)
    failing.join()


def test_no_pause_is_lost_while_vcpus_exit_all_the_time(machine: Make, bus: Bus) -> None:
    called: list[int] = []
    device = Answers()
    bus.attach_ports(range(0x10, 0x11), device)
    vm = machine(TELLS_FOREVER, TELLS_FOREVER, SPINS)

    def ask(first: int) -> None:
        for number in range(first, first + 100):
            bus.pause(partial(called.append, number))
            time.sleep(0.001)

    asking = [later(SOON, partial(ask, first)) for first in (0, 100)]

    def stop_afterwards() -> None:
        for thread in asking:
            thread.join()
        bus.pause(bus.stop)

    stopping = later(SOON, stop_afterwards)
    assert serve(vm, bus, timeout=LATE).reason is Reason.STOPPED
    stopping.join()
    assert sorted(called) == list(range(200))
    for first in (0, 100):
        assert [n for n in called if first <= n < first + 100] == list(range(first, first + 100))


# What is raised


@pytest.mark.parametrize("vcpu", [0, 1])
@pytest.mark.parametrize("code", [ASKS_AND_HALTS, TELLS_AND_HALTS])
def test_what_a_device_raises_is_raised_here(
    machine: Make, bus: Bus, vcpu: int, code: bytes
) -> None:
    bus.attach_ports(range(0x10, 0x11), Broken())
    codes = [SPINS, SPINS]
    codes[vcpu] = code
    with pytest.raises(LookupError, match="no such register") as caught:
        serve(machine(*codes), bus, timeout=LATE)
    access, who = caught.value.__notes__
    assert "port=0x10" in access
    assert who == f"This happened while vCPU {vcpu} was being served."


def test_an_error_while_the_guest_is_ended_is_not_lost(machine: Make, bus: Bus) -> None:
    def fail() -> int:
        bus.stop()
        raise LookupError("no such register")

    bus.attach_ports(range(0x10, 0x11), Answers(fail))
    with pytest.raises(LookupError, match="no such register"):
        serve(machine(SPINS, ASKS_AND_HALTS), bus, timeout=LATE)


def test_no_error_hides_another(machine: Make, bus: Bus) -> None:
    together = threading.Barrier(2)

    def fail() -> int:
        raise LookupError(f"number {together.wait(LATE)}")

    bus.attach_ports(range(0x10, 0x11), Answers(fail))
    with pytest.raises(LookupError) as caught:
        serve(machine(ASKS_AND_HALTS, ASKS_AND_HALTS), bus, timeout=LATE)
    first = int(str(caught.value).split()[1])
    assert caught.value.__notes__[-1] == f"There was also LookupError('number {1 - first}')."


def test_a_thread_that_cannot_be_started(
    machine: Make, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def start_some(thread: threading.Thread) -> None:
        if thread.name == "vCPU 2":
            raise RuntimeError("can't start new thread")
        start(thread)

    vm = machine(SPINS, SPINS, SPINS)
    monkeypatch.setattr(threading.Thread, "start", start_some)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        serve(vm, bus, timeout=LATE)


def test_the_bus_can_be_served_after_an_error(machine: Make, bus: Bus) -> None:
    bus.attach_ports(range(0x10, 0x11), Broken())
    with pytest.raises(LookupError):
        serve(machine(TELLS_AND_HALTS), bus, timeout=LATE)
    assert serve(machine(HALTS), bus, timeout=LATE).reason is Reason.HALTED


def test_what_a_trace_raises_is_raised_here(machine: Make, bus: Bus) -> None:
    def trace(vcpu: int, exit: Exit) -> None:
        raise LookupError("nobody traces this")

    with pytest.raises(LookupError, match="nobody traces this"):
        serve(machine(SPINS, HALTS), bus, timeout=LATE, trace=trace)


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Let SIGINT be Control-C, whatever the tests are run by."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("codes", [(SPINS, SPINS), (HALTS, SPINS)], ids=["running", "waiting"])
def test_keyboard_interrupt(machine: Make, bus: Bus, codes: tuple[bytes, ...]) -> None:
    """While the calling thread runs a vCPU, and while it waits for the others."""
    vm = machine(*codes)
    interrupting = later(SOON, partial(os.kill, os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        serve(vm, bus, timeout=LATE)
    interrupting.join()


@pytest.mark.usefixtures("interrupts")
def test_keyboard_interrupt_waits_for_a_device_that_works(machine: Make, bus: Bus) -> None:
    """Thread.join() would not, the second time."""
    done: list[bool] = []

    def work() -> int:
        time.sleep(SOON)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(2 * SOON)
        done.append(True)
        return 0

    bus.attach_ports(range(0x10, 0x11), Answers(work))
    vm = machine(HALTS, ASKS_AND_HALTS)
    with pytest.raises(KeyboardInterrupt):
        serve(vm, bus, timeout=LATE)
    assert done


def test_what_the_hypervisor_refuses_is_raised_here(machine: Make, bus: Bus) -> None:
    vm = machine(HALTS)
    vm.close()
    with pytest.raises(arch.VcpuError, match="its machine is closed"):
        serve(vm, bus, timeout=LATE)


def test_one_bus_serves_one_machine_at_a_time(machine: Make, bus: Bus) -> None:
    problems: list[str] = []
    other = machine(HALTS)

    def serve_another() -> int:
        try:
            serve(other, bus, timeout=LATE)
        except RuntimeError as error:
            problems.append(str(error))
        return 0

    bus.attach_ports(range(0x10, 0x11), Answers(serve_another))
    assert serve(machine(ASKS_AND_HALTS), bus, timeout=LATE).reason is Reason.HALTED
    assert problems == ["the bus is already being served: use one bus for each machine"]


# What is said


def test_a_trace_sees_each_exit_before_its_answer(machine: Make, bus: Bus) -> None:
    seen: list[tuple[int, str]] = []
    bus.attach_ports(range(0x10, 0x11), Answers())
    serve(
        machine(ASKS_AND_HALTS),
        bus,
        timeout=LATE,
        trace=lambda vcpu, exit: seen.append((vcpu, repr(exit))),
    )
    assert seen == [(0, "IoIn(port=0x10, size=1, count=1)"), (0, "Halt()")]


def test_an_ending_can_be_read() -> None:
    exits = {"IoOut": 30, "Halt": 1}
    assert str(Ending(Reason.RESET, 1, 0.25, exits)) == "reset by vCPU 1 after 0.250 s and 31 exits"
    assert str(Ending(Reason.FAILED, 0, 2, {}, "why")) == (
        "failed by vCPU 0 after 2.000 s and 0 exits: why"
    )
    assert str(Ending(Reason.TIMEOUT, None, 1, exits)) == "timeout after 1.000 s and 31 exits"


# Any hypervisor's exits: a vCPU that makes those it is given


def failure() -> Failure:
    failed = Failure()
    failed.operation, failed.code, failed.message = "run", "BAD", "cannot"
    return failed


def other_exit() -> OtherExit:
    return OtherExit(99, "AN_EXIT")


@pytest.mark.parametrize(
    ("exit", "reason", "message"),
    [
        (SystemEvent(9), Reason.SYSTEM_EVENT, "SystemEvent(kind=9)"),
        (SystemEvent(2, Reason.RESET), Reason.RESET, "SystemEvent(kind=2, reason='reset')"),
        (failure(), Reason.FAILED, "run: BAD: cannot"),
        (other_exit(), Reason.FAILED, "unhandled exit OtherExit(reason=AN_EXIT)"),
    ],
    ids=["system event", "reset", "failure", "other exit"],
)
def test_exits_that_end_a_guest(bus: Bus, exit: Exit, reason: Reason, message: str) -> None:
    exits: list[Exit] = [Kicked(), EndOfInterrupt(), exit, Kicked()]
    vm = ScriptedMachine([ScriptedVcpu(exits)])
    ending = serve(vm, bus)
    assert (ending.reason, ending.vcpu, ending.message) == (reason, 0, message)
    assert ending.exits == {"Kicked": 1, "EndOfInterrupt": 1, type(exit).__name__: 1}


def test_a_vcpu_that_cannot_run_is_not_kicked(bus: Bus) -> None:
    with pytest.raises(IndexError, match="pop from empty list"):
        serve(ScriptedMachine([ScriptedVcpu([])]), bus)


# A serial console


POLLS_AND_ECHOES = bytes.fromhex(
    "ba fd 03"  # next: mov dx, 0x3fd
    "ec"  # wait: in al, dx
    "a8 01"  # test al, 1: received?
    "74 fb"  # jz wait
    "ba f8 03"  # mov dx, 0x3f8
    "ec"  # in al, dx
    "ee"  # out dx, al
    "3c 0a"  # cmp al, '\n'
    "75 ef"  # jne next
    "f4"  # hlt
)


def test_a_guest_that_polls_its_serial_port(machine: Make, bus: Bus) -> None:
    sent = bytearray()
    serial = Serial16550(sent.extend)
    bus.attach_ports(SERIAL_PORTS, serial)
    typing = later(SOON, lambda: serial.receive(b"hello, guest\nnot read"))
    ending = serve(machine(POLLS_AND_ECHOES), bus, timeout=LATE)
    typing.join()
    assert ending.reason is Reason.HALTED
    assert sent == b"hello, guest\n"


# Sends its text by one interrupt for each character, then echoes one that it receives likewise.
INTERRUPTED = (
    bytes.fromhex(
        "fa"  # cli
        "c7 06 90 00 2e 10"  # mov word [4 * 0x24], sender
        "c7 06 92 00 00 00"  # mov word [4 * 0x24 + 2], 0
        "b0 11 e6 20"  # mov al, 0x11; out 0x20, al: the 8259A is edge-triggered, ICW4 follows
        "b0 20 e6 21"  # mov al, 0x20; out 0x21, al: its vectors begin at 0x20
        "b0 04 e6 21"  # mov al, 4; out 0x21, al: the other one is at line 2
        "b0 01 e6 21"  # mov al, 1; out 0x21, al: 8086
        "b0 ef e6 21"  # mov al, 0xef; out 0x21, al: line 4 only
        "be 56 10"  # mov si, text
        "ba f9 03"  # mov dx, 0x3f9
        "b0 02 ee"  # mov al, 2; out dx, al: interrupts of the transmitter
        "fb"  # sti
        "f4"  # idle: hlt
        "eb fd"  # jmp idle
        "ac"  # sender: lodsb
        "84 c0"  # test al, al
        "74 09"  # jz last
        "ba f8 03"  # mov dx, 0x3f8
        "ee"  # out dx, al
        "b0 20 e6 20"  # done: mov al, 0x20; out 0x20, al: the end of the interrupt
        "cf"  # iret
        "c7 06 90 00 4a 10"  # last: mov word [4 * 0x24], receiver
        "ba f9 03"  # mov dx, 0x3f9
        "b0 01 ee"  # mov al, 1; out dx, al: interrupts of the receiver instead
        "eb ed"  # jmp done
        "ba f8 03"  # receiver: mov dx, 0x3f8
        "ec ee"  # in al, dx; out dx, al
        "b0 34"  # mov al, 0x34
        "ba 00 06 ee"  # mov dx, 0x600; out dx, al: power off
        "f4"  # hlt
    )
    + b"interrupts work\n\0"
)


def test_a_guest_whose_serial_port_interrupts(machine: Make, bus: Bus) -> None:
    """On the real 8259A of the hypervisor, which is edge-triggered as in a PC."""
    vm = machine(INTERRUPTED, irqchip=True)
    sent = bytearray()
    serial = Serial16550(sent.extend, partial(vm.set_irq_line, SERIAL_LINE))
    bus.attach_ports(SERIAL_PORTS, serial)
    attach_pc_devices(bus)
    typing = later(5 * SOON, lambda: serial.receive(b"!"))
    ending = serve(vm, bus, timeout=LATE)
    typing.join()
    assert sent == b"interrupts work\n!"
    assert ending.reason is Reason.POWER_OFF


# Sends each character on, which an interrupt brings.
SENDS_ON = bytes.fromhex(
    "fa"  # cli
    "c7 06 90 00 2b 10"  # mov word [4 * 0x24], receiver
    "c7 06 92 00 00 00"  # mov word [4 * 0x24 + 2], 0
    "b0 11 e6 20 b0 20 e6 21 b0 04 e6 21 b0 01 e6 21 b0 ef e6 21"  # the 8259A, as above
    "ba f9 03 b0 01 ee"  # mov dx, 0x3f9; mov al, 1; out dx, al: interrupts of the receiver
    "fb f4 eb fd"  # sti; idle: hlt; jmp idle
    "ba f8 03 ec e6 10"  # receiver: mov dx, 0x3f8; in al, dx; out 0x10, al
    "b0 20 e6 20 cf"  # mov al, 0x20; out 0x20, al; iret
)


def test_nothing_that_is_typed_is_lost_while_a_machine_is_saved_and_restored(
    machine: Make, bus: Bus
) -> None:
    """Nor comes twice: no interrupt line moves between the state of devices and machine."""
    device = Answers()
    bus.attach_ports(range(0x10, 0x11), device)
    vm = machine(SENDS_ON, irqchip=True)
    serial = Serial16550(lambda data: None, partial(vm.set_irq_line, SERIAL_LINE))
    bus.attach_ports(SERIAL_PORTS, serial)
    saves: list[int] = []
    typed = 400

    def save_and_restore() -> None:
        with bus.held():
            state, devices = vm.save(), serial.save()
            time.sleep(0.001)  # in which a character comes
            vm.restore(state)
            serial.restore(devices)
        saves.append(len(device.written))

    def type_all() -> None:
        for number in range(typed):
            serial.receive(bytes([number & 0xFF]))
            if number % 8 == 0:
                bus.pause(save_and_restore)
            time.sleep(0.0005)
        end = time.monotonic() + LATE
        while len(device.written) < typed and time.monotonic() < end:
            time.sleep(SOON)
        bus.stop()

    typing = later(SOON, type_all)
    serve(vm, bus, timeout=2 * LATE)
    typing.join()
    assert device.written == [number & 0xFF for number in range(typed)]
    assert len(saves) > 10


def test_a_thread_whose_start_was_interrupted_is_waited_for() -> None:
    """KeyboardInterrupt may come in start() itself, before the thread has its number."""
    ended = threading.Event()

    def run() -> None:
        time.sleep(0.05)
        ended.set()

    thread = threading.Thread(target=run)
    begins = threading.Timer(0.05, thread.start)
    begins.start()
    _join(thread)
    assert ended.is_set()
    begins.join()
    _join(threading.Thread())  # one that never begins
