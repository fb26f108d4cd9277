"""Multiboot kernels: loads them with their modules, and writes the Multiboot information.

Version 1 of the protocol (Multiboot Specification 0.6.96; section numbers refer to it). As with
Linux's kernels, no field of an image is trusted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from ctypes import LittleEndianStructure, c_uint32, sizeof
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmm_arch.abi.linux_x86_64 import ELFCLASS32, ELFCLASS64
from vmm_arch.boot.image import CORRUPT, Image, described, opened, terminated
from vmm_arch.boot.ranges import (
    Segment,
    aligned,
    clipped,
    highest,
    holds,
    listing,
    lowest,
    runs_of,
    without,
)
from vmm_arch.memory import PAGE_SIZE, GuestMemory
from vmm_arch.x86_64.boot import elf
from vmm_arch.x86_64.boot.other_protocols import multiboot_header
from vmm_arch.x86_64.entry import Protected32
from vmm_arch.x86_64.platform.acpi import write_acpi
from vmm_arch.x86_64.platform.e820 import e820_map
from vmm_arch.x86_64.platform.memory_map import EBDA, HIGH_MEMORY, memory_up_to
from vmm_arch.x86_64.tables import GDT_SIZE, MAPPED

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
_BEFORE = aligned(GDT_SIZE, 16)
"""Room for a descriptor table before the information."""
_NAME = b"vmm-arch\0"
_KIB = 1 << 10
_LOWEST = PAGE_SIZE
"""Below are a PC's real-mode interrupt table and BIOS data area."""
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


@dataclass(frozen=True, slots=True)
class MultibootModule:
    """A file that is loaded for a Multiboot kernel, and its command line."""

    image: Source
    """A path, bytes or a binary file."""
    cmdline: str | bytes = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Multiboot32(Protected32):
    """The 32-bit entry of a loaded Multiboot kernel, and the addresses of its parts.

    RBX has the address of the Multiboot information. The machine state is that of section 3.2.
    """

    rax: int = MULTIBOOT_BOOTLOADER_MAGIC
    segments: tuple[range, ...]
    """The address ranges of the kernel itself, ascending."""
    information: range
    """The Multiboot information with its tables and texts, and the descriptor table."""
    modules: tuple[range, ...] = ()

    def write_tables(self, memory: GuestMemory, vcpus: int) -> None:
        """Write descriptor table and ACPI tables."""
        Protected32.write_tables(self, memory, vcpus)
        write_acpi(memory, vcpus)


def load_multiboot(
    memory: GuestMemory,
    kernel: Source,
    *,
    cmdline: str | bytes = "",
    modules: Iterable[MultibootModule] = (),
) -> Multiboot32:
    """Load a Multiboot kernel with its command line and modules, and return its entry.

    `kernel` is an ELF file for 32-bit or 64-bit x86, entered in 32-bit code, or has its addresses
    in the Multiboot header; it is given as a path, bytes or a binary file. It is loaded to the
    physical addresses that it is linked to, anywhere in RAM below 4 GiB; its modules to the first
    pages after it; command line, memory map and the rest below 640 KiB, or after the modules. A str
    becomes UTF-8. ``configure_system`` adds a descriptor table and ACPI tables.

    Raises KernelImageError, with nothing written, if an image is invalid, does not fit, or requires
    something unsupported, such as a video mode; OSError if it cannot be read. Source: Multiboot
    Specification 0.6.96.
    """
    limit = sum(region.size for region in memory.regions)
    ram = _usable(memory)
    line = terminated(cmdline, "command line")
    with ExitStack() as stack:
        image = stack.enter_context(opened(kernel, "kernel", limit))
        entry, segments = _read_program(image)
        places = tuple(range(one.address, one.end) for one in segments)
        free = ram
        for place in places:
            if not holds(ram, place):
                problem = f"it goes to {listing([place])}; RAM is {listing(ram)}"
                more = memory_up_to(place.stop) if place.start >= HIGH_MEMORY else None
                raise image.error(problem, more or "link it to other addresses")
            free = without(free, place)

        module_images, module_places, texts = [], [], []
        start = max(places[-1].stop, HIGH_MEMORY)
        for index, module in enumerate(modules):
            if not isinstance(module, MultibootModule):
                raise TypeError(f"expected MultibootModule, got {type(module).__name__}")
            one = stack.enter_context(opened(module.image, f"module {index}", limit))
            address = lowest(free, one.size, start, PAGE_SIZE)
            if address is None:
                problem = f"its {one.size:#x} bytes do not fit after {start:#x}"
                more = memory_up_to(aligned(start, PAGE_SIZE) + one.size)
                raise one.error(f"{problem}; RAM is {listing(ram)}", more or "give a smaller one")
            module_images.append(one)
            module_places.append(range(address, address + one.size))
            texts.append(terminated(module.cmdline, f"{one.name}'s command line"))
            start = module_places[-1].stop

        entries = e820_map(memory)
        size = len(_information(0, ram, entries, line, module_places, texts))
        address = highest(clipped(free, _LOWEST, EBDA.start), size)
        if address is None:
            address = lowest(free, size, start, PAGE_SIZE)
        if address is None:
            problem = f"the {size:#x} bytes of its Multiboot information do not fit beside it"
            raise image.error(f"{problem}; RAM is {listing(ram)}", "give the guest more memory")

        for segment in segments:
            image.load(segment, memory)
        for one, place in zip(module_images, module_places, strict=True):
            one.copy(0, one.size, memory, place.start)
        memory.write(address, _information(address, ram, entries, line, module_places, texts))
    return Multiboot32(
        entry,
        rbx=address + _BEFORE,
        gdt=address,
        segments=places,
        information=range(address, address + size),
        modules=tuple(module_places),
    )


