"""The zero page, which passes Linux the addresses of kernel and initrd, and the memory map.

Source: Linux, Documentation/arch/x86/boot.rst and zero-page.rst.
"""

from __future__ import annotations

from ctypes import sizeof
from typing import Protocol

from vmm_arch.abi.linux_x86_64 import (
    CAN_USE_HEAP,
    E820_MAX_ENTRIES_ZEROPAGE,
    LOADED_HIGH,
    boot_params,
)
from vmm_arch.memory import ADDRESS_LIMIT, GuestMemory
from vmm_arch.x86_64.linux.bzimage import HEADER
from vmm_arch.x86_64.platform.e820 import e820_map

_UNKNOWN_LOADER = 0xFF
_NORMAL_VIDEO = 0xFFFF
_HEAP_END = 0xFE00
"""The heap of Linux's real-mode code, which does not run here: the 64 KiB after its start."""
_LOW = 0xFFFFFFFF


class LoadedKernel(Protocol):
    """What a kernel's entry, :class:`~vmm_arch.x86_64.linux.entry.Linux64`, says of it."""

    @property
    def rsi(self) -> int: ...
    @property
    def setup_header(self) -> bytes: ...
    @property
    def kernel(self) -> range: ...
    @property
    def command_line(self) -> range: ...
    @property
    def initrd(self) -> range | None: ...


def write_zero_page(memory: GuestMemory, linux: LoadedKernel, *, acpi_rsdp: int = 0) -> None:
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
