"""Two busy vCPUs are saved again and again, and go on in new machines: nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from struct import unpack
from threading import Lock, Timer
from typing import Any, ClassVar, Final

from vmm_arch.devices.state import FLAG, Fields, Number, check
from vmm_arch.ending import Reason
from vmm_arch.selftest.harness import ScenarioFailed
from vmm_arch.selftest.x86_64.harness import AnyVm, Guest, Machine
from vmm_arch.serve import serve
from vmm_arch.x86_64.bus import Bus
from vmm_arch.x86_64.entry import Protected32

MACHINE = Machine(Protected32(0x10000), vcpus=2, irqchip=True)
ROUNDS: Final = 12
TIME: Final = 0.004
"""Seconds between two saves that a clock asks for; less than between two ticks of the guest's."""
WORDS: Final = 5
"""Words of the guest's between two saves that the device asks for."""
PATIENCE: Final = 20.0
COUNTS: Final = 0x30000
"""Where the guest has its counts; guest-physical."""
LINE: Final = 5
PORTS: Final = range(0x10, 0x1C)


LATE: Final = 200
"""In how many rounds each count has to grow; a busy host may leave one of the vCPUs little time."""


@dataclass(frozen=True)
class Counts:
    """What the guest has counted."""

    backwards: int
    clock: int
    sent: int
    taken: int
    misnumbered: int
    first_rounds: int
    first_ticks: int
    first_words: int
    numbers: int
    second_rounds: int
    second_ticks: int
    second_words: int

    @classmethod
    def of(cls, vm: AnyVm) -> Counts:
        return cls(*unpack("<4xIQIII4x4I16x3I", vm.memory.read(COUNTS, 0x4C)))


GROWING: Final = [
    name for name in Counts.__annotations__ if name not in ("backwards", "misnumbered")
]


class Device:
    """Takes the words of both vCPUs, which have to come in order, and interrupts the first one."""

    STATE: ClassVar[Fields] = {
        **dict.fromkeys(("first", "second", "numbers"), Number(32)),
        "raised": FLAG,
    }

    def __init__(self, set_line: Callable[[bool], object], word: Callable[[], object]) -> None:
        self._set_line = set_line
        self._word = word
        self._lock = Lock()
        self.first = 0
        self.second = 0
        self.numbers = 0
        """How often it has interrupted."""
        self.raised = False

    def read(self, offset: int, size: int) -> int:
        with self._lock:
            self.raised = False
            self._set_line(False)
            return self.numbers

    def write(self, offset: int, size: int, value: int) -> None:
        with self._lock:
            name = "second" if offset else "first"
            if value != getattr(self, name) + 1:
                raise ScenarioFailed(
                    f"word {value} of the {name} vCPU came after {getattr(self, name)}"
                )
            setattr(self, name, value)
            if name == "first" and value % 3 == 0 and not self.raised:
                self.numbers += 1
                self.raised = True
                self._set_line(True)
        self._word()

    def save(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.STATE}

    def restore(self, state: Mapping[str, Any]) -> None:
        check(self, state)
        for name, value in state.items():
            setattr(self, name, value)


def scenario(guest: Guest) -> None:
    save_again_and_again(guest.vm, ROUNDS)


def save_again_and_again(vm: AnyVm, rounds: int) -> Counts:
    """Save a machine so many times, each time going on in a new one, and close the last one.

    Half of the saves come when a clock says so, the other half in the middle of an exit. There are
    more of them if some of the guest's counts did not grow in the second half.
    """
    saved: Any = None
    counts = Counts.of(vm)
    grew = dict.fromkeys(vars(counts), 0)
    """For each count the last round in which it grew."""
    number = 0
    try:
        while number < rounds or min(map(grew.__getitem__, GROWING)) < rounds // 2:
            number += 1
            saved = run_and_save(vm, saved, at_a_word=number % 2 == 0)
            earlier, counts = counts, Counts.of(vm)
            agrees(counts, earlier, saved)
            for name in GROWING:
                if getattr(counts, name) > getattr(earlier, name):
                    grew[name] = number
                elif number - grew[name] > LATE:
                    raise ScenarioFailed(f"{name} has stopped {LATE} rounds ago: {counts}")
            vm.close()  # before the next one is made: some hypervisors have one at a time
            vm = saved.fork()
            saved.close()
        return counts
    finally:
        vm.close()


def run_and_save(vm: AnyVm, saved: Any, *, at_a_word: bool) -> Any:
    """Run the machine for a while, and return a snapshot."""
    taken: list[Any] = []
    words = 0

    def save() -> None:
        with bus.held():
            taken.append(vm.take_snapshot(devices=bus.save()))
        bus.stop()

    def word() -> None:
        nonlocal words
        words += 1
        if words == WORDS and at_a_word:
            bus.pause(save)

    bus = Bus()
    bus.attach_ports(PORTS, Device(partial(vm.set_irq_line, LINE), word))
    if saved is not None:
        bus.restore(saved.devices)
    with asking(None if at_a_word else partial(bus.pause, save)):
        ending = serve(vm, bus, timeout=PATIENCE)
    if ending.reason is not Reason.STOPPED:
        raise ScenarioFailed(f"the guest ended: {ending}; {Counts.of(vm)}")
    return taken[0]


@contextmanager
def asking(call: Callable[[], object] | None) -> Iterator[None]:
    """Call a function after a while, unless it is None."""
    if call is None:
        yield
        return
    timer = Timer(TIME, call)
    timer.start()
    yield
    timer.join()


def agrees(counts: Counts, earlier: Counts, saved: Any) -> None:
    """Fail if counts contradict each other, or the device's."""
    (device,) = saved.devices.values()
    for what, right in {
        "clocks in order, as on any host whose kernel calls its TSC stable": counts.backwards == 0
        and counts.clock >= earlier.clock,
        "the device's numbers in order": counts.misnumbered == 0,
        "interrupts between vCPUs": counts.sent - counts.taken in (0, 1),
        # A word is counted before it is sent, and a number after it was read.
        "words of vCPU 0": counts.first_words - device["first"] in (0, 1),
        "words of vCPU 1": counts.second_words - device["second"] in (0, 1),
        "the device's interrupts": device["numbers"] - counts.numbers in (0, 1),
    }.items():
        if not right:
            raise ScenarioFailed(f"{what}: {counts}, the device has {device}")