def _usable(memory: GuestMemory) -> list[range]:
    """RAM that 32-bit code reaches, except the firmware's on a PC below 1 MiB."""
    ram = runs_of(memory, writable=True)
    return [*clipped(ram, 0, EBDA.start), *clipped(ram, HIGH_MEMORY, MAPPED)]


def _read_program(image: Image) -> tuple[int, tuple[Segment, ...]]:
    """The image's entry, and its segments in ascending order: physical addresses."""
    found = multiboot_header(image)
    if found is None or found.version != 1:
        problem = f"{found}" if found else "it has no Multiboot header in its first 8 KiB"
        raise image.error(problem, "give a Multiboot version 1 kernel")
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
        return _by_header(image, header, offset)
    if not elf.is_elf(image.read(0, min(image.size, 4), "its beginning")):
        problem = "it is not an ELF file, and its Multiboot header has no addresses (flag 16)"
        raise image.error(problem, "give an ELF file")
    program = elf.read_program(image, (ELFCLASS32, ELFCLASS64), _OTHER)
    return program.entry, program.segments


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


def _information(
    address: int,
    ram: Sequence[range],
    entries: Sequence[tuple[range, int]],
    line: bytes,
    modules: Sequence[range],
    texts: Sequence[bytes],
) -> bytes:
    """The information for a kernel (3.3), for an address; begins with room for a descriptor table."""
    content = bytearray(_BEFORE + sizeof(_Information))

    def append(data: bytes) -> int:
        content.extend(bytes(-len(content) % 4))
        content.extend(data)
        return address + len(content) - len(data)

    table = b"".join(
        struct.pack("<IQQI", 20, addresses.start, addresses.stop - addresses.start, kind)
        for addresses, kind in entries
    )
    module_table = b"".join(
        struct.pack("<4I", place.start, place.stop, append(text), 0)
        for place, text in zip(modules, texts, strict=True)
    )
    upper = next((run.stop - run.start for run in ram if run.start == HIGH_MEMORY), 0)
    lower = next((run.stop for run in ram if run.start == 0), 0)
    information = _Information(
        flags=_MEMORY | _COMMAND_LINE | _MODULES | _MEMORY_MAP | _LOADER_NAME,
        mem_lower=lower // _KIB,
        mem_upper=upper // _KIB,
        cmdline=append(line),
        mods_count=len(modules),
        mods_addr=append(module_table),
        mmap_length=len(table),
        mmap_addr=append(table),
        boot_loader_name=append(_NAME),
    )
    content[_BEFORE : _BEFORE + sizeof(_Information)] = bytes(information)
    return bytes(content)
