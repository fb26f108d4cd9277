"""Checks where devices are described to be, on a PC: beside its memory and its own devices."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from vmm_arch.boot.ranges import listing, runs_of
from vmm_arch.devices.description import DeviceDescriptionError, MmioDevice, meet, named, overlaps
from vmm_arch.memory import ADDRESS_LIMIT, GuestMemory
from vmm_arch.x86_64.platform.memory_map import IRQCHIP_PAGES
from vmm_arch.x86_64.platform.resources import SERIAL_LINE

LINES: Final = range(24)
"""The I/O APIC's inputs."""
TAKEN_LINES: Final = {
    0: "is the timer's",
    2: "connects the two 8259s",
    SERIAL_LINE: "is the serial port's",
}
_ACPI_ID: Final = re.compile(r"[A-Z]{3}[0-9A-F]{4}|[A-Z0-9]{4}[0-9A-F]{4}")


def check_devices(devices: Sequence[MmioDevice], memory: GuestMemory) -> None:
    """Raise DeviceDescriptionError, with everything that is wrong, if the devices cannot be there."""
    if problems := [*_not_devices(devices)] or [*overlaps(devices), *_misplaced(devices, memory)]:
        raise DeviceDescriptionError(problems)


def _not_devices(devices: Sequence[object]) -> Iterator[str]:
    for number, device in enumerate(devices):
        if not isinstance(device, MmioDevice):
            yield f"device {number}: expected MmioDevice, got {type(device).__name__}"


def _misplaced(devices: Sequence[MmioDevice], memory: GuestMemory) -> Iterator[str]:
    pages = {range(page, page + 0x1000): what for page, what in IRQCHIP_PAGES.items()}
    ram = runs_of(memory, writable=False)
    for number, device in enumerate(devices):
        name, line = named(number, device), device.line
        if any(meet(device.addresses, run) for run in ram):
            yield f"{name}: guest memory is there, {listing(ram)}; move it beside"
        for page, what in pages.items():
            if meet(device.addresses, page):
                yield f"{name}: {what} is at {page.start:#x}; move it"
        if device.addresses.stop > ADDRESS_LIMIT:
            yield f"{name}: ends above 2**52, the largest address"
        if line not in LINES:
            yield f"{name}: there is no interrupt line {line}; give one of {LINES.start} to {LINES.stop - 1}"
        elif line in TAKEN_LINES:
            yield f"{name}: interrupt line {line} {TAKEN_LINES[line]}; give another"
        if not _ACPI_ID.fullmatch(device.acpi_id):
            yield f"{name}: {device.acpi_id!r} is no ACPI identifier; give one such as LNRO0005"
