"""The entry of a Linux kernel, and the layout of low memory for booting it.

All addresses are guest-physical. Low memory is laid out as in other VMMs::

      0x500  GDT
     0x7000  zero page
     0x8ff0  top of the stack
     0x9000  page tables, to 0xefff
    0x20000  command line
    0x9fc00  extended BIOS data area, to 0x9ffff
    0xe0000  ACPI tables, to 0xeffff
    0xf0000  BIOS, to 0xfffff: SMBIOS, MP table
"""

from __future__ import annotations

from dataclasses import dataclass

from vmm_arch.memory import GuestMemory
from vmm_arch.x86_64.entry import Long64, Tables
from vmm_arch.x86_64.linux.zero_page import write_zero_page
from vmm_arch.x86_64.platform.description import Platform
from vmm_arch.x86_64.topology import Topology

ZERO_PAGE = 0x7000
STACK_TOP = 0x8FF0
LOW_STRUCTURES = range(0xF000)
"""The range of GDT, zero page, stack and page tables."""
COMMAND_LINE = 0x20000


@dataclass(frozen=True, slots=True, kw_only=True)
class Linux64(Long64):
    """The 64-bit entry of a loaded Linux kernel, and the content of its zero page.

    Documentation/arch/x86/boot.rst, "64-bit Boot Protocol": RSI has the zero page's address.
    """

    rsi: int = ZERO_PAGE
    rsp: int = STACK_TOP
    setup_header: bytes
    """The image's header from offset 0x1f1 on; for an ELF image, the one its bzImage would have."""
    kernel: range
    """The addresses that the kernel occupies until it has read its memory map."""
    command_line: range
    """The addresses of the command line, its terminating zero included."""
    initrd: range | None = None
    """The addresses of the initrd, if there is one."""

    def write_tables(
        self, memory: GuestMemory, topology: Topology, platform: Tables | None = None
    ) -> None:
        """Write descriptor table, page tables, the platform's tables and zero page."""
        Long64.write_tables(self, memory, topology)
        rsdp = (platform or Platform()).write(memory, topology)
        write_zero_page(memory, self, acpi_rsdp=rsdp or 0)
