"""The bus: which access goes to which device, what nobody answers, and what cannot be attached."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vmm_arch.ending import Reason
from vmm_arch.exits import (
    Failure,
    Halt,
    Kicked,
    MmioRead,
    MmioWrite,
    OtherExit,
    Shutdown,
    SystemEvent,
)
from vmm_arch.x86_64.bus import Access, Bus
from vmm_arch.x86_64.exits import EndOfInterrupt, Exit, InterruptWindow, IoIn, IoOut, MsrRead


class Recorder:
    """A device that notes each access, and gives one value after the other."""

    def __init__(self, values: Iterable[int] = ()) -> None:
        self.values = iter(values)
        self.accesses: list[tuple[int, ...]] = []

    def read(self, offset: int, size: int) -> int:
        self.accesses.append((offset, size))
        return next(self.values, 0)

    def write(self, offset: int, size: int, value: int) -> None:
        self.accesses.append((offset, size, value))


class Broken:
    """A device that cannot do anything."""

    def read(self, offset: int, size: int) -> int:
        raise RuntimeError("out of order")

    def write(self, offset: int, size: int, value: int) -> None:
        raise RuntimeError("out of order")


class Guest:
    """Makes accesses as a vCPU's exits show them, and keeps the answers."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.answers: list[bytes] = []

    def reads_port(self, port: int, size: int, count: int = 1) -> bytes:
        exit = IoIn(lambda _, data: self.answers.append(data))
        exit.port, exit.size, exit.count = port, size, count
        assert self.bus.handle(exit)
        return self.answers.pop()

    def writes_port(self, port: int, data: bytes, size: int | None = None) -> None:
        exit = IoOut()
        exit.port, exit.size, exit.data = port, size or len(data), data
        exit.count = len(data) // exit.size
        assert self.bus.handle(exit)

    def reads_memory(self, address: int, size: int) -> bytes:
        exit = MmioRead(lambda _, data: self.answers.append(data))
        exit.address, exit.size, exit.count = address, size, 1
        assert self.bus.handle(exit)
        return self.answers.pop()

    def writes_memory(self, address: int, data: bytes) -> None:
        exit = MmioWrite()
        exit.address, exit.data = address, data
        assert self.bus.handle(exit)


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def guest(bus: Bus) -> Guest:
    return Guest(bus)


# Accesses to devices


def test_a_port_is_an_offset_in_its_devices_range(bus: Bus, guest: Guest) -> None:
    device = Recorder([0x5A, 0x1234])
    bus.attach_ports(range(0x3F8, 0x400), device)
    assert guest.reads_port(0x3F8, 1) == b"\x5a"
    assert guest.reads_port(0x3FF, 2) == b"\x34\x12"
    guest.writes_port(0x3FB, b"\x83")
    guest.writes_port(0x3F8, b"\x01\x00\x02\x00")
    assert device.accesses == [(0, 1), (7, 2), (3, 1, 0x83), (0, 4, 0x20001)]


def test_an_address_is_an_offset_in_its_devices_range(bus: Bus, guest: Guest) -> None:
    device = Recorder([0x0807060504030201, 0xFF])
    bus.attach_memory(range(0xD000_0000, 0xD000_1000), device)
    assert guest.reads_memory(0xD000_0000, 8) == bytes(range(1, 9))
    assert guest.reads_memory(0xD000_0FFF, 1) == b"\xff"
    guest.writes_memory(0xD000_0010, b"\x78\x56\x34\x12")
    assert device.accesses == [(0, 8), (0xFFF, 1), (0x10, 4, 0x12345678)]


def test_ports_and_addresses_are_two_spaces(bus: Bus, guest: Guest) -> None:
    ports, memory = Recorder([1]), Recorder([2])
    bus.attach_ports(range(0x10, 0x20), ports)
    bus.attach_memory(range(0x10, 0x20), memory)
    assert guest.reads_port(0x10, 1) == b"\1"
    assert guest.reads_memory(0x10, 1) == b"\2"


def test_one_device_may_have_several_ranges(bus: Bus, guest: Guest) -> None:
    device = Recorder([1, 2, 3])
    bus.attach_ports(range(0x60, 0x61), device)
    bus.attach_ports(range(0x64, 0x65), device)
    bus.attach_memory(range(0x64, 0x65), device)
    got = [guest.reads_port(0x60, 1), guest.reads_port(0x64, 1), guest.reads_memory(0x64, 1)]
    assert got == [b"\1", b"\2", b"\3"]


