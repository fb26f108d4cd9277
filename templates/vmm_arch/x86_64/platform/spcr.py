"""SPCR: which serial port is the console (Microsoft, Serial Port Console Redirection Table 1.02)."""

from __future__ import annotations

import struct
from typing import Final

from vmm_arch.x86_64.platform.acpi import port_register, table
from vmm_arch.x86_64.platform.resources import SERIAL_LINE, SERIAL_PORT

_16550: Final = 0
_IO_APIC: Final = 1 << 1
_BAUD_115200: Final = 7
_VT_UTF8: Final = 2
_NOT_PCI: Final = 0xFFFF


def spcr() -> bytes:
    """The table: the machine's 16550, 115,200 baud, eight bits without parity, no flow control."""
    body = struct.pack(
        "<B3x12sBBIBBBBBxHHBBBIB4x",
        *(_16550, port_register(SERIAL_PORT), _IO_APIC, 0, SERIAL_LINE),
        *(_BAUD_115200, 0, 1, 0, _VT_UTF8, _NOT_PCI, _NOT_PCI, 0, 0, 0, 0, 0),
    )
    return table(b"SPCR", 2, body)
