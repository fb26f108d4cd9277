"""The memory map that a PC's firmware gives: what each range of addresses is for."""

from __future__ import annotations

from vmm_arch.boot.ranges import clipped, runs_of
from vmm_arch.memory import ADDRESS_LIMIT, GuestMemory
from vmm_arch.x86_64.platform.acpi import TABLES
from vmm_arch.x86_64.platform.memory_map import BIOS, EBDA, HIGH_MEMORY

E820_RAM = 1
E820_RESERVED = 2
E820_ACPI = 3
"""Address range types (ACPI 6.5, table 15.2)."""


def e820_map(memory: GuestMemory) -> list[tuple[range, int]]:
    """The memory map: ranges of guest-physical addresses in ascending order, each with its type.

    RAM is writable memory below the extended BIOS data area and from 1 MiB on. That area, the
    BIOS's and read-only memory are reserved. Between the two is RAM with ACPI tables, which the
    guest may use once it has read them. Addresses in no range have no memory.
    """
    ram = runs_of(memory, writable=True)
    usable = [*clipped(ram, 0, EBDA.start), *clipped(ram, HIGH_MEMORY, ADDRESS_LIMIT)]
    read_only = [range(one.address, one.end) for one in memory.regions if one.read_only]
    reserved = _joined([EBDA, BIOS, *read_only])
    tables = clipped(ram, TABLES.start, TABLES.stop)
    entries = [
        *((run, E820_RAM) for run in usable),
        *((run, E820_RESERVED) for run in reserved),
        *((run, E820_ACPI) for run in tables),
    ]
    return sorted(entries, key=lambda entry: entry[0].start)


def _joined(intervals: list[range]) -> list[range]:
    """The same addresses as ascending ranges, with adjacent ones joined."""
    joined: list[range] = []
    for one in sorted(intervals, key=lambda interval: interval.start):
        if joined and one.start <= joined[-1].stop:
            joined[-1] = range(joined[-1].start, max(one.stop, joined[-1].stop))
        else:
            joined.append(one)
    return joined
