"""Multiboot kernels: loads them with their modules, and writes the Multiboot information.

Version 1 of the protocol is Multiboot Specification 0.6.96, to which section numbers refer; version
2 is in :mod:`vmm_arch.x86_64.boot.multiboot2`. As with Linux's kernels, no field of an image is
trusted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ctypes import LittleEndianStructure, c_uint32, sizeof
from typing import TYPE_CHECKING, Final

from vmm_arch.abi.linux_x86_64 import ELFCLASS32, ELFCLASS64
from vmm_arch.boot.image import CORRUPT, Image, described
from vmm_arch.boot.ranges import Segment
from vmm_arch.memory import GuestMemory
from vmm_arch.x86_64.boot import elf, kernel32, multiboot2
from vmm_arch.x86_64.boot.kernel32 import (
    LOADER_NAME,
    BootModule,
    Information,
    Kernel32,
    Program,
    Told,
)
from vmm_arch.x86_64.boot.other_protocols import multiboot_header

if TYPE_CHECKING:
    from vmm_arch.boot.image import Source

MULTIBOOT_BOOTLOADER_MAGIC: Final = 0x2BADB002
"""The value of EAX at the kernel's entry (3.2)."""

_VIDEO, _ADDRESSES = 1 << 2, 1 << 16
_KNOWN = 0x7
"""The flags with which a kernel requires aligned modules, a memory map, a video mode."""
_REQUIRED = 0xFFFF
_MEMORY, _COMMAND_LINE, _MODULES = 1 << 0, 1 << 2, 1 << 3
_MEMORY_MAP, _LOADER_NAME = 1 << 6, 1 << 9
_OTHER = "give a kernel for 32-bit or 64-bit x86"


class _Header(LittleEndianStructure):
    """The Multiboot header (3.1.1); the addresses are valid if a flag says so."""

    magic: int
    flags: int
    checksum: int
    header_addr: int
    load_addr: int
    load_end_addr: int
    bss_end_addr: int
    entry_addr: int
    _fields_ = (
        ("magic", c_uint32),
        ("flags", c_uint32),
        ("checksum", c_uint32),
        ("header_addr", c_uint32),
        ("load_addr", c_uint32),
        ("load_end_addr", c_uint32),
        ("bss_end_addr", c_uint32),
        ("entry_addr", c_uint32),
    )


class _Information(LittleEndianStructure):
    """The Multiboot information, which EBX points to (3.3); absent parts are zero, their flags clear."""

    _fields_ = (
        ("flags", c_uint32),
        ("mem_lower", c_uint32),
        ("mem_upper", c_uint32),
        ("boot_device", c_uint32),
        ("cmdline", c_uint32),
        ("mods_count", c_uint32),
        ("mods_addr", c_uint32),
        ("syms", c_uint32 * 4),
        ("mmap_length", c_uint32),
        ("mmap_addr", c_uint32),
        ("drives_length", c_uint32),
        ("drives_addr", c_uint32),
        ("config_table", c_uint32),
        ("boot_loader_name", c_uint32),
        ("apm_table", c_uint32),
        ("video", c_uint32 * 11),
    )


def load_multiboot(
    memory: GuestMemory,
    kernel: Source,
    *,
    cmdline: str | bytes = "",
    modules: Iterable[BootModule] = (),
) -> Kernel32:
    """Load a Multiboot kernel with its command line and modules, and return its entry.

    Version 1 or 2, as the image's header says. `kernel` is an ELF file for 32-bit or 64-bit x86,
    entered in 32-bit code, or has its addresses in the Multiboot header; it is given as a path,
    bytes or a binary file. It is loaded to the physical addresses that it is linked to, anywhere in
    RAM below 4 GiB; its modules to the first pages after it; command line, memory map and the rest
    below 640 KiB, or after the modules. A str becomes UTF-8. ``configure_system`` adds a descriptor
    table and ACPI tables.

    Raises KernelImageError, with nothing written, if an image is invalid, does not fit, or requires
    something unsupported, such as a video mode; OSError if it cannot be read. Sources: Multiboot
    Specification 0.6.96, Multiboot2 Specification 2.0.
    """
    return kernel32.load(memory, kernel, cmdline, modules, _read_program)


