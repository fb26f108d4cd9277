"""The I/O APIC in software: lines in, interrupts out, as the guest's table says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmm_arch.x86_64.platform.ioapic import (
    EOI,
    LEVEL,
    LINES,
    MASKED,
    REMOTE_IRR,
    SELECT,
    TABLE,
    VERSION,
    WINDOW,
    IoApic,
)

VECTOR = 0x31
DESTINATION = 0x5 << 56


class Guest:
    """What a guest does with the registers, and what it is sent."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.ioapic = IoApic(self.sent.append)

    def read(self, register: int) -> int:
        self.ioapic.write(SELECT, 4, register)
        return self.ioapic.read(WINDOW, 4)

    def write(self, register: int, value: int) -> None:
        self.ioapic.write(SELECT, 4, register)
        self.ioapic.write(WINDOW, 4, value)

    def entry(self, line: int) -> int:
        return self.read(TABLE + 2 * line) | self.read(TABLE + 2 * line + 1) << 32

    def program(self, line: int, entry: int) -> None:
        self.write(TABLE + 2 * line + 1, entry >> 32)
        self.write(TABLE + 2 * line, entry & 0xFFFFFFFF)


@pytest.fixture
def guest() -> Guest:
    return Guest()


def test_after_a_reset_every_line_is_masked(guest: Guest) -> None:
    assert [guest.entry(line) for line in range(LINES)] == [MASKED] * LINES
    assert guest.read(VERSION) == (LINES - 1) << 16 | 0x20
    for line in range(LINES):
        guest.ioapic.set_line(line, True)
    assert guest.sent == []


def test_an_edge_sends_once(guest: Guest) -> None:
    entry = DESTINATION | VECTOR
    guest.program(4, entry)
    for active in (True, True, False, True, False):
        guest.ioapic.set_line(4, active)
    assert guest.sent == [entry, entry]
    assert guest.entry(4) == entry


def test_a_level_sends_until_it_is_low_and_each_time_waits_for_its_end(guest: Guest) -> None:
    entry = DESTINATION | LEVEL | VECTOR
    guest.program(9, entry)
    guest.ioapic.set_line(9, True)
    guest.ioapic.set_line(9, True)
    assert guest.sent == [entry]
    assert guest.entry(9) == entry | REMOTE_IRR
    guest.ioapic.end_of_interrupt(VECTOR + 1)  # another's
    assert guest.sent == [entry]
    guest.ioapic.end_of_interrupt(VECTOR)
    assert guest.sent == [entry, entry]
    guest.ioapic.set_line(9, False)
    guest.ioapic.write(EOI, 4, VECTOR)
    assert guest.sent == [entry, entry]
    assert guest.entry(9) == entry


def test_a_level_that_waited_behind_the_mask_is_sent(guest: Guest) -> None:
    guest.program(9, LEVEL | MASKED | VECTOR)
    guest.ioapic.set_line(9, True)
    assert guest.sent == []
    guest.program(9, LEVEL | VECTOR)
    assert guest.sent == [LEVEL | VECTOR]


def test_a_level_that_cannot_be_sent_may_be_sent_again(guest: Guest) -> None:
    def refuses(entry: int) -> None:
        raise OSError("refused")

    guest.ioapic = IoApic(refuses)
    guest.program(9, LEVEL | VECTOR)
    with pytest.raises(OSError, match="refused"):
        guest.ioapic.set_line(9, True)
    assert guest.entry(9) == LEVEL | VECTOR


def test_an_edge_behind_the_mask_is_lost(guest: Guest) -> None:
    guest.ioapic.set_line(4, True)
    guest.program(4, VECTOR)
    assert guest.sent == []
    guest.ioapic.set_line(4, False)
    guest.ioapic.set_line(4, True)
    assert guest.sent == [VECTOR]


def test_what_the_guest_cannot_write_stays(guest: Guest) -> None:
    guest.program(0, 0xFFFFFFFF_FFFFFFFF & ~REMOTE_IRR)
    assert guest.entry(0) & (REMOTE_IRR | 1 << 12) == 0
    guest.write(VERSION, 0)
    assert guest.read(VERSION) == (LINES - 1) << 16 | 0x20
    guest.write(0, 0xFF000000)
    assert guest.read(0) == guest.read(2) == 0x0F000000


def test_registers_and_lines_that_do_not_exist(guest: Guest) -> None:
    assert guest.read(TABLE + 2 * LINES) == 0
    guest.write(TABLE + 2 * LINES, 0xFFFFFFFF)
    assert guest.ioapic.read(0x20, 4) == 0
    for line in (-1, LINES):
        with pytest.raises(ValueError, match=f"line {line}: the I/O APIC has lines 0 to 23"):
            guest.ioapic.set_line(line, True)


@given(st.lists(st.tuples(st.integers(0, LINES - 1), st.booleans()), max_size=40))
def test_no_level_is_sent_twice_without_its_end(changes: list[tuple[int, bool]]) -> None:
    guest = Guest()
    for line in range(LINES):
        guest.program(line, LEVEL | 0x20 + line)
    for line, active in changes:
        guest.ioapic.set_line(line, active)
    assert len(guest.sent) == len(set(guest.sent)) == len({line for line, on in changes if on})
