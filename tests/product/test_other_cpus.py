"""Neutral code with a CPU that has no ports and no MSRs: devices in memory, calls to its firmware."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias, final

import pytest
from scripted import ScriptedMachine, ScriptedVcpu
from vmm_arch.devices import bus
from vmm_arch.devices.bus import Routes
from vmm_arch.ending import Reason
from vmm_arch.exits import CommonExit, MmioRead, MmioWrite, SystemEvent
from vmm_arch.serve import serve

DEVICE = range(0x900_0000, 0x900_1000)


@final
class FirmwareCall:
    """A call as SMCCC and the SBI have them: a function, and results in two registers."""

    __slots__ = ("function", "results")
    __match_args__ = ("function",)

    def __init__(self, function: int) -> None:
        self.function = function
        self.results: tuple[int, int] | None = None

    def complete(self, error: int, value: int = 0) -> None:
        """Return to the guest."""
        self.results = error, value

    def ignore(self) -> None:
        """Return that there is no such function."""
        self.complete(-1)


Exit: TypeAlias = CommonExit | FirmwareCall


class Bus(bus.Bus):
    """A bus that answers calls as well."""

    def _answer_call(self, call: FirmwareCall) -> bool:
        if call.function != 1:
            return False
        call.complete(0, 7)
        return True

    _ROUTES: ClassVar[Routes] = {**bus.Bus._ROUTES, FirmwareCall: _answer_call}


@dataclass
class Register:
    """A device with one register."""

    value: int = 0

    def read(self, offset: int, size: int) -> int:
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        self.value = value


@dataclass
class Answers:
    """What the guest was answered."""

    given: list[bytes] = field(default_factory=list)

    def read(self, address: int) -> MmioRead:
        exit = MmioRead(lambda _, data: self.given.append(data))
        exit.address, exit.size, exit.count = address, 4, 1
        return exit


def written(address: int, data: bytes) -> MmioWrite:
    exit = MmioWrite()
    exit.address, exit.data = address, data
    return exit


def test_a_guest_with_devices_in_memory_and_firmware() -> None:
    answers, device, served = Answers(), Register(), Bus()
    served.attach_memory(DEVICE, device)
    known, unknown = FirmwareCall(1), FirmwareCall(2)
    exits: list[Exit] = [
        written(DEVICE.start, b"\1\2\3\4"),
        answers.read(DEVICE.start),
        answers.read(DEVICE.stop),
        known,
        unknown,
        SystemEvent(1, Reason.POWER_OFF),
    ]
    seen: list[Exit] = []

    def trace(vcpu: int, exit: Exit) -> None:
        seen.append(exit)

    ending = serve(ScriptedMachine([ScriptedVcpu(exits)]), served, trace=trace)
    assert (ending.reason, ending.code) == (Reason.POWER_OFF, 1)
    assert answers.given == [b"\1\2\3\4", b"\xff" * 4]
    assert (known.results, unknown.results) == ((0, 7), (-1, 0))
    assert len(seen) == 6


def test_a_bus_hands_back_what_is_no_access_of_its_cpu() -> None:
    assert not bus.Bus().handle(FirmwareCall(1))
    with pytest.raises(AttributeError):
        bus.Bus().attach_ports  # type: ignore[attr-defined]  # noqa: B018
