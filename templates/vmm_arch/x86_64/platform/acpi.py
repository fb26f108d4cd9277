"""ACPI tables for a machine without a chipset: processors, interrupt controllers, serial port.

The machine is *hardware-reduced* (ACPI 6.5, 4.1): there is no fixed hardware, so that no timer,
buttons or events have to be emulated. Section numbers are those of the ACPI Specification 6.5.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from vmm_arch.devices.description import MmioDevice
from vmm_arch.memory import GuestMemory
from vmm_arch.x86_64.platform.devices import check_devices
from vmm_arch.x86_64.platform.resources import (
    IO_APIC_ADDRESS,
    LOCAL_APIC_ADDRESS,
    PANIC_PORT,
    RESET_PORT,
    SERIAL_LINE,
    SERIAL_PORT,
    SLEEP_CONTROL_PORT,
    SLEEP_STATUS_PORT,
)

TABLES: Final = range(0xE0000, 0xF0000)
"""The guest-physical addresses of the tables."""
RSDP_ADDRESS: Final = TABLES.start
"""The alignment at which an operating system searches for the RSDP (5.2.5.1)."""
SLEEP_TYPE_OFF: Final = 5
RESET_VALUE: Final = 0x6

_OEM: Final = (b"VMARCH", b"VMM-ARCH")
_CREATOR: Final = b"VMMA"

# Flags of the FADT (table 5.10), and its boot architecture flags for absent devices (table 5.11).
_NO_POWER_BUTTON, _NO_SLEEP_BUTTON = 1 << 4, 1 << 5
_RESET_REGISTER, _HARDWARE_REDUCED = 1 << 10, 1 << 20
_NO_VGA, _NO_CMOS_CLOCK = 1 << 2, 1 << 5


def write_acpi(memory: GuestMemory, vcpus: int, devices: Sequence[MmioDevice] = ()) -> int:
    """Write the tables to guest memory and return the guest-physical address of the RSDP.

    They take a few kilobytes from 0xE0000 on, below the last 64 KiB of the first MiB. Raises
    MemoryAccessError if there is no memory, DeviceDescriptionError, with nothing written, for
    devices that cannot be where they are described to be.
    """
    check_devices(devices, memory)
    dsdt_address = RSDP_ADDRESS + 0x40
    dsdt = table(b"DSDT", 2, _dsdt(vcpus, devices))
    fadt_address = _aligned(dsdt_address + len(dsdt))
    fadt = table(b"FACP", 6, _fadt(dsdt_address))
    madt_address = _aligned(fadt_address + len(fadt))
    madt = table(b"APIC", 6, _madt(vcpus))
    xsdt_address = _aligned(madt_address + len(madt))
    xsdt = table(b"XSDT", 1, struct.pack("<2Q", fadt_address, madt_address))
    for address, content in (
        (RSDP_ADDRESS, rsdp(xsdt_address)),
        (dsdt_address, dsdt),
        (fadt_address, fadt),
        (madt_address, madt),
        (xsdt_address, xsdt),
    ):
        memory.write(address, content)
    return RSDP_ADDRESS


def _aligned(address: int) -> int:
    return (address + 15) & ~15


def checksum(content: bytes) -> int:
    """The checksum byte, with which the sum of all bytes is zero."""
    return -sum(content) & 0xFF


def rsdp(xsdt: int) -> bytes:
    """The root pointer (5.2.5.3): 36 bytes with the XSDT's guest-physical address."""
    first = struct.pack("<8sB6sBI", b"RSD PTR ", 0, _OEM[0], 2, 0)
    first = first[:8] + bytes([checksum(first)]) + first[9:]
    whole = first + struct.pack("<IQB3x", 36, xsdt, 0)
    return whole[:32] + bytes([checksum(whole)]) + whole[33:]


def table(signature: bytes, revision: int, body: bytes) -> bytes:
    """A system description table: a header (5.2.6) and its body."""
    oem, oem_table = _OEM
    length = 36 + len(body)
    header = struct.pack(
        "<4sIBB6s8sI4sI", signature, length, revision, 0, oem, oem_table, 1, _CREATOR, 1
    )
    content = header + body
    return content[:9] + bytes([checksum(content)]) + content[10:]


def _port(port: int) -> bytes:
    """An eight-bit register in the port address space (5.2.3.2)."""
    return struct.pack("<BBBBQ", 1, 8, 0, 1, port)


def _fadt(dsdt: int) -> bytes:
    """The body of the FADT (5.2.9), from the end of its header to byte 276."""
    body = bytearray(276 - 36)

    def put(offset: int, layout: str, *values: int | bytes) -> None:
        struct.pack_into(layout, body, offset - 36, *values)

    put(40, "<I", dsdt)
    put(109, "<H", _NO_VGA | _NO_CMOS_CLOCK)
    flags = _NO_POWER_BUTTON | _NO_SLEEP_BUTTON | _RESET_REGISTER | _HARDWARE_REDUCED
    put(112, "<I12sB", flags, _port(RESET_PORT), RESET_VALUE)
    put(131, "<B", 5)  # of revision 6.5
    put(140, "<Q", dsdt)
    put(244, "<12s12s", _port(SLEEP_CONTROL_PORT), _port(SLEEP_STATUS_PORT))
    return bytes(body)


