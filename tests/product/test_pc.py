"""The rest of a PC: the clock, and the ways to reset the machine and to switch it off."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from vmm_arch.ending import Reason
from vmm_arch.memory import Region
from vmm_arch.x86_64.bus import Bus
from vmm_arch.x86_64.exits import IoIn, IoOut
from vmm_arch.x86_64.platform.memory_map import GuestMemory
from vmm_arch.x86_64.platform.pc import (
    AbsentI8042,
    AcpiSleep,
    Cmos,
    DebugExit,
    DebugPort,
    PvPanic,
    ResetControl,
    attach_pc_devices,
    panicked,
)

SUNDAY = time.struct_time((2023, 12, 31, 23, 59, 58, 6, 365, 0))


def clock() -> Callable[[int], int]:
    """A CMOS at that moment, and how a guest reads it."""
    cmos = Cmos(lambda: SUNDAY)

    def read(index: int) -> int:
        cmos.write(0, 1, index)
        return cmos.read(1, 1) & 0xFF

    return read


def test_the_clock_is_in_bcd() -> None:
    read = clock()
    registers = [read(index) for index in (0, 2, 4, 6, 7, 8, 9, 0x32)]
    assert registers == [0x58, 0x59, 0x23, 1, 0x31, 0x12, 0x23, 0x20]


def test_linux_reads_the_clock_without_waiting() -> None:
    """mc146818_get_time() waits while an update is in progress, and wants a valid battery."""
    read = clock()
    assert not read(0xA) & 0x80
    assert read(0xB) & 0x7 == 0x2  # 24 hours, BCD
    assert read(0xC) == 0
    assert read(0xD) & 0x80


def test_the_clock_is_in_binary_where_the_guest_wants_that() -> None:
    cmos = Cmos(lambda: SUNDAY)
    cmos.write(0, 1, 0xB)
    cmos.write(1, 1, 0x6)
    cmos.write(0, 1, 0)
    assert cmos.read(1, 1) & 0xFF == 58


def test_a_clock_shows_the_real_time_by_default() -> None:
    cmos = Cmos()
    cmos.write(0, 1, 9)
    before, year, after = time.gmtime(), cmos.read(1, 1) & 0xFF, time.gmtime()
    assert year in {int(f"{now.tm_year % 100}", 16) for now in (before, after)}


def test_cmos_memory_is_kept_and_the_clock_cannot_be_set() -> None:
    cmos = Cmos(lambda: SUNDAY)
    cmos.write(0, 1, 0x80 | 0xF)  # bit 7 masks NMIs
    cmos.write(1, 1, 0xA5)
    assert cmos.read(1, 1) & 0xFF == 0xA5
    cmos.write(0, 2, 0x5A10)  # index and data at once
    assert cmos.read(1, 1) & 0xFF == 0x5A
    cmos.write(0, 2, 0x0000)
    assert cmos.read(1, 1) & 0xFF == 0x58
    cmos.write(0, 2, 0xFF0A)
    assert cmos.read(1, 1) & 0xFF == 0x7F  # never in the midst of an update
    assert cmos.read(0, 1) == -1


@pytest.fixture
def asked() -> list[Reason]:
    return []


def test_no_keyboard_controller_answers_but_it_resets(asked: list[Reason]) -> None:
    i8042 = AbsentI8042(asked.append)
    assert i8042.read(0, 1) == -1
    for command in (0xAA, 0x20, 0xF0, 0xD1):
        i8042.write(0, 1, command)
    assert asked == []
    i8042.write(0, 1, 0xFE)
    assert asked == [Reason.RESET]


def test_the_reset_control_resets_by_its_third_bit(asked: list[Reason]) -> None:
    """As Linux does it: the kind first, then the bit."""
    control = ResetControl(asked.append)
    control.write(0, 1, control.read(0, 1) | 0x02)
    assert asked == []
    assert control.read(0, 1) == 0x02
    control.write(0, 1, 0x06)
    assert asked == [Reason.RESET]


def test_sleep_control_switches_off_by_the_type_of_s5(asked: list[Reason]) -> None:
    control = AcpiSleep(asked.append)
    control.write(1, 1, 0x80)  # Linux clears WAK_STS first
    control.write(0, 1, 5 << 2)  # the type without SLP_EN
    control.write(0, 1, 1 << 5 | 3 << 2)  # another type
    control.write(1, 1, 1 << 5 | 5 << 2)  # another register
    assert asked == []
    assert (control.read(0, 1), control.read(1, 1)) == (0, 0)
    control.write(0, 1, 1 << 5 | 5 << 2)
    assert asked == [Reason.POWER_OFF]


def test_pvpanic_ends_a_guest_that_panicked_unless_it_sees_to_it_itself(
    asked: list[Reason],
) -> None:
    """As QEMU's docs/specs/pvpanic.rst says."""
    port = PvPanic(asked.append)
    assert port.read(0, 1) == 0x3
    port.write(0, 1, 0x2)  # a crash kernel goes on
    port.write(0, 1, 0xFC)
    assert asked == []
    port.write(0, 1, 0x1)
    assert asked == [Reason.PANIC]


