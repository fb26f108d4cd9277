"""PVH kernels: ELF files that Xen's note PHYS32_ENTRY gives a 32-bit entry, as Linux and the BSDs have.

Source: Xen, docs/misc/pvh.pandoc and xen/include/public/arch-x86/hvm/start_info.h.
"""

from __future__ import annotations

from collections.abc import Iterable
from ctypes import LittleEndianStructure, c_uint32, c_uint64, sizeof
from typing import TYPE_CHECKING, Final

from vmm_arch.abi.linux_x86_64 import ELFCLASS32, ELFCLASS64
from vmm_arch.boot.image import CORRUPT, Image
from vmm_arch.memory import GuestMemory
from vmm_arch.x86_64.boot import elf, kernel32
from vmm_arch.x86_64.boot.kernel32 import BootModule, Information, Kernel32, Program, Told
from vmm_arch.x86_64.boot.other_protocols import pvh_entry
from vmm_arch.x86_64.platform.acpi import RSDP_ADDRESS

if TYPE_CHECKING:
    from vmm_arch.boot.image import Source

START_MAGIC: Final = 0x336EC578
_VERSION = 1
"""The first version that has a memory map."""
_OTHER = "give a kernel for 32-bit or 64-bit x86"


class StartInfo(LittleEndianStructure):
    """``struct hvm_start_info``, which EBX points to at the kernel's entry."""

    _fields_ = (
        ("magic", c_uint32),
        ("version", c_uint32),
        ("flags", c_uint32),
        ("nr_modules", c_uint32),
        ("modlist_paddr", c_uint64),
        ("cmdline_paddr", c_uint64),
        ("rsdp_paddr", c_uint64),
        ("memmap_paddr", c_uint64),
        ("memmap_entries", c_uint32),
        ("reserved", c_uint32),
    )


class ModuleEntry(LittleEndianStructure):
    """``struct hvm_modlist_entry``."""

    _fields_ = (
        ("paddr", c_uint64),
        ("size", c_uint64),
        ("cmdline_paddr", c_uint64),
        ("reserved", c_uint64),
    )


class MemoryMapEntry(LittleEndianStructure):
    """``struct hvm_memmap_table_entry``; the types are those of ACPI."""

    _fields_ = (
        ("addr", c_uint64),
        ("size", c_uint64),
        ("type", c_uint32),
        ("reserved", c_uint32),
    )


def load_pvh(
    memory: GuestMemory,
    kernel: Source,
    *,
    cmdline: str | bytes = "",
    modules: Iterable[BootModule] = (),
) -> Kernel32:
    """Load a PVH kernel with its command line and modules, and return its entry.

    `kernel` is an ELF file for 32-bit or 64-bit x86 with Xen's note PHYS32_ENTRY, such as a vmlinux
    with CONFIG_PVH, given as a path, bytes or a binary file. It is loaded to the physical addresses
    that it is linked to, anywhere in RAM below 4 GiB; its modules to the first pages after it (to
    Linux the first one is its initrd); the start info with memory map and command line below
    640 KiB, or after the modules. ``configure_system`` adds a descriptor table and the ACPI tables
    that the start info refers to.

    Raises KernelImageError, with nothing written, if an image is invalid or does not fit; OSError if
    it cannot be read.
    """
    return kernel32.load(memory, kernel, cmdline, modules, _read_program)


def _read_program(image: Image) -> Program:
    image.require_content()
    if not elf.is_elf(image.read(0, min(image.size, 4), "its beginning")):
        raise image.error("it is not an ELF file", "give a PVH kernel, such as a vmlinux")
    program = elf.read_program(image, (ELFCLASS32, ELFCLASS64), _OTHER)
    entry = pvh_entry(image, program.programs)
    if entry is None:
        problem = "it has no PVH entry (Xen's note PHYS32_ENTRY)"
        raise image.error(problem, "give a PVH kernel, such as a vmlinux with CONFIG_PVH")
    if not any(one.address <= entry < one.address + one.file_size for one in program.segments):
        raise image.error(f"its PVH entry, {entry:#x}, is outside what is loaded", CORRUPT)
    return Program(entry, program.segments, _start_info)


def _start_info(told: Told, address: int) -> bytes:
    """The start info for an address, with what it points to."""
    information = Information(address, sizeof(StartInfo))
    modules = b"".join(
        bytes(ModuleEntry(place.start, place.stop - place.start, information.append(text)))
        for place, text in told.modules
    )
    entries = b"".join(
        bytes(MemoryMapEntry(addresses.start, addresses.stop - addresses.start, kind))
        for addresses, kind in told.entries
    )
    start_info = StartInfo(
        magic=START_MAGIC,
        version=_VERSION,
        nr_modules=len(told.modules),
        modlist_paddr=information.append(modules, 8) if modules else 0,
        cmdline_paddr=information.append(told.cmdline),
        rsdp_paddr=RSDP_ADDRESS,
        memmap_paddr=information.append(entries, 8),
        memmap_entries=len(told.entries),
    )
    return information.finish(bytes(start_info))
