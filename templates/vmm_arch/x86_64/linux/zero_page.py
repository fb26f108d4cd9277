"""The zero page, which passes Linux the addresses of kernel and initrd, and the memory map.

Source: Linux, Documentation/arch/x86/boot.rst and zero-page.rst.
"""

from __future__ import annotations

from ctypes import sizeof

from vmm_arch.abi.linux_x86_64 import (
    CAN_USE_HEAP,
    E820_MAX_ENTRIES_ZEROPAGE,
    LOADED_HIGH,
    boot_params,
)
from vmm_arch.boot.ranges import clipped, runs_of
from vmm_arch.memory import ADDRESS_LIMIT, GuestMemory
from vmm_arch.x86_64.linux.bzimage import HEADER
from vmm_arch.x86_64.linux.entry import BIOS, EBDA, Linux64
from vmm_arch.x86_64.linux.layout import HIGH_MEMORY
from vmm_arch.x86_64.platform.acpi import TABLES

E820_RAM = 1
E820_RESERVED = 2
E820_ACPI = 3
"""Address range types (ACPI 6.5, table 15.2)."""

_UNKNOWN_LOADER = 0xFF
_NORMAL_VIDEO = 0xFFFF
_HEAP_END = 0xFE00
"""The heap of Linux's real-mode code, which does not run here: the 64 KiB after its start."""
_LOW = 0xFFFFFFFF


def write_zero_page(memory: GuestMemory, linux: Linux64, *, acpi_rsdp: int = 0) -> None:
    """Write the zero page of a kernel that load_kernel() has loaded into this memory.

    It goes to the guest-physical address in the entry's RSI. `acpi_rsdp` is the address of the ACPI
    root pointer; with 0 Linux searches for one below 1 MiB. Raises ValueError if memory has more
    ranges than a zero page can list, MemoryAccessError if there is no memory for it.
    """
    page = bytearray(sizeof(boot_params))
    page[HEADER : HEADER + len(linux.setup_header)] = linux.setup_header
    params = boot_params.from_buffer(page)

    header = params.hdr
    header.type_of_loader = _UNKNOWN_LOADER
    header.ext_loader_ver = header.ext_loader_type = 0
    header.loadflags = LOADED_HIGH | CAN_USE_HEAP
    header.heap_end_ptr = _HEAP_END
    header.vid_mode = _NORMAL_VIDEO
    header.code32_start = linux.kernel.start
    header.cmd_line_ptr = linux.command_line.start
    header.setup_data = header.hardware_subarch = 0
    header.ramdisk_image = header.ramdisk_size = 0
    if linux.initrd is not None:
        start, size = linux.initrd.start, linux.initrd.stop - linux.initrd.start
        header.ramdisk_image, params.ext_ramdisk_image = start & _LOW, start >> 32
        header.ramdisk_size, params.ext_ramdisk_size = size & _LOW, size >> 32

    if not 0 <= acpi_rsdp < ADDRESS_LIMIT:
        raise ValueError(f"acpi_rsdp is {acpi_rsdp:#x}; give a guest-physical address, or 0")
    params.acpi_rsdp_addr = acpi_rsdp
    entries = e820_map(memory)
    if len(entries) > E820_MAX_ENTRIES_ZEROPAGE:
        problem = f"memory has {len(entries)} ranges, but the zero page lists at most"
        raise ValueError(f"{problem} {E820_MAX_ENTRIES_ZEROPAGE}; give it fewer regions")
    params.e820_entries = len(entries)
    for entry, (addresses, kind) in zip(params.e820_table, entries, strict=False):
        entry.addr, entry.size = addresses.start, addresses.stop - addresses.start
        entry.type = kind
    memory.write(linux.rsi, page)


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