def _read_program(image: Image) -> Program:
    found = multiboot_header(image)
    if found is None:
        problem = "it has no Multiboot header in its first 32 KiB"
        raise image.error(problem, "give a Multiboot kernel")
    if found.version == 2:
        return multiboot2.read_program(image, found.offset)
    offset = found.offset
    raw = image.read(offset, min(image.size - offset, sizeof(_Header)), "its Multiboot header")
    header = _Header.from_buffer_copy(raw.ljust(sizeof(_Header), b"\0"))
    wanted = header.flags & _REQUIRED
    if wanted & ~_KNOWN or wanted & _VIDEO:
        what = "a video mode" if wanted & _VIDEO else "a feature that version 0.6.96 does not know"
        problem = f"{described(header, 'flags', offset)}: it requires {what}: not supported"
        raise image.error(problem, "build it without that")
    if header.flags & _ADDRESSES:
        if len(raw) < sizeof(_Header):
            place = f"[{offset:#x}, {offset + sizeof(_Header):#x})"
            problem = f"it ends at {image.size:#x}, before the end of its Multiboot header, {place}"
            raise image.error(problem, CORRUPT)
        entry, segments = _by_header(image, header, offset)
    elif not elf.is_elf(image.read(0, min(image.size, 4), "its beginning")):
        problem = "it is not an ELF file, and its Multiboot header has no addresses (flag 16)"
        raise image.error(problem, "give an ELF file")
    else:
        program = elf.read_program(image, (ELFCLASS32, ELFCLASS64), _OTHER)
        entry, segments = program.entry, program.segments
    return Program(entry, segments, _information, MULTIBOOT_BOOTLOADER_MAGIC)


def _by_header(image: Image, header: _Header, offset: int) -> tuple[int, tuple[Segment, ...]]:
    """Read the address fields (3.1.3): one segment, in the file around the header."""
    before = header.header_addr - header.load_addr
    if not 0 <= before <= offset:
        fields = ", ".join(described(header, name, offset) for name in ("header_addr", "load_addr"))
        raise image.error(f"{fields}: the image begins elsewhere", CORRUPT)
    begin = offset - before
    file_size = image.size - begin
    if header.load_end_addr:
        file_size = header.load_end_addr - header.load_addr
        if not 0 < file_size <= image.size - begin:
            problem = described(header, "load_end_addr", offset)
            raise image.error(f"{problem}: the image ends elsewhere", CORRUPT)
    size = max(header.bss_end_addr - header.load_addr, file_size)
    if not 0 <= header.entry_addr - header.load_addr < file_size:
        problem = f"{described(header, 'entry_addr', offset)}, outside what is loaded"
        raise image.error(problem, CORRUPT)
    return header.entry_addr, (Segment(header.load_addr, begin, file_size, size),)


def _information(told: Told, address: int) -> bytes:
    """The information for a kernel (3.3), for an address."""
    information = Information(address, sizeof(_Information))
    table = b"".join(
        struct.pack("<IQQI", 20, addresses.start, addresses.stop - addresses.start, kind)
        for addresses, kind in told.entries
    )
    modules = b"".join(
        struct.pack("<4I", place.start, place.stop, information.append(text), 0)
        for place, text in told.modules
    )
    lower, upper = told.low_and_high_kib
    record = _Information(
        flags=_MEMORY | _COMMAND_LINE | _MODULES | _MEMORY_MAP | _LOADER_NAME,
        mem_lower=lower,
        mem_upper=upper,
        cmdline=information.append(told.cmdline),
        mods_count=len(told.modules),
        mods_addr=information.append(modules),
        mmap_length=len(table),
        mmap_addr=information.append(table),
        boot_loader_name=information.append(LOADER_NAME),
    )
    return information.finish(bytes(record))
