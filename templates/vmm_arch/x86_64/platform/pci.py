"""The root of a PCI bus whose configuration space is memory (ECAM): as a guest is told of it.

There are no devices here: the accesses go to :meth:`Bus.attach_memory` at the same addresses, and
whoever attaches something there has a bus. Function f of device d on bus b has the 4,096 bytes at
``b << 20 | d << 15 | f << 12``. Section numbers are those of the ACPI Specification 6.5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from vmm_arch.boot.ranges import listing, runs_of
from vmm_arch.devices.description import MmioDevice, meet
from vmm_arch.memory import ADDRESS_LIMIT, GuestMemory
from vmm_arch.x86_64.platform.acpi import table
from vmm_arch.x86_64.platform.aml import (
    aml_device,
    aml_eisa_id,
    aml_integer,
    aml_memory,
    aml_name,
    aml_resources,
)
from vmm_arch.x86_64.platform.memory_map import IRQCHIP_PAGES

BUS_SIZE: Final = 1 << 20
"""Of one bus's configuration space."""
_MOST_BUSES: Final = 256


@dataclass(frozen=True, slots=True)
class PciRoot:
    """Where a PCI bus's configuration space is, and the addresses that its devices can have."""

    configuration: range
    """Guest-physical addresses, 1 MiB for each bus, from a multiple of that on."""
    windows: Sequence[range] = ()
    """Guest-physical addresses for the devices' memory; Linux assigns them."""


def pci_problems(
    root: PciRoot, memory: GuestMemory, devices: Sequence[MmioDevice]
) -> Iterator[str]:
    """Everything that is wrong with the addresses."""
    buses, rest = divmod(len(root.configuration), BUS_SIZE)
    if rest or root.configuration.start % BUS_SIZE or not 0 < buses <= _MOST_BUSES:
        yield (
            f"configuration {_text(root.configuration)}: give a whole MiB for each of 1 to"
            f" {_MOST_BUSES} buses, from a multiple of 1 MiB on"
        )
    taken = [("guest memory", run) for run in runs_of(memory, writable=False)]
    taken += [(what, range(page, page + 0x1000)) for page, what in IRQCHIP_PAGES.items()]
    taken += [("a device", device.addresses) for device in devices]
    places = [("configuration", root.configuration), *(("window", one) for one in root.windows)]
    for number, (name, place) in enumerate(places):
        if place.step != 1 or not place or place.start < 0 or place.stop > ADDRESS_LIMIT:
            yield f"{name} {_text(place)}: expected addresses below 2**52, with step 1"
        for what, other in [*taken, *places[:number]]:
            if meet(place, other):
                yield f"{name} {_text(place)}: {what} is at {_text(other)}; move one of them"


def mcfg(root: PciRoot) -> bytes:
    """The table: where the configuration space is (PCI Firmware Specification 3.3, 4.1.2)."""
    last = len(root.configuration) // BUS_SIZE - 1
    return table(b"MCFG", 1, struct.pack("<8xQHBB4x", root.configuration.start, 0, 0, last))


def pci_objects(root: PciRoot) -> bytes:
    """The host bridge, and that the configuration space is taken, in AML."""
    buses = len(root.configuration) // BUS_SIZE
    bridge = aml_device(
        "PCI0",
        aml_name("_HID", aml_eisa_id("PNP0A08")),
        aml_name("_CID", aml_eisa_id("PNP0A03")),
        aml_name("_SEG", aml_integer(0)),
        aml_name("_BBN", aml_integer(0)),
        aml_name("_UID", aml_integer(0)),
        aml_name("_CRS", aml_resources(_bus_numbers(buses), *map(_window, root.windows))),
    )
    taken = aml_device(
        "ECAM",
        aml_name("_HID", aml_eisa_id("PNP0C02")),
        aml_name("_UID", aml_integer(0)),
        aml_name("_CRS", aml_resources(aml_memory(root.configuration))),
    )
    return bridge + taken


def _bus_numbers(count: int) -> bytes:
    """Resource descriptor (6.4.3.5.3): the buses below the bridge, from 0 on."""
    return struct.pack("<BHBBB5H", 0x88, 13, 2, 0x0C, 0, 0, 0, count - 1, 0, count)


def _window(addresses: range) -> bytes:
    """Resource descriptor (6.4.3.5.1): what the bridge passes on, to read and write, not cached."""
    bounds = (0, addresses.start, addresses.stop - 1, 0, len(addresses))
    return struct.pack("<BHBBB5Q", 0x8A, 0x2B, 0, 0x0C, 1, *bounds)


def _text(addresses: range) -> str:
    return listing([addresses])
