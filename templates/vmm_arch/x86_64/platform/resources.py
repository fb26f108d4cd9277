"""The machine's port numbers, interrupt lines and addresses.

They are used for the ACPI tables, which describe them to the guest, and for attaching devices.
"""

from __future__ import annotations

from typing import Final

LOCAL_APIC_ADDRESS: Final = 0xFEE00000
IO_APIC_ADDRESS: Final = 0xFEC00000

SERIAL_PORT: Final = 0x3F8
SERIAL_LINE: Final = 4
PIT_PORTS: Final = range(0x40, 0x44)
I8042_COMMAND_PORT: Final = 0x64
DELAY_PORTS: Final = range(0x80, 0x81)
"""Where firmware writes what it is doing, and Linux to let time pass: nothing is there."""
CMOS_INDEX_PORT: Final = 0x70
CMOS_DATA_PORT: Final = 0x71
PANIC_PORT: Final = 0x505
SLEEP_CONTROL_PORT: Final = 0x600
SLEEP_STATUS_PORT: Final = 0x601
RESET_PORT: Final = 0xCF9
GENERATION_LINE: Final = 9
"""Where the guest learns that its generation id has changed."""
