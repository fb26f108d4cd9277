"""The structures in guest memory that a vCPU's registers point to; written once for a machine."""

from __future__ import annotations

import struct
from collections.abc import Sized
from typing import Protocol

from vmm_arch.memory import GuestMemory
from vmm_arch.x86_64.entry import (
    CODE_SELECTOR,
    DATA_SELECTOR,
    GDT_SIZE,
    TSS_SELECTOR,
    Entry,
    Long64,
    Protected32,
)
from vmm_arch.x86_64.linux.entry import Linux64
from vmm_arch.x86_64.linux.zero_page import write_zero_page
from vmm_arch.x86_64.multiboot import Multiboot32
from vmm_arch.x86_64.platform.acpi import write_acpi

CR0_PE = 0x1
CR0_MP = 0x2
CR0_ET = 0x10
CR0_NE = 0x20
CR0_PG = 0x80000000
CR4_PAE = 0x20
RFLAGS_IF = 0x200
CODE32_ATTRIBUTES = 0xC09B
CODE64_ATTRIBUTES = 0xA09B
DATA_ATTRIBUTES = 0xC093
TSS_ATTRIBUTES = 0x8B
GDT_LIMIT = GDT_SIZE - 1
TSS_LIMIT = 0x67

_PRESENT_WRITABLE = 0x3
_LARGE = 0x80
_GIB = 1 << 30
_MAPPED_GIB = 4


class Machine(Protocol):
    """What the functions here use of a virtual machine."""

    @property
    def memory(self) -> GuestMemory: ...
    @property
    def vcpus(self) -> Sized: ...


def configure_system(vm: Machine, entry: Entry) -> None:
    """Write what an entry needs to guest memory: descriptor table and page tables for its mode.

    Real mode needs none. A Linux kernel gets ACPI tables and its zero page as well, a Multiboot
    kernel ACPI tables. Raises MemoryAccessError if the entry puts them outside guest memory.
    """
    if isinstance(entry, Protected32 | Long64):
        code = CODE64_ATTRIBUTES if isinstance(entry, Long64) else CODE32_ATTRIBUTES
        vm.memory.write(entry.gdt, descriptor_table(code))
    if isinstance(entry, Long64):
        vm.memory.write(entry.page_tables, page_tables(entry.page_tables))
    if isinstance(entry, Linux64):
        write_zero_page(vm.memory, entry, acpi_rsdp=write_acpi(vm.memory, len(vm.vcpus)))
    elif isinstance(entry, Multiboot32):
        write_acpi(vm.memory, len(vm.vcpus))


def descriptor_table(code_attributes: int) -> bytes:
    """Make a GDT: flat code and data segments where the Linux boot protocol requires them, a TSS."""
    table = {
        CODE_SELECTOR: descriptor(0, 0xFFFFFFFF, code_attributes),
        DATA_SELECTOR: descriptor(0, 0xFFFFFFFF, DATA_ATTRIBUTES),
        TSS_SELECTOR: descriptor(0, TSS_LIMIT, TSS_ATTRIBUTES),
    }
    return b"".join(
        struct.pack("<Q", table.get(selector, 0)) for selector in range(0, GDT_LIMIT + 1, 8)
    )


def descriptor(base: int, limit: int, attributes: int) -> int:
    """Make a segment descriptor (Intel SDM volume 3, figure 3-8) for a limit in bytes."""
    if attributes & 0x8000:  # G: the limit is in pages
        limit >>= 12
    return (
        limit & 0xFFFF
        | (base & 0xFFFFFF) << 16
        | (attributes & 0xF0FF) << 40
        | (limit >> 16 & 0xF) << 48
        | (base >> 24 & 0xFF) << 56
    )


def page_tables(address: int) -> bytes:
    """Make page tables that identity-map the first 4 GiB with 2 MiB pages.

    `address` is the guest-physical address that they are for: PML4, PDPT, four page directories.
    """
    top = [address + 0x1000 | _PRESENT_WRITABLE]
    pointers = [address + 0x2000 + 0x1000 * i | _PRESENT_WRITABLE for i in range(_MAPPED_GIB)]
    pages = range(0, _MAPPED_GIB * _GIB, 2 << 20)
    return b"".join(
        struct.pack(f"<{len(table)}Q", *table).ljust(0x1000, b"\0")
        for table in (top, pointers, [page | _PRESENT_WRITABLE | _LARGE for page in pages])
    )
