"""The tables that tell a guest about the machine, beside those that are always there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from acpi_tables import compiles, disassembled, tables_at
from vmm_arch.devices.description import DeviceDescriptionError, MmioDevice
from vmm_arch.memory import MemoryAccessError, Region
from vmm_arch.x86_64.platform.acpi import RSDP_ADDRESS, write_acpi
from vmm_arch.x86_64.platform.aml import aml_buffer, aml_name
from vmm_arch.x86_64.platform.description import Platform
from vmm_arch.x86_64.platform.generation import GENERATION_ID, renew_generation_id
from vmm_arch.x86_64.platform.memory_map import GuestMemory
from vmm_arch.x86_64.platform.pci import PciRoot
from vmm_arch.x86_64.topology import Topology

FIRST, SECOND = (UUID(int=number) for number in (1 << 100 | 7, 9))
EVERYTHING = Platform(
    devices=[MmioDevice(range(0xD0000000, 0xD0000200), 5)],
    pci=PciRoot(
        range(0xE0000000, 0xE0400000), [range(0xD1000000, 0xD2000000), range(1 << 40, 1 << 41)]
    ),
    generation_id=FIRST,
    mp_table=True,
)


@pytest.fixture(scope="module")
def tables() -> dict[str, bytes]:
    with GuestMemory(0x100000) as memory:
        assert EVERYTHING.write(memory, Topology(cores=2)) == RSDP_ADDRESS
        assert memory.read(GENERATION_ID, 16) == FIRST.bytes_le
        return tables_at(memory, RSDP_ADDRESS)


def test_which_there_are(tables: dict[str, bytes]) -> None:
    assert set(tables) == {"RSDP", "XSDT", "FACP", "APIC", "DSDT", "SPCR", "MCFG"}
    for name, table in tables.items():
        assert sum(table) % 256 == 0, name
    with GuestMemory(0x100000) as memory:
        Platform().write(memory, Topology(cores=2))
        assert set(tables) - {"MCFG"} == set(tables_at(memory, RSDP_ADDRESS))


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "SPCR",
            ["Interface Type : 00", "Space ID : 01 [SystemIO]", "Address : 00000000000003F8",
             "Interrupt Type : 02", "Interrupt : 00000004", "Baud Rate : 07", "Stop Bits : 01",
             "PCI Device ID : FFFF"],
        ),
        (
            "MCFG",
            ["Base Address : 00000000E0000000", "Segment Group Number : 0000",
             "Start Bus Number : 00", "End Bus Number : 03"],
        ),
    ],
)  # fmt: skip
def test_what_is_in_them(
    tables: dict[str, bytes], name: str, lines: list[str], tmp_path: Path
) -> None:
    text = disassembled(tables[name], tmp_path)
    for line in lines:
        assert f"{line}\n" in text, text
    compiles(tmp_path)
    assert (tmp_path / "table.aml").read_bytes()[36:] == tables[name][36:]


def test_the_objects_of_the_namespace(tables: dict[str, bytes], tmp_path: Path) -> None:
    text = re.sub(r"\s+", " ", disassembled(tables["DSDT"], tmp_path))
    for part in (
        'Device (VGEN) { Name (_HID, "VMAR0001") // _HID: Hardware ID'
        ' Name (_CID, "VM_Gen_Counter") // _CID: Compatible ID'
        ' Name (_DDN, "VM_Gen_Counter") // _DDN: DOS Device Name'
        " Name (ADDR, Package (0x02) { 0x000FF000,",
        "Method (_EVT, 1, Serialized) // _EVT: Event { Notify (VGEN, 0x80)",
        "WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0x0000, // Granularity"
        " 0x0000, // Range Minimum 0x0003, // Range Maximum",
        "0x00000000D1000000, // Range Minimum 0x00000000D1FFFFFF, // Range Maximum",
        "Memory32Fixed (ReadWrite, 0xE0000000, // Address Base 0x00400000, // Address Length",
    ):
        assert part in text, text
    compiles(tmp_path)


def test_everything_that_is_wrong_is_named_before_anything_is_written() -> None:
    platform = Platform(
        devices=[MmioDevice(range(0xD0000000, 0xD0000200), 9)],
        pci=PciRoot(range(0xD0000000, 0xD0080000), [range(0x1000, 0x2000), range(5, 5)]),
        generation_id=UUID(int=0),
        acpi=False,
    )
    with GuestMemory(0x200000) as memory:
        with pytest.raises(ValueError, match="Platform") as raised:
            platform.write(memory, Topology(cores=1))
        assert not any(memory.read(0, 0x200000))
    assert str(raised.value).split("\n") == [
        "Platform: devices: ACPI describes them; leave them out, or acpi=False",
        "Platform: pci: ACPI describes them; leave them out, or acpi=False",
        "Platform: generation_id: ACPI describes them; leave them out, or acpi=False",
        "Platform: pci: configuration [0xd0000000, 0xd0080000): give a whole MiB for each of 1 to 256"
        " buses, from a multiple of 1 MiB on",
        "Platform: pci: configuration [0xd0000000, 0xd0080000): a device is at [0xd0000000,"
        " 0xd0000200); move one of them",
        "Platform: pci: window [0x1000, 0x2000): guest memory is at [0x0, 0x200000); move one of them",
        "Platform: pci: window [0x5, 0x5): expected addresses below 2**52, with step 1",
        "Platform: generation_id: 00000000-0000-0000-0000-000000000000 stands for none; give another"
        " one",
        "Platform: devices: line 9 is the generation id's; give another",
    ]


def test_devices_that_are_wrong_leave_memory_as_it_was() -> None:
    wrong: Any = ["no device"]
    with GuestMemory(0x200000) as memory:
        with pytest.raises(DeviceDescriptionError, match="expected MmioDevice, got str"):
            Platform(devices=wrong, generation_id=FIRST).write(memory, Topology(cores=1))
        large = aml_name("BIG_", aml_buffer(bytes(0xFFF0)))
        with pytest.raises(ValueError, match=r"the ACPI tables end at 0xf[0-9a-f]+, after 0xf0000"):
            write_acpi(memory, Topology(), objects=large)
        assert not any(memory.read(0, 0x200000))


def test_memory_that_ends_before_the_generation_id() -> None:
    with GuestMemory([Region(0, 0xFF000)]) as memory:
        with pytest.raises(MemoryAccessError):
            Platform(generation_id=FIRST).write(memory, Topology(cores=1))
        assert not any(memory.read(0, 0xFF000))


class Machine:
    """One that notes what its lines do."""

    def __init__(self, memory: GuestMemory) -> None:
        self.memory = memory
        self.lines: list[tuple[int, bool]] = []

    def set_irq_line(self, line: int, active: bool, /) -> None:
        self.lines.append((line, active))


def test_another_generation() -> None:
    with GuestMemory(0x200000) as memory:
        vm = Machine(memory)
        with pytest.raises(
            ValueError, match=r"the guest knows no generation id: give configure_sys"
        ):
            renew_generation_id(vm)
        Platform(generation_id=FIRST).write(memory, Topology(cores=1))
        with pytest.raises(ValueError, match="stands for no generation id; give another one"):
            renew_generation_id(vm, UUID(int=0))
        assert vm.lines == []
        assert renew_generation_id(vm, SECOND) == SECOND
        assert memory.read(GENERATION_ID, 16) == SECOND.bytes_le
        assert vm.lines == [(9, False), (9, True), (9, False)]
        assert renew_generation_id(vm) not in (FIRST, SECOND)
