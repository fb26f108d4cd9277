"""The ACPI tables, as ACPICA's own disassembler and compiler read them."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

import pytest
from acpi_tables import compiles, disassembled, tables_at
from images import Recorded, inside
from vmm_arch.devices.description import DeviceDescriptionError, MmioDevice
from vmm_arch.memory import GuestMemory
from vmm_arch.x86_64.platform.acpi import RSDP_ADDRESS, write_acpi
from vmm_arch.x86_64.platform.e820 import E820_ACPI, e820_map
from vmm_arch.x86_64.topology import Topology

DEVICES = [
    MmioDevice(range(0xD0000000, 0xD0000200), 5),
    MmioDevice(range(1 << 40, (1 << 40) + 0x1000), 23, acpi_id="PNP0C02", level_triggered=True),
]


@pytest.fixture
def tables() -> dict[str, bytes]:
    """Every table that the root pointer leads to, for three processors, and the pointer itself."""
    with GuestMemory(0x100000) as memory:
        address = write_acpi(memory, Topology(cores=3), DEVICES)
        assert address == RSDP_ADDRESS
        return tables_at(memory, address)


def test_checksums(tables: dict[str, bytes]) -> None:
    assert set(tables) == {"RSDP", "XSDT", "FACP", "APIC", "DSDT"}
    assert sum(tables["RSDP"][:20]) % 256 == 0
    for name, table in tables.items():
        assert sum(table) % 256 == 0, name
        if name != "RSDP":
            assert struct.unpack_from("<I", table, 4)[0] == len(table)


def test_the_devices(tables: dict[str, bytes], tmp_path: Path) -> None:
    text = disassembled(tables["DSDT"], tmp_path)
    for line in (
        r"Name \(_S5, Package \(0x01\)",
        r"Device \(C002\)",
        r'Name \(_HID, EisaId \("PNP0501"\)',
        r"0x03F8, +// Range Maximum",
        r"Interrupt \(ResourceConsumer, Edge, ActiveHigh, Exclusive",
        r'Name \(_HID, "QEMU0001"',
        r'Device \(D000\)\s*\{\s*Name \(_HID, "LNRO0005"',
        r"Memory32Fixed \(ReadWrite,\s*0xD0000000, .*\s*0x00000200,",
        r"Interrupt \(ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, \)\s*\{\s*0x00000005,",
        r'Name \(_HID, EisaId \("PNP0C02"\)',
        r"QWordMemory \(ResourceConsumer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,",
        r"0x0000010000000000, // Range Minimum\s*0x0000010000000FFF, // Range Maximum",
        r"Interrupt \(ResourceConsumer, Level, ActiveHigh, Exclusive, ,, \)\s*\{\s*0x00000017,",
        r"OperationRegion \(PEOR, SystemIO, 0x0505, One\)|OperationRegion \(PEOR, SystemIO, 0x0505, 0x01\)",
        r"PEPT, +8",
        r"Method \(RDPT, 0, NotSerialized\)\s*\{\s*Return \(PEPT\)",
        r"Method \(WRPT, 1, NotSerialized\)\s*\{\s*PEPT = Arg0|Method \(WRPT, 1, NotSerialized\)\s*\{\s*Store \(Arg0, PEPT\)",
    ):
        assert re.search(line, text), line
    compiles(tmp_path)


def test_the_fixed_description(tables: dict[str, bytes], tmp_path: Path) -> None:
    text = disassembled(tables["FACP"], tmp_path)
    for field, value in (
        (r"Hardware Reduced \(V5\)", "1"),
        (r"Reset Register Supported \(V2\)", "1"),
        (r"CMOS RTC Not Present \(V5\)", "1"),
        ("Value to cause reset", "06"),
    ):
        assert re.search(rf"{field} : {value}\n", text), field
    registers = re.findall(r"Address : 0000000000000([0-9A-F]{3})\n", text)
    assert [register for register in registers if register != "000"] == ["CF9", "600", "601"]


@pytest.mark.parametrize(("name", "revision"), [("XSDT", 1), ("FACP", 6), ("APIC", 6)])
def test_every_table_is_of_acpi_6_5(
    tables: dict[str, bytes], name: str, revision: int, tmp_path: Path
) -> None:
    """The revisions that the specification gives for it, and what was disassembled compiles."""
    assert tables[name][8] == revision
    assert tables["DSDT"][8] == 2
    assert tables["FACP"][131] == 5, "the minor version"
    text = disassembled(tables[name], tmp_path)
    assert f"Revision : 0{revision}\n" in text
    done = subprocess.run(
        ["iasl", "table.dsl"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "table.aml").read_bytes()[36:] == tables[name][36:]


def test_processors_and_interrupt_controllers(tables: dict[str, bytes], tmp_path: Path) -> None:
    text = disassembled(tables["APIC"], tmp_path)
    assert re.findall(r"Local Apic ID : (..)\n", text) == ["00", "01", "02"]
    assert "PC-AT Compatibility : 0" in text  # no 8259s
    assert "Address : FEC00000" in text


@pytest.mark.parametrize("vcpus", [1, 255])
def test_linux_is_told_where_the_tables_are(vcpus: int) -> None:
    """RAM that it may use, but only after it has read them: firmware does so (15)."""
    with Recorded(0x200000) as memory:
        write_acpi(memory, Topology(cores=vcpus))
        (tables,) = (addresses for addresses, kind in e820_map(memory) if kind == E820_ACPI)
        assert all(inside(written, tables) for written in memory.written)


def test_more_processors_than_fit_in_one_byte_of_length(tmp_path: Path) -> None:
    with GuestMemory(0x100000) as memory:
        write_acpi(memory, Topology(cores=255))
        (length,) = struct.unpack("<I", memory.read(RSDP_ADDRESS + 0x44, 4))
        text = disassembled(memory.read(RSDP_ADDRESS + 0x40, length), tmp_path)
    assert text.count("ACPI0007") == 255
    assert "Device (C0FE)" in text


def test_devices_that_cannot_be_there_are_all_named() -> None:
    devices = [
        MmioDevice(range(0xFFFFF, 0x100001), 5),
        MmioDevice(range(0xD0000000, 0xD0000200), 4),
        MmioDevice(range(0xD00001FF, 0xD0000300), 24),
        MmioDevice(range(0xFEC00FFF, 0xFEC01000), 5, acpi_id="no"),
        MmioDevice(range(5, 5), 6),
        MmioDevice(range(1 << 52, (1 << 52) + 1), 7),
    ]
    with GuestMemory(0x100000) as memory:
        with pytest.raises(DeviceDescriptionError) as raised:
            write_acpi(memory, Topology(), devices)
        assert raised.value.problems == (
            "device 2 at [0xd00001ff, 0xd0000300): overlaps device 1 at [0xd0000000, 0xd0000200);"
            " move one of them",
            "device 3 at [0xfec00fff, 0xfec01000): interrupt line 5 is that of device 0 at [0xfffff,"
            " 0x100001); give it one of its own",
            "device 4 at [0x5, 0x5): expected addresses from 0 on, not none, with step 1",
            "device 0 at [0xfffff, 0x100001): guest memory is there, [0x0, 0x100000); move it beside",
            "device 1 at [0xd0000000, 0xd0000200): interrupt line 4 is the serial port's; give another",
            "device 2 at [0xd00001ff, 0xd0000300): there is no interrupt line 24; give one of 0 to 23",
            "device 3 at [0xfec00fff, 0xfec01000): the I/O APIC is at 0xfec00000; move it",
            "device 3 at [0xfec00fff, 0xfec01000): 'no' is no ACPI identifier; give one such as LNRO0005",
            "device 5 at [0x10000000000000, 0x10000000000001): ends above 2**52, the largest address",
        )
        assert not any(memory.read(0xE0000, 0x10000))