def test_debug_exit_ends_the_guest_with_what_is_written() -> None:
    codes: list[tuple[Reason, int]] = []
    port = DebugExit(lambda reason, code: codes.append((reason, code)))
    assert port.read(0, 4) == 0
    port.write(0, 4, 0x12345678)
    assert codes == [(Reason.DEBUG_EXIT, 0x12345678)]


@pytest.mark.parametrize(
    ("flag", "given", "reason"),
    [
        (0x1234, True, Reason.PANIC),
        (0, True, Reason.RESET),
        (0x1234, False, Reason.RESET),  # nobody says that it is a Linux that was told
    ],
)
@pytest.mark.parametrize(("port", "value"), [(0x64, 0xFE), (0xCF9, 0x06)])
def test_a_warm_reset_is_linux_panicking(
    flag: int, given: bool, reason: Reason, port: int, value: int
) -> None:
    bus = Bus()
    heard: list[Reason] = []
    with GuestMemory(0x1000) as memory:
        memory.write(0x472, flag.to_bytes(2, "little"))
        attach_pc_devices(bus, memory if given else None)
        exit = IoOut()
        exit.port, exit.size, exit.count, exit.data = port, 1, 1, bytes([value])
        with bus.listening(lambda reason, code, thread: heard.append(reason)):
            bus.handle(exit)
    assert heard == [reason]


def test_without_memory_at_the_flag_a_reset_is_a_reset() -> None:
    with GuestMemory([Region(0x10000, 0x1000)]) as memory:
        assert not panicked(memory)


def test_the_debug_port_says_that_it_is_there() -> None:
    out = bytearray()
    port = DebugPort(out.extend)
    assert port.read(0, 1) == 0xE9
    port.write(0, 1, ord("a"))
    port.write(0, 2, 0x4162)
    assert out == b"ab"


def test_a_pc_has_them_where_they_belong() -> None:
    unclaimed: list[object] = []
    bus = Bus(unclaimed=lambda access: unclaimed.append(repr(access)))
    attach_pc_devices(bus, now=lambda: SUNDAY)
    answers: list[bytes] = []

    def write(port: int, value: int) -> None:
        exit = IoOut()
        exit.port, exit.size, exit.count, exit.data = port, 1, 1, bytes([value])
        assert bus.handle(exit)

    def read(port: int) -> bytes:
        exit = IoIn(lambda _, data: answers.append(data))
        exit.port, exit.size, exit.count = port, 1, 1
        assert bus.handle(exit)
        return answers.pop()

    write(0x70, 4)
    assert read(0x71) == b"\x23"
    assert read(0x64) == b"\xff"
    heard: list[Reason] = []
    with bus.listening(lambda reason, code, thread: heard.append(reason)):
        write(0x64, 0xFE)
        write(0x505, 0x01)
        write(0xCF9, 0x06)
        write(0x600, 0x34)
    assert heard == [Reason.RESET, Reason.PANIC, Reason.RESET, Reason.POWER_OFF]
    assert unclaimed == []
