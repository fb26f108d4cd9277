"""An I/O APIC in software, for hypervisors that have none (Intel 82093AA; ICH datasheet, 9.5).

Its 24 lines are what ACPI calls global system interrupts 0 to 23.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Final, TypeAlias

from vmm_arch.x86_64.platform.resources import IO_APIC_ADDRESS

IO_APIC_ADDRESSES: Final = range(IO_APIC_ADDRESS, IO_APIC_ADDRESS + 0x1000)
LINES: Final = 24

SELECT, WINDOW, EOI = 0x00, 0x10, 0x40
"""The memory-mapped registers; the first two give access to the others."""
ID, VERSION, ARBITRATION, TABLE = 0x00, 0x01, 0x02, 0x10

MASKED: Final = 1 << 16
LEVEL: Final = 1 << 15
REMOTE_IRR: Final = 1 << 14
_DELIVERY_STATUS: Final = 1 << 12
_READ_ONLY: Final = REMOTE_IRR | _DELIVERY_STATUS

SAVED: Final = (
    *("ioapic.selected", "ioapic.id", "ioapic.active"),
    *(f"ioapic.redirtbl[{line}]" for line in range(LINES)),
)
"""What the numbers of a saved state are called."""

Deliver: TypeAlias = Callable[[int], object]
"""Sends the interrupt that an entry of the redirection table, 64 bits, describes."""


def check_line(line: int) -> None:
    """Raise ValueError if an I/O APIC has no line with this number."""
    if not 0 <= line < LINES:
        raise ValueError(f"line {line}: the I/O APIC has lines 0 to {LINES - 1}")


class IoApic:
    """Turns line changes into interrupts. Lines may be changed in any thread."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._lock = Lock()
        self._selected = 0
        self._id = 0
        self._active = [False] * LINES
        self._table = [MASKED] * LINES

    def save(self) -> tuple[int, ...]:
        """Return its state: the selected register, the id, the active lines, and the table."""
        with self._lock:
            active = sum(1 << line for line, level in enumerate(self._active) if level)
            return self._selected, self._id, active, *self._table

    def restore(self, state: tuple[int, ...]) -> None:
        """Set its state, without sending an interrupt."""
        with self._lock:
            self._selected, self._id, active, *self._table = state
            self._active = [bool(active >> line & 1) for line in range(LINES)]

    def set_line(self, line: int, active: bool) -> None:
        """Raise or lower a line. Raises ValueError if there is no such line."""
        check_line(line)
        with self._lock:
            rises = active and not self._active[line]
            self._active[line] = bool(active)
            if rises or self._table[line] & LEVEL:
                self._send(line)

    def end_of_interrupt(self, vector: int) -> None:
        """Handle a processor's EOI for a vector: a line that is still active interrupts again."""
        with self._lock:
            for line, entry in enumerate(self._table):
                if entry & REMOTE_IRR and entry & 0xFF == vector:
                    self._table[line] &= ~REMOTE_IRR
                    self._send(line)

    def read(self, offset: int, size: int) -> int:
        """Read the register at an offset of the page."""
        with self._lock:
            if offset == SELECT:
                return self._selected
            return self._read_selected() if offset == WINDOW else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Write the register at an offset of the page."""
        if offset == EOI:
            self.end_of_interrupt(value & 0xFF)
            return
        with self._lock:
            if offset == SELECT:
                self._selected = value & 0xFF
            elif offset == WINDOW:
                self._write_selected(value & 0xFFFFFFFF)

    def _send(self, line: int) -> None:
        entry = self._table[line]
        if entry & (MASKED | REMOTE_IRR) or (entry & LEVEL and not self._active[line]):
            return
        self._deliver(entry)
        if entry & LEVEL:
            self._table[line] |= REMOTE_IRR

    def _read_selected(self) -> int:
        line, high = divmod(self._selected - TABLE, 2)
        if self._selected in (ID, ARBITRATION):
            return self._id << 24
        if self._selected == VERSION:
            return LINES - 1 << 16 | 0x20  # the first version with an EOI register
        return self._table[line] >> 32 * high & 0xFFFFFFFF if 0 <= line < LINES else 0

    def _write_selected(self, value: int) -> None:
        line, high = divmod(self._selected - TABLE, 2)
        if self._selected == ID:
            self._id = value >> 24 & 0xF
        elif 0 <= line < LINES:
            entry = self._table[line]
            if high:
                entry = entry & 0xFFFFFFFF | value << 32
            else:
                entry = entry & ~(0xFFFFFFFF & ~_READ_ONLY) | value & ~_READ_ONLY
                if not value & LEVEL:
                    entry &= ~REMOTE_IRR
            self._table[line] = entry
            if entry & LEVEL:
                self._send(line)