def test_strings_of_values_go_one_by_one_to_the_same_port(bus: Bus, guest: Guest) -> None:
    device = Recorder([0x0201, 0x0403, 0x0605])
    bus.attach_ports(range(0x1F0, 0x1F8), device)
    assert guest.reads_port(0x1F0, 2, count=3) == bytes(range(1, 7))
    guest.writes_port(0x1F0, b"\x11\x22\x33\x44", size=2)
    assert device.accesses == [(0, 2)] * 3 + [(0, 2, 0x2211), (0, 2, 0x4433)]


@pytest.mark.parametrize("value", [-1, 0x1FF, 0xABCD00FF])
def test_what_a_device_gives_is_cut_to_the_size(bus: Bus, guest: Guest, value: int) -> None:
    bus.attach_ports(range(0x10, 0x11), Recorder([value] * 3))
    bus.attach_memory(range(0x10, 0x11), Recorder([value]))
    assert guest.reads_port(0x10, 1) == b"\xff"
    assert guest.reads_port(0x10, 1, count=2) == b"\xff\xff"
    assert guest.reads_memory(0x10, 1) == b"\xff"


def test_the_first_byte_decides_whose_access_it_is(bus: Bus, guest: Guest) -> None:
    """PCI's 32-bit port 0xCF8 has the reset control, a port of its own, amidst its bytes."""
    pci, reset = Recorder([0]), Recorder()
    bus.attach_ports(range(0xCF8, 0xCF9), pci)
    bus.attach_ports(range(0xCF9, 0xCFA), reset)
    guest.writes_port(0xCF8, b"\0\6\0\x80")
    assert pci.accesses == [(0, 4, 0x80000600)]
    assert reset.accesses == []


# Accesses that nobody answers


def test_an_empty_bus_reads_all_ones_and_loses_writes(guest: Guest) -> None:
    assert guest.reads_port(0x10, 1) == b"\xff"
    assert guest.reads_port(0x10, 4, count=2) == b"\xff" * 8
    assert guest.reads_memory(0xFEE0_0000, 8) == b"\xff" * 8
    guest.writes_port(0x80, b"\0")
    guest.writes_memory(0xFEE0_0000, b"\0")


def test_beside_a_device_there_is_nobody(bus: Bus, guest: Guest) -> None:
    device = Recorder()
    bus.attach_ports(range(0x10, 0x12), device)
    bus.attach_memory(range(0x1000, 0x2000), device)
    for port in (0xF, 0x12):
        assert guest.reads_port(port, 1) == b"\xff"
    for address in (0xFFF, 0x2000):
        assert guest.reads_memory(address, 1) == b"\xff"
        guest.writes_memory(address, b"\0")
    assert device.accesses == []


def test_unclaimed_accesses_are_shown() -> None:
    shown: list[str] = []

    def show(access: Access) -> None:
        shown.append(repr(access))

    bus = Bus(unclaimed=show)
    bus.attach_ports(range(0x10, 0x11), Recorder())
    guest = Guest(bus)
    guest.reads_port(0x10, 1)
    guest.writes_port(0x10, b"\0")
    guest.reads_port(0x11, 1)
    guest.writes_port(0x80, b"\7")
    guest.reads_memory(0x1000, 4)
    guest.writes_memory(0x1000, b"\0\0")
    assert shown == [
        "IoIn(port=0x11, size=1, count=1)",
        "IoOut(port=0x80, data=b'\\x07', size=1)",
        "MmioRead(address=0x1000, size=4)",
        "MmioWrite(address=0x1000, data=b'\\x00\\x00')",
    ]


@pytest.mark.parametrize(
    "exit",
    [
        Halt(),
        Shutdown(),
        Kicked(),
        InterruptWindow(),
        EndOfInterrupt(),
        SystemEvent(1),
        Failure(),
        OtherExit(99, "AN_EXIT"),
        MsrRead(lambda exit, value: None),
    ],
    ids=lambda exit: type(exit).__name__,
)
def test_what_is_no_access_is_left_to_the_caller(bus: Bus, exit: Exit) -> None:
    assert not bus.handle(exit)


# Devices that fail


@pytest.mark.parametrize(
    ("access", "note"),
    [
        (lambda guest: guest.reads_port(0x10, 1), "IoIn(port=0x10, size=1, count=1)"),
        (lambda guest: guest.reads_port(0x10, 2, count=2), "IoIn(port=0x10, size=2, count=2)"),
        (lambda guest: guest.writes_port(0x10, b"a"), "IoOut(port=0x10, data=b'a', size=1)"),
        (lambda guest: guest.reads_memory(0x1010, 4), "MmioRead(address=0x1010, size=4)"),
        (lambda guest: guest.writes_memory(0x1010, b"a"), "MmioWrite(address=0x1010, data=b'a')"),
    ],
)
def test_what_a_device_raises_names_the_access(
    bus: Bus, guest: Guest, access: object, note: str
) -> None:
    bus.attach_ports(range(0x10, 0x11), Broken())
    bus.attach_memory(range(0x1000, 0x2000), Broken())
    assert callable(access)
    with pytest.raises(RuntimeError, match="out of order") as caught:
        access(guest)
    assert caught.value.__notes__ == [f"The guest access was {note}."]
    assert guest.answers == []


