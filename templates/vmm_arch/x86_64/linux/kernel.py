"""Loads kernels, command line and initrd: everything is checked before guest memory is written.

No field of an image is trusted: the sizes that an image claims are checked against the file and
guest memory before anything is allocated or written.
"""

from __future__ import annotations

from contextlib import ExitStack
from ctypes import sizeof
from typing import TYPE_CHECKING

from vmm_arch.abi.linux_x86_64 import XLF_CAN_BE_LOADED_ABOVE_4G, setup_header
from vmm_arch.boot.image import Image, KernelImageError, opened, terminated
from vmm_arch.boot.ranges import aligned, clipped, highest, holds, listing, runs_of, without
from vmm_arch.memory import ADDRESS_LIMIT, PAGE_SIZE, GuestMemory
from vmm_arch.x86_64.boot import elf
from vmm_arch.x86_64.boot.other_protocols import multiboot_header
from vmm_arch.x86_64.linux import bzimage, vmlinux
from vmm_arch.x86_64.linux.entry import COMMAND_LINE, LOW_STRUCTURES, Linux64
from vmm_arch.x86_64.linux.layout import Layout
from vmm_arch.x86_64.platform.memory_map import EBDA, HIGH_MEMORY, HOLE, memory_of

if TYPE_CHECKING:
    from vmm_arch.boot.image import Source

_DECOMPRESS = "decompress it first"
_OTHER_CPU = "give a kernel for x86-64"
_BZIMAGE_IN_IT = "give a bzImage (a unified kernel image has one in its section .linux)"
_NO_KERNEL = "give the kernel that it would start"
_OTHERS = (
    (0, b"\x1f\x8b", "it is compressed with gzip", f"{_DECOMPRESS} (gunzip)"),
    (0, b"\xfd7zXZ\0", "it is compressed with xz", f"{_DECOMPRESS} (unxz)"),
    (0, b"\x28\xb5\x2f\xfd", "it is compressed with zstd", f"{_DECOMPRESS} (unzstd)"),
    (0, b"BZh", "it is compressed with bzip2", f"{_DECOMPRESS} (bunzip2)"),
    (0, b"\x5d\0\0", "it is compressed with LZMA", f"{_DECOMPRESS} (unlzma)"),
    (0, b"\x04\x22\x4d\x18", "it is compressed with LZ4", f"{_DECOMPRESS} (unlz4)"),
    (0, b"\x02\x21\x4c\x18", "it is compressed with LZ4", f"{_DECOMPRESS} (unlz4)"),
    (0, b"\x89LZO", "it is compressed with LZO", f"{_DECOMPRESS} (lzop -d)"),
    (0, b"\x27\x05\x19\x56", "it is wrapped for U-Boot (uImage)", "give the bzImage in it"),
    (0, b"07070", "it is a cpio archive", "give it as the initrd"),
    (0x38, b"ARM\x64", "it is for arm64", _OTHER_CPU),
    (0x38, b"RSC\x05", "it is for RISC-V", _OTHER_CPU),
    (0, b"MZ", "it is an EFI program without Linux's setup header", _BZIMAGE_IN_IT),
    (0, b"\x55\xaa", "it is an option ROM, which needs a BIOS", _NO_KERNEL),
    (0x1FE, b"\x55\xaa", "it begins with a boot sector, which needs a BIOS", _NO_KERNEL),
)
"""Other formats that are recognised: offset, magic number, name, remedy."""
_START = 0x206
"""The number of bytes that identify a format."""


