"""Descriptor and page tables: what a vCPU's registers point to in guest memory, and control bits."""

from __future__ import annotations

import struct

CODE_SELECTOR = 0x10
DATA_SELECTOR = 0x18
TSS_SELECTOR = 0x20
GDT_SIZE = TSS_SELECTOR + 16
"""Includes the TSS descriptor's 16 bytes in long mode."""
PAGE_TABLES_SIZE = 0x6000
MAPPED = 1 << 32
"""The page tables map the addresses below this to themselves."""

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
    pointers = [address + 0x2000 + 0x1000 * i | _PRESENT_WRITABLE for i in range(MAPPED // _GIB)]
    pages = range(0, MAPPED, 2 << 20)
    return b"".join(
        struct.pack(f"<{len(table)}Q", *table).ljust(0x1000, b"\0")
        for table in (top, pointers, [page | _PRESENT_WRITABLE | _LARGE for page in pages])
    )
