"""Linux's kernel as an ELF file, vmlinux, which is entered as its bzImage is."""

from __future__ import annotations

from collections.abc import Sequence

from vmm_arch.abi.linux_x86_64 import (
    ELFCLASS64,
    LOADED_HIGH,
    XLF_CAN_BE_LOADED_ABOVE_4G,
    XLF_KERNEL_64,
    setup_header,
)
from vmm_arch.boot.image import CORRUPT, Image
from vmm_arch.boot.ranges import Segment, clipped, holds, listing
from vmm_arch.x86_64.boot import elf
from vmm_arch.x86_64.boot.other_protocols import multiboot_header, xen_refusal
from vmm_arch.x86_64.linux.bzimage import BOOT_FLAG, MAGIC, VERSION_2_12
from vmm_arch.x86_64.linux.layout import Layout
from vmm_arch.x86_64.platform.memory_map import HIGH_MEMORY, memory_up_to
from vmm_arch.x86_64.tables import MAPPED

_COMMAND_LINE_SIZE = 2048
"""With the terminating zero: COMMAND_LINE_SIZE, Linux arch/x86/include/asm/setup.h."""
_INITRD_ADDRESS_MAX = 0x7FFFFFFF
"""The value in a bzImage of the same kernel (arch/x86/boot/header.S)."""
_OTHER = "give a vmlinux for x86-64"


def read_layout(image: Image, ram: list[range]) -> Layout:
    """Read a vmlinux's headers and check each segment's address, or raise KernelImageError."""
    multiboot = multiboot_header(image)
    if multiboot is not None and elf.class_of(image) != ELFCLASS64:
        raise multiboot.refusal(image)
    program = elf.read_program(image, (ELFCLASS64,), _OTHER)
    if multiboot is not None and multiboot.entry in (None, program.entry):
        raise multiboot.refusal(image)
    refusal = xen_refusal(image, program.header, program.programs, program.entry)
    if refusal is not None:
        raise refusal
    return Layout(
        entry=program.entry,
        kernel=_check_places(image, program.segments, ram),
        segments=program.segments,
        setup_header=_setup_header(),
    )


def _check_places(image: Image, segments: Sequence[Segment], ram: list[range]) -> range:
    """Check that Linux can be loaded to its segments' addresses, and return the range they span."""
    kernel = range(segments[0].address, segments[-1].end)
    place = f"its segments go to {listing([kernel])} (p_paddr, p_memsz)"
    if kernel.start < HIGH_MEMORY:
        problem = f"{place}: below {HIGH_MEMORY:#x}, used for zero page, page tables, command line"
        raise image.error(problem, "link it to physical addresses above")
    if not holds(clipped(ram, HIGH_MEMORY, MAPPED), kernel):
        problem = f"{place}: not all of that is RAM below {MAPPED:#x}; RAM is {listing(ram)}"
        raise image.error(problem, memory_up_to(kernel.stop) or CORRUPT)
    return kernel


def _setup_header() -> bytes:
    """The fields that matter of the setup header that this kernel's bzImage would have."""
    return bytes(
        setup_header(
            boot_flag=BOOT_FLAG,
            header=MAGIC,
            version=VERSION_2_12,
            loadflags=LOADED_HIGH,
            initrd_addr_max=_INITRD_ADDRESS_MAX,
            xloadflags=XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G,
            cmdline_size=_COMMAND_LINE_SIZE - 1,
        )
    )