def _madt(vcpus: int) -> bytes:
    """Processors and interrupt controllers (5.2.12). It reports no 8259s."""
    body = struct.pack("<II", LOCAL_APIC_ADDRESS, 0)
    for index in range(vcpus):
        body += struct.pack("<BBBBI", 0, 8, index, index, 1)  # a local APIC, enabled
    body += struct.pack("<BBBBII", 1, 12, 0, 0, IO_APIC_ADDRESS, 0)
    return body + struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1)  # NMIs arrive at LINT1


def _dsdt(vcpus: int, devices: Sequence[MmioDevice]) -> bytes:
    """The devices, in AML (20.2): ``_S5``, processors, the serial port, the one for panics, others."""
    processors = (
        _device(
            f"C{index:03X}",
            _name("_HID", _text("ACPI0007")),
            _name("_UID", _integer(index)),
        )
        for index in range(vcpus)
    )
    serial = _device(
        "COM1",
        _name("_HID", _eisa_id("PNP0501")),
        _name("_UID", _integer(0)),
        _name("_CRS", _buffer(_io_ports(SERIAL_PORT, 8) + _interrupt(SERIAL_LINE) + b"\x79\0")),
    )
    off = _name("_S5_", _package(_integer(SLEEP_TYPE_OFF)))
    others = b"".join(_mmio_device(number, device) for number, device in enumerate(devices))
    return off + _sized(b"\x10", b"\\_SB_" + b"".join(processors) + serial + _pvpanic() + others)


def _mmio_device(number: int, device: MmioDevice) -> bytes:
    resources = _memory(device.addresses) + _interrupt(device.line, level=device.level_triggered)
    kind = device.acpi_id
    return _device(
        f"D{number:03X}",
        _name("_HID", _text(kind) if len(kind) == 8 else _eisa_id(kind)),
        _name("_UID", _integer(number)),
        _name("_CRS", _buffer(resources + b"\x79\0")),
    )


def _pvpanic() -> bytes:
    """QEMU's pvpanic (docs/specs/pvpanic.rst): a port, and methods that read and write it."""
    port = b"\x0b" + PANIC_PORT.to_bytes(2, "little")
    return _device(
        "PEVT",
        _name("_HID", _text("QEMU0001")),
        _name("_CRS", _buffer(_io_ports(PANIC_PORT, 1) + b"\x79\0")),
        b"\x5b\x80PEOR\x01" + port + _integer(1),  # an operation region of ports (20.2.5.2)
        _sized(b"\x5b\x81", b"PEOR\x01PEPT\x08"),  # its field of eight bits, read by bytes
        _name("_STA", _integer(0xF)),
        _sized(b"\x14", b"RDPT\x00\xa4PEPT"),  # return it
        _sized(b"\x14", b"WRPT\x01\x70\x68PEPT"),  # store the argument in it
    )


def _sized(opcode: bytes, content: bytes) -> bytes:
    """An opcode with the length of its content, which counts the length's own bytes (20.2.4)."""
    for more in range(4):
        length = len(content) + 1 + more
        if more == 0 and length < 0x40:
            return opcode + bytes([length]) + content
        if more and length < 1 << (4 + 8 * more):
            lead = more << 6 | length & 0xF
            return opcode + bytes([lead]) + (length >> 4).to_bytes(more, "little") + content
    raise ValueError(f"{len(content)} bytes are too many for a package length of AML")


def _name(name: str, value: bytes) -> bytes:
    return b"\x08" + name.encode() + value


def _device(name: str, *content: bytes) -> bytes:
    return _sized(b"\x5b\x82", name.encode() + b"".join(content))


def _integer(value: int) -> bytes:
    return b"\x0a" + bytes([value]) if value < 0x100 else b"\x0b" + value.to_bytes(2, "little")


def _text(text: str) -> bytes:
    return b"\x0d" + text.encode() + b"\0"


def _package(*elements: bytes) -> bytes:
    return _sized(b"\x12", bytes([len(elements)]) + b"".join(elements))


def _buffer(content: bytes) -> bytes:
    return _sized(b"\x11", b"\x0b" + struct.pack("<H", len(content)) + content)


def _eisa_id(name: str) -> bytes:
    """A compressed id (19.3.4): three letters of five bits, four hexadecimal digits, big-endian."""
    letters = [ord(letter) - 0x40 for letter in name[:3]]
    value = letters[0] << 26 | letters[1] << 21 | letters[2] << 16 | int(name[3:], 16)
    return b"\x0c" + value.to_bytes(4, "big")


def _io_ports(first: int, count: int) -> bytes:
    """Resource descriptor (6.4.2.5): these ports, all 16 bits decoded."""
    return struct.pack("<BBHHBB", 0x47, 1, first, first, 1, count)


def _memory(addresses: range) -> bytes:
    """Resource descriptor (6.4.3.4 or, above 4 GiB, 6.4.3.5.1): these addresses, to read and write."""
    start, size = addresses.start, len(addresses)
    if addresses.stop <= 1 << 32:
        return struct.pack("<BHBII", 0x86, 9, 1, start, size)
    fixed = 0x0D  # both ends; the device consumes it
    bounds = (0, start, addresses.stop - 1, 0, size)
    return struct.pack("<BHBBB5Q", 0x8A, 0x2B, 0, fixed, 1, *bounds)


def _interrupt(line: int, *, level: bool = False) -> bytes:
    """Resource descriptor (6.4.3.6): this line, by default edge-triggered, active high, not shared."""
    return struct.pack("<BHBBI", 0x89, 6, 0x01 if level else 0x03, 1, line)
