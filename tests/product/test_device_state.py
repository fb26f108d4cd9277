"""Devices' own state: saved, restored into others that then behave the same, and checked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmm_arch.devices.serial import Serial16550
from vmm_arch.devices.state import FLAG, Bytes, Choice, Field, Fields, Number, Stateless
from vmm_arch.errors import StateError
from vmm_arch.x86_64.bus import Bus
from vmm_arch.x86_64.platform.pc import Cmos, DebugExit, DebugPort, ResetControl, attach_pc_devices

NOW = time.struct_time((2023, 12, 31, 23, 59, 58, 6, 365, 0))


class Port:
    """A serial port, and everything that comes out of it."""

    def __init__(self, waits: bool) -> None:
        self.told: list[Any] = []
        self.uart = Serial16550(self.told.append, self.told.append, wait_for_listener=waits)

    def do(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("read", register, size):
                self.told.append(self.uart.read(register, size))
            case ("write", register, size, value):
                self.uart.write(register, size, value)
            case ("receive", data):
                self.uart.receive(data)


REGISTER = st.integers(0, 7)
SIZE = st.sampled_from([1, 1, 1, 1, 2, 4])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), REGISTER, SIZE),
        st.tuples(st.just("write"), REGISTER, SIZE, st.integers(0, 0xFFFF_FFFF)),
        # The bits that matter most: interrupts on and off, FIFOs on and off, loopback.
        st.tuples(st.just("write"), st.just(1), st.just(1), st.integers(0, 0xF)),
        st.tuples(st.just("write"), st.just(2), st.just(1), st.sampled_from([0, 1, 3, 0x41, 0xC1])),
        st.tuples(st.just("write"), st.just(4), st.just(1), st.sampled_from([0, 0xB, 0x10])),
        st.tuples(st.just("write"), st.just(0), st.just(1), st.integers(0, 0xFF)),
        st.tuples(st.just("receive"), st.binary(max_size=20)),
    ),
    max_size=40,
)


@given(before=STEPS, after=STEPS, waits=st.booleans(), others=STEPS)
def test_a_serial_port_goes_on_in_another_one(
    before: list[Any], after: list[Any], waits: bool, others: list[Any]
) -> None:
    """Whatever happened to either, and whatever happens then."""
    one, other = Port(waits), Port(waits)
    for step in before:
        one.do(step)
    for step in others:
        other.do(step)
    one.told.clear()
    other.told.clear()
    other.uart.restore(json.loads(json.dumps(one.uart.save())))
    assert other.told == []
    for step in after:
        one.do(step)
        other.do(step)
    assert one.told == other.told
    assert one.uart.save() == other.uart.save()


@given(
    accesses=st.lists(st.tuples(st.integers(0, 1), st.sampled_from([1, 2]), st.integers(0, 0xFFFF)))
)
def test_the_clocks_memory_goes_on_in_another_one(accesses: list[tuple[int, int, int]]) -> None:
    one, other = Cmos(lambda: NOW), Cmos(lambda: NOW)
    for offset, size, value in accesses:
        one.write(offset, size, value)
    other.restore(json.loads(json.dumps(one.save())))
    for index in range(128):
        assert one.read(1, 1) == other.read(1, 1)
        one.write(0, 1, index)
        other.write(0, 1, index)
    assert one.save() == other.save()


def test_the_kind_of_reset_goes_on_in_another_one() -> None:
    one, other = ResetControl(print), ResetControl(print)
    one.write(0, 1, 0x0A)
    other.restore(one.save())
    assert other.read(0, 1) == 0x0A


# All devices of a bus


def pc() -> tuple[Bus, Serial16550]:
    """A bus as ``vmm-arch run`` has it."""
    bus = Bus()
    serial = Serial16550(lambda data: None)
    bus.attach_ports(range(0x3F8, 0x400), serial)
    attach_pc_devices(bus, now=lambda: NOW)
    bus.attach_ports(range(0xF4, 0xF5), DebugExit(lambda reason, code: None))
    bus.attach_ports(range(0xE9, 0xEA), DebugPort(lambda data: None))
    return bus, serial


def test_a_bus_saves_its_devices_by_name_and_place() -> None:
    bus, serial = pc()
    bus.attach_memory(range(0xD000_0000, 0xD000_0008), Serial16550(lambda data: None))
    serial.write(7, 1, 0x5A)
    serial.receive(b"typed")
    saved = bus.save()
    assert saved["Serial16550 at ports [0x3f8, 0x400)"]["scr"] == 0x5A
    assert saved["Serial16550 at ports [0x3f8, 0x400)"]["incoming"] == b"yped".hex()
    assert saved["Serial16550 at addresses [0xd0000000, 0xd0000008)"]["scr"] == 0
    assert saved["ResetControl at ports [0xcf9, 0xcfa)"] == {"value": 0}
    assert saved["AbsentPit at ports [0x40, 0x44)"] == {}
    assert len(saved) == 10


def test_another_bus_takes_them_over() -> None:
    bus, serial = pc()
    serial.write(1, 1, 0x5)
    serial.receive(b"typed")
    other, its_serial = pc()
    other.restore(json.loads(json.dumps(bus.save())))
    assert other.save() == bus.save()
    assert its_serial.read(1, 1) == 0x5
    assert its_serial.waiting == 5


def test_everything_that_does_not_fit_is_said_and_nothing_is_changed() -> None:
    bus, _ = pc()
    saved = bus.save()
    serial = saved["Serial16550 at ports [0x3f8, 0x400)"]
    serial |= {"scr": 0x100, "irq": 1, "fifo": "00" * 17, "trigger": 5, "extra": None}
    del serial["lcr"]
    saved["Cmos at ports [0x70, 0x72)"] = {"index": True, "memory": "00" * 127}
    del saved["AbsentPit at ports [0x40, 0x44)"]
    saved["ResetControl at ports [0xcf9, 0xcfa)"] = {"value": 0x2}
    saved["Sound at ports [0x220, 0x230)"] = {}
    other, its_serial = pc()
    its_serial.write(7, 1, 0x77)
    before = other.save()
    with pytest.raises(StateError) as caught:
        other.restore(saved)
    port, cmos = "Serial16550 at ports [0x3f8, 0x400)", "Cmos at ports [0x70, 0x72)"
    assert sorted(caught.value.problems) == sorted(
        [
            f"{port}: scr: expected an unsigned 8-bit number, got 256",
            f"{port}: irq: expected true or false, got 1",
            f"{port}: fifo: expected at most 16 bytes in hexadecimal digits, got '{'0' * 34}'",
            f"{port}: trigger: expected one of 1, 4, 8, 14, got 5",
            f"{port}: extra: no such entry",
            f"{port}: lcr: missing",
            f"{cmos}: index: expected an unsigned 7-bit number, got True",
            f"{cmos}: memory: expected 128 bytes in hexadecimal digits, got '{'0' * 39}",
            "AbsentPit at ports [0x40, 0x44): the state does not have this device",
            "Sound at ports [0x220, 0x230): this bus has no such device",
        ]
    )
    assert other.save() == before


@pytest.mark.parametrize("saved", [None, [], 5, "text", {"Cmos": []}])
def test_what_is_no_state_of_devices_is_refused(saved: Any) -> None:
    bus, _ = pc()
    before = bus.save()
    with pytest.raises(StateError):
        bus.restore(saved)
    with pytest.raises(StateError):
        bus.restore(dict.fromkeys(before, saved) | {"Cmos at ports [0x70, 0x72)": saved})
    assert bus.save() == before


VALUES = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    st.text("0123456789abcdef", max_size=300),
    st.lists(st.integers(), max_size=3),
)


@given(data=st.data())
def test_a_state_from_outside_is_taken_over_or_refused_whole(data: st.DataObject) -> None:
    bus, serial = pc()
    saved = bus.save()
    places = [(name, key) for name, state in saved.items() for key in state]
    for name, key in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=3)):
        saved[name][key] = data.draw(VALUES)
    before = bus.save()
    try:
        bus.restore(saved)
    except StateError:
        assert bus.save() == before
        return
    port = saved["Serial16550 at ports [0x3f8, 0x400)"]
    port["polls"] = min(port["polls"], 8)  # more make no difference
    assert bus.save() == saved
    for register in (4, 2, 5, 0, 1, 0):  # and it is a port like any other
        serial.read(register, 1)
        serial.write(register, 1, 0x11)


class Forgetful:
    """A device that cannot be saved."""

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        pass


def test_a_device_that_cannot_be_saved_is_named() -> None:
    bus, _ = pc()
    bus.attach_memory(range(0x1000, 0x2000), Forgetful())
    lacks = (
        "Forgetful at addresses [0x1000, 0x2000): it has no STATE and no save and no restore;"
        " a device without a state inherits them from Stateless (vmm_arch.devices.state)"
    )
    for attempt in (bus.save, lambda: bus.restore({})):
        with pytest.raises(StateError) as caught:
            attempt()
        assert caught.value.problems == (lacks,)


class Particular(Forgetful, Stateless):
    """A device that has a condition beside its table."""

    STATE: ClassVar[Fields] = {"even": Number(8)}
    even = 0

    def save(self) -> dict[str, Any]:
        return {"even": self.even}

    def restore(self, state: Mapping[str, Any]) -> None:
        if state["even"] % 2:
            raise StateError("restore", ["Particular: even: it is odd"])
        self.even = state["even"]


def test_a_device_that_refuses_at_last_leaves_the_others_as_they_were() -> None:
    bus, serial = pc()
    bus.attach_ports(range(0x10, 0x11), Particular())
    serial.write(7, 1, 0x77)
    before = bus.save()
    saved = bus.save()
    saved["Serial16550 at ports [0x3f8, 0x400)"]["scr"] = 1
    saved["Particular at ports [0x10, 0x11)"] = {"even": 3}
    with pytest.raises(StateError, match="it is odd"):
        bus.restore(saved)
    assert bus.save() == before


def test_other_threads_are_kept_out_while_the_devices_are_held() -> None:
    """So that no interrupt line moves between saving the machine and saving its devices."""
    bus, serial = pc()
    lines: list[bool] = []
    typed = threading.Thread(target=serial.receive, args=(b"x",))
    with bus.held():
        typed.start()
        time.sleep(0.05)
        assert serial.waiting == 0
        assert bus.save() == pc()[0].save()
    typed.join()
    assert serial.waiting == 1
    assert lines == []


@pytest.mark.parametrize(
    ("field", "text"),
    [
        (Number(5), "an unsigned 5-bit number"),
        (Choice((1, 4)), "one of 1, 4"),
        (FLAG, "true or false"),
        (Bytes(), "any number of bytes in hexadecimal digits"),
        (Bytes(2, 2), "2 bytes in hexadecimal digits"),
        (Bytes(0, 2), "at most 2 bytes in hexadecimal digits"),
        (Bytes(1, 2), "1 to 2 bytes in hexadecimal digits"),
    ],
)
def test_a_field_says_what_it_accepts(field: Field, text: str) -> None:
    assert str(field) == text
