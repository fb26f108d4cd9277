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
from vmm_arch.x86_64.platform.aml import (
    aml_device,
    aml_eisa_id,
    aml_integer,
    aml_interrupt,
    aml_io_ports,
    aml_memory,
    aml_name,
    aml_package,
    aml_resources,
    aml_sized,
    aml_text,
)
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
from vmm_arch.x86_64.topology import Topology

TABLES: Final = range(0xE0000, 0xF0000)
"""The guest-physical addresses of the tables."""
RSDP_ADDRESS: Final = TABLES.start
"""The alignment at which an operating system searches for the RSDP (5.2.5.1)."""
SLEEP_TYPE_OFF: Final = 5
X2APIC_IDS: Final = 255
"""The first APIC id that only x2APIC mode has."""
RESET_VALUE: Final = 0x6

_OEM: Final = (b"VMARCH", b"VMM-ARCH")
_CREATOR: Final = b"VMMA"

# Flags of the FADT (table 5.10), and its boot architecture flags for absent devices (table 5.11).
_NO_POWER_BUTTON, _NO_SLEEP_BUTTON = 1 << 4, 1 << 5
_RESET_REGISTER, _HARDWARE_REDUCED = 1 << 10, 1 << 20
_NO_VGA, _NO_CMOS_CLOCK = 1 << 2, 1 << 5


def write_acpi(
    memory: GuestMemory,
    topology: Topology,
    devices: Sequence[MmioDevice] = (),
    *,
    objects: bytes = b"",
    tables: Sequence[bytes] = (),
) -> int:
    """Write the tables to guest memory and return the guest-physical address of the RSDP.

    ``objects`` are more of the DSDT's in AML, below ``\\_SB``, and ``tables`` further ones. They take
    a few kilobytes from 0xE0000 on, below the last 64 KiB of the first MiB. Raises MemoryAccessError if
    there is no memory, ValueError if they do not fit, DeviceDescriptionError for devices that cannot be
    where they are described to be; then nothing is written.
    """
    check_devices(devices, memory)
    dsdt_address = RSDP_ADDRESS + 0x40
    dsdt = table(b"DSDT", 2, _dsdt(topology.vcpus, devices, objects))
    fadt_address = _aligned(dsdt_address + len(dsdt))
    fadt = table(b"FACP", 6, _fadt(dsdt_address))
    madt_address = _aligned(fadt_address + len(fadt))
    madt = table(b"APIC", 6, _madt(topology))
    placed = [(fadt_address, fadt), (madt_address, madt)]
    for more in tables:
        last, content = placed[-1]
        placed.append((_aligned(last + len(content)), more))
    last, content = placed[-1]
    xsdt_address = _aligned(last + len(content))
    xsdt = table(b"XSDT", 1, b"".join(struct.pack("<Q", address) for address, _ in placed))
    placed += [(RSDP_ADDRESS, rsdp(xsdt_address)), (dsdt_address, dsdt), (xsdt_address, xsdt)]
    end = xsdt_address + len(xsdt)
    if end > TABLES.stop:
        raise ValueError(
            f"the ACPI tables end at {end:#x}, after {TABLES.stop:#x}: describe fewer devices"
        )
    memory.read(RSDP_ADDRESS, end - RSDP_ADDRESS)  # raises, before anything is written
    for address, content in placed:
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


def port_register(port: int) -> bytes:
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
    put(112, "<I12sB", flags, port_register(RESET_PORT), RESET_VALUE)
    put(131, "<B", 5)  # of revision 6.5
    put(140, "<Q", dsdt)
    put(244, "<12s12s", port_register(SLEEP_CONTROL_PORT), port_register(SLEEP_STATUS_PORT))
    return bytes(body)


def _madt(topology: Topology) -> bytes:
    """Processors and interrupt controllers (5.2.12). It reports no 8259s."""
    body = struct.pack("<II", LOCAL_APIC_ADDRESS, 0)
    for index, apic_id in enumerate(topology.apic_ids):
        if apic_id < X2APIC_IDS and index < X2APIC_IDS:
            body += struct.pack("<BBBBI", 0, 8, index, apic_id, 1)  # a local APIC, enabled
        else:
            body += struct.pack("<BBHIII", 9, 16, 0, apic_id, 1, index)  # a local x2APIC
    body += struct.pack("<BBBBII", 1, 12, 0, 0, IO_APIC_ADDRESS, 0)
    body += struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1)  # NMIs arrive at LINT1
    if topology.apic_ids[-1] >= X2APIC_IDS:
        body += struct.pack("<BBHIB3x", 10, 12, 0, 0xFFFFFFFF, 1)  # and at that of the others
    return body


def _dsdt(vcpus: int, devices: Sequence[MmioDevice], objects: bytes) -> bytes:
    """The devices, in AML (20.2): ``_S5``, processors, the serial port, the one for panics, others."""
    processors = (
        aml_device(
            f"C{index:03X}",
            aml_name("_HID", aml_text("ACPI0007")),
            aml_name("_UID", aml_integer(index)),
        )
        for index in range(vcpus)
    )
    serial = aml_device(
        "COM1",
        aml_name("_HID", aml_eisa_id("PNP0501")),
        aml_name("_UID", aml_integer(0)),
        aml_name("_CRS", aml_resources(aml_io_ports(SERIAL_PORT, 8), aml_interrupt(SERIAL_LINE))),
    )
    off = aml_name("_S5_", aml_package(aml_integer(SLEEP_TYPE_OFF)))
    others = b"".join(_mmio_device(number, device) for number, device in enumerate(devices))
    scope = b"".join(processors) + serial + _pvpanic() + others + objects
    return off + aml_sized(b"\x10", b"\\_SB_" + scope)


def _mmio_device(number: int, device: MmioDevice) -> bytes:
    resources = aml_memory(device.addresses) + aml_interrupt(
        device.line, level=device.level_triggered
    )
    kind = device.acpi_id
    return aml_device(
        f"D{number:03X}",
        aml_name("_HID", aml_text(kind) if len(kind) == 8 else aml_eisa_id(kind)),
        aml_name("_UID", aml_integer(number)),
        aml_name("_CRS", aml_resources(resources)),
    )


def _pvpanic() -> bytes:
    """QEMU's pvpanic (docs/specs/pvpanic.rst): a port, and methods that read and write it."""
    port = b"\x0b" + PANIC_PORT.to_bytes(2, "little")
    return aml_device(
        "PEVT",
        aml_name("_HID", aml_text("QEMU0001")),
        aml_name("_CRS", aml_resources(aml_io_ports(PANIC_PORT, 1))),
        b"\x5b\x80PEOR\x01" + port + aml_integer(1),  # an operation region of ports (20.2.5.2)
        aml_sized(b"\x5b\x81", b"PEOR\x01PEPT\x08"),  # its field of eight bits, read by bytes
        aml_name("_STA", aml_integer(0xF)),
        aml_sized(b"\x14", b"RDPT\x00\xa4PEPT"),  # return it
        aml_sized(b"\x14", b"WRPT\x01\x70\x68PEPT"),  # store the argument in it
    )