# What cannot be attached


@pytest.mark.parametrize(
    "ports",
    [range(0x3F8, 0x400), range(0x3FF, 0x401), range(0x300, 0x500), range(0x3FA, 0x3FB)],
)
def test_ports_that_are_taken(bus: Bus, guest: Guest, ports: range) -> None:
    first, second = Recorder([1]), Broken()
    bus.attach_ports(range(0x3F8, 0x400), first)
    with pytest.raises(ValueError, match="overlaps") as refused:
        bus.attach_ports(ports, second)
    assert str(refused.value) == (
        f"Broken at ports [{ports.start:#x}, {ports.stop:#x}) overlaps Recorder at [0x3f8, 0x400);"
        " move or shrink one of them"
    )
    assert guest.reads_port(0x3FA, 1) == b"\1"
    assert guest.reads_port(0x400, 1) == b"\xff"


def test_addresses_that_are_taken(bus: Bus) -> None:
    bus.attach_memory(range(0x1000, 0x2000), Recorder())
    with pytest.raises(ValueError, match="overlaps") as refused:
        bus.attach_memory(range(0x1FFF, 0x3000), Recorder())
    assert str(refused.value) == (
        "Recorder at addresses [0x1fff, 0x3000) overlaps Recorder at [0x1000, 0x2000);"
        " move or shrink one of them"
    )
    bus.attach_memory(range(0x2000, 0x3000), Recorder())


@pytest.mark.parametrize("ports", [range(0x10, 0x10), range(0x20, 0x10), range(0x10, 0x20, 2)])
def test_ranges_that_are_empty_or_have_gaps(bus: Bus, ports: range) -> None:
    with pytest.raises(ValueError, match="expected a non-empty range with step 1"):
        bus.attach_ports(ports, Recorder())


def test_ranges_beyond_the_bus(bus: Bus) -> None:
    with pytest.raises(ValueError, match=r"ports \[0xfff8, 0x10001\) is beyond the bus"):
        bus.attach_ports(range(0xFFF8, 0x10001), Recorder())
    with pytest.raises(ValueError, match=r"addresses \[-0x1, 0x1\) is beyond the bus"):
        bus.attach_memory(range(-1, 1), Recorder())
    bus.attach_ports(range(0xFFF8, 0x10000), Recorder())
    bus.attach_memory(range((1 << 64) - 1, 1 << 64), Recorder())


intervals = st.builds(
    lambda start, size: range(start, start + size), st.integers(0, 60), st.integers(1, 12)
)


@settings(deadline=None)
@given(st.lists(intervals, max_size=12))
def test_each_number_belongs_to_whoever_was_there_first(wanted: list[range]) -> None:
    bus = Bus()
    owners: dict[int, int] = {}
    for value, numbers in enumerate(wanted):
        if owners.keys() & set(numbers):
            with pytest.raises(ValueError, match="overlaps"):
                bus.attach_ports(numbers, Recorder())
            with pytest.raises(ValueError, match="overlaps"):
                bus.attach_memory(numbers, Recorder())
            continue
        bus.attach_ports(numbers, Recorder([value] * 100))
        bus.attach_memory(numbers, Recorder([value] * 100))
        owners |= dict.fromkeys(numbers, value)
    guest = Guest(bus)
    for number in range(75):
        expected = bytes([owners.get(number, 0xFF)])
        assert guest.reads_port(number, 1) == expected
        assert guest.reads_memory(number, 1) == expected


# Stopping


def test_a_stop_waits_for_who_listens_next(bus: Bus) -> None:
    heard: list[tuple[Reason, int | None, int]] = []
    bus.stop(Reason.RESET)
    bus.stop()
    with bus.listening(lambda *request: heard.append(request)):
        assert heard == [(Reason.RESET, None, threading.get_ident())]
    heard.clear()
    with bus.listening(lambda *request: heard.append(request)):
        assert heard == []
        bus.stop()
        assert heard == [(Reason.STOPPED, None, threading.get_ident())]
    with bus.listening(lambda *request: heard.append(request)):
        assert len(heard) == 1  # that one was heard


def test_only_one_can_listen(bus: Bus) -> None:
    with bus.listening(print), pytest.raises(RuntimeError, match="already being served"):
        bus.listening(print).__enter__()
    with bus.listening(print):
        pass