def load_kernel(
    memory: GuestMemory,
    kernel: Source,
    *,
    cmdline: str | bytes = "",
    initrd: Source | None = None,
) -> Linux64:
    """Load a Linux kernel with its command line and initrd, and return its entry.

    `kernel` is a bzImage with a 64-bit entry (Linux 3.8 or newer) or an ELF vmlinux, told apart by
    content, given as a path, bytes or a binary file; so is `initrd`. A str `cmdline` becomes UTF-8.
    The kernel is loaded to its preferred address, or a higher one if there is no room and it is
    relocatable; the initrd as high as the kernel allows; the command line to 0x20000.
    ``write_zero_page`` passes these addresses to the kernel.

    Kernels of other boot protocols (Multiboot, PVH) are refused by name, with OtherProtocolError.

    Raises KernelImageError, with nothing written, if an image is invalid or does not fit; OSError
    if it cannot be read. Source: Linux, Documentation/arch/x86/boot.rst.
    """
    limit = sum(region.size for region in memory.regions)
    ram = runs_of(memory, writable=True)
    with ExitStack() as stack:
        image = stack.enter_context(opened(kernel, "kernel", limit))
        layout = _read_layout(image, ram)
        header = setup_header.from_buffer_copy(
            layout.setup_header.ljust(sizeof(setup_header), b"\0")
        )
        line = _command_line(cmdline, header.cmdline_size)
        line_at = range(COMMAND_LINE, COMMAND_LINE + len(line))
        for wanted in (LOW_STRUCTURES, line_at):
            if not holds(ram, wanted):
                problem = f"booting needs RAM at {listing([wanted])}; RAM is {listing(ram)}"
                raise image.error(problem, "give the guest memory from address 0 on")
        initrd_at, initrd_image = None, None
        if initrd is not None:
            initrd_image = stack.enter_context(opened(initrd, "initrd", limit))
            initrd_at = _place_initrd(initrd_image, header, ram, layout.kernel)

        for segment in layout.segments:
            image.load(segment, memory)
        memory.write(COMMAND_LINE, line)
        if initrd_image is not None and initrd_at is not None:
            initrd_image.copy(0, initrd_image.size, memory, initrd_at.start)
    return Linux64(
        layout.entry,
        setup_header=layout.setup_header,
        kernel=layout.kernel,
        command_line=line_at,
        initrd=initrd_at,
    )


def _read_layout(image: Image, ram: list[range]) -> Layout:
    image.require_content()
    start = image.read(0, min(image.size, _START), "its beginning")
    if elf.is_elf(start):
        return vmlinux.read_layout(image, ram)
    if bzimage.is_bzimage(start):
        return bzimage.read_layout(image, ram)
    for offset, magic, problem, remedy in _OTHERS:
        if start.startswith(magic, offset):
            raise image.error(problem, remedy)
    multiboot = multiboot_header(image)
    if multiboot is not None:
        raise multiboot.refusal(image)
    problem = f"it is {image.size:#x} bytes that are neither a bzImage nor an ELF file"
    raise image.error(problem, "give a kernel; load_flat() is for code without a header")


def _command_line(cmdline: str | bytes, allowed: int) -> bytes:
    """The command line as bytes, with its terminating zero."""
    line = terminated(cmdline, "command line")
    size, longest = len(line) - 1, min(allowed, EBDA.start - COMMAND_LINE - 1)
    if size > longest:
        problem = f"it has {size} bytes, more than the kernel's {longest} (cmdline_size)"
        raise KernelImageError(f"command line: {problem}; give a shorter one")
    return line


def _place_initrd(image: Image, header: setup_header, ram: list[range], kernel: range) -> range:
    """The highest pages from which the kernel accepts an initrd.

    initrd_addr_max exists for the sake of boot loaders' bugs; a kernel that can be loaded above
    4 GiB accepts an initrd anywhere, so if there is no room below the limit, it may be above.
    """
    image.require_content()
    limits = [header.initrd_addr_max + 1]
    if header.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G:
        limits.append(ADDRESS_LIMIT)
    for limit in limits:
        room = without(clipped(ram, HIGH_MEMORY, limit), kernel)
        address = highest(room, image.size)
        if address is not None:
            return range(address, address + image.size)
    problem = (
        f"its {image.size:#x} bytes do not fit below {limits[-1]:#x} (initrd_addr_max) beside the"
        f" kernel, {listing([kernel])}; RAM is {listing(ram)}"
    )
    raise image.error(problem, _room_for(image.size, kernel.stop, limits[-1]))


def _room_for(size: int, start: int, limit: int) -> str:
    """The remedy that makes room for an initrd from `start` on, below `limit`."""
    size = aligned(size, PAGE_SIZE)
    end = needed = aligned(start, PAGE_SIZE) + size
    if end > HOLE.start:  # so all of it goes above the hole
        end, needed = HOLE.stop + size, HOLE.start + size
    return memory_of(needed) if end <= limit else "give a smaller one"
