"""ELF kernels such as Linux's vmlinux, loaded by physical address (System V ABI, chapters 4 and 5)."""

from __future__ import annotations

from ctypes import sizeof
from itertools import pairwise

from vmm_arch.abi.linux_x86_64 import (
    EI_CLASS,
    EI_DATA,
    ELFCLASS64,
    ELFDATA2LSB,
    EM_X86_64,
    ET_DYN,
    ET_EXEC,
    LOADED_HIGH,
    PN_XNUM,
    PT_LOAD,
    XLF_CAN_BE_LOADED_ABOVE_4G,
    XLF_KERNEL_64,
    elf64_hdr,
    elf64_phdr,
    setup_header,
)
from vmm_arch.x86_64.bzimage import BOOT_FLAG, MAGIC, VERSION_2_12
from vmm_arch.x86_64.image import CORRUPT, Image, described
from vmm_arch.x86_64.layout import (
    HIGH_MEMORY,
    MAPPED,
    Layout,
    Segment,
    clipped,
    holds,
    listing,
    memory_up_to,
)
from vmm_arch.x86_64.other_protocols import ENTER_32, multiboot_header, xen_protocol

_MAGIC = b"\x7fELF"
_COMMAND_LINE_SIZE = 2048
"""With the terminating zero: COMMAND_LINE_SIZE, Linux arch/x86/include/asm/setup.h."""
_INITRD_ADDRESS_MAX = 0x7FFFFFFF
"""What a bzImage of the same kernel says (arch/x86/boot/header.S)."""
_OTHER = "give a vmlinux for x86-64"


def is_elf(start: bytes) -> bool:
    """Whether an image that begins like this is an ELF file."""
    return start.startswith(_MAGIC)


def read_layout(image: Image, ram: list[range]) -> Layout:
    """Read the program headers and check every segment's place, or raise KernelImageError."""
    elf = elf64_hdr.from_buffer_copy(image.read(0, sizeof(elf64_hdr), "its ELF header"))
    multiboot = multiboot_header(image)
    if multiboot is not None and elf.e_ident[EI_CLASS] != ELFCLASS64:
        raise image.error(f"{multiboot}", ENTER_32)
    _check(image, elf)
    size = elf.e_phnum * sizeof(elf64_phdr)
    table = image.read(elf.e_phoff, size, "its program headers (e_phoff, e_phnum)")
    programs = [
        elf64_phdr.from_buffer_copy(table, offset) for offset in range(0, size, sizeof(elf64_phdr))
    ]
    loaded, segments = [], []
    for index, program in enumerate(programs):
        if program.p_type == PT_LOAD and program.p_memsz:
            loaded.append(program)
            segments.append(_segment(image, program, elf.e_phoff + index * sizeof(elf64_phdr)))
    if not segments:
        raise image.error("it has no PT_LOAD segment: there is nothing to load", _OTHER)
    entry = _entry(image, elf, loaded)
    if multiboot is not None and multiboot.entry in (None, entry):
        raise image.error(f"{multiboot}", ENTER_32)
    xen = xen_protocol(image, elf, programs, entry)
    if xen is not None:
        raise image.error(*xen)
    segments.sort(key=lambda segment: segment.address)
    return Layout(
        entry=entry,
        kernel=_check_places(image, segments, ram),
        segments=tuple(segments),
        setup_header=_setup_header(),
    )


def _entry(image: Image, elf: elf64_hdr, loaded: list[elf64_phdr]) -> int:
    """The guest-physical address of the entry.

    It is virtual (System V ABI, chapter 4), as BSDs have it, and then its segment says where that
    is in physical memory, as for GRUB. Linux's vmlinux has a physical one.
    """
    for program in loaded:
        if program.p_vaddr <= elf.e_entry < program.p_vaddr + program.p_filesz:
            return elf.e_entry - program.p_vaddr + program.p_paddr
    if any(one.p_paddr <= elf.e_entry < one.p_paddr + one.p_filesz for one in loaded):
        return elf.e_entry
    problem = f"{described(elf, 'e_entry')}, in no loaded segment (p_vaddr, p_paddr, p_filesz)"
    raise image.error(problem, CORRUPT)


def _check(image: Image, elf: elf64_hdr) -> None:
    if elf.e_ident[EI_CLASS] != ELFCLASS64:
        problem = f"EI_CLASS at {EI_CLASS:#x} is {elf.e_ident[EI_CLASS]:#x}: not 64-bit"
    elif elf.e_ident[EI_DATA] != ELFDATA2LSB:
        problem = f"EI_DATA at {EI_DATA:#x} is {elf.e_ident[EI_DATA]:#x}: not little-endian"
    elif elf.e_machine != EM_X86_64:
        problem = f"{described(elf, 'e_machine')}: for another CPU, x86-64 is {EM_X86_64:#x}"
    elif elf.e_type not in (ET_EXEC, ET_DYN):
        problem = f"{described(elf, 'e_type')}: not linked to be run (ET_EXEC, ET_DYN)"
    elif elf.e_phentsize != sizeof(elf64_phdr):
        problem = f"{described(elf, 'e_phentsize')}, not {sizeof(elf64_phdr):#x}"
    elif elf.e_phnum == PN_XNUM:
        problem = f"{described(elf, 'e_phnum')}: more program headers than a kernel has"
    else:
        return
    raise image.error(problem, _OTHER)


def _segment(image: Image, program: elf64_phdr, at: int) -> Segment:
    """Check what a program header, `at` an offset in the file, says of the file itself."""
    file_size = described(program, "p_filesz", at)
    if program.p_filesz > program.p_memsz:
        problem = f"{file_size}, more than p_memsz, {program.p_memsz:#x}"
        raise image.error(problem, CORRUPT)
    if program.p_offset + program.p_filesz > image.size:
        place = f"{described(program, 'p_offset', at)}, {file_size}"
        raise image.error(f"{place}: it ends before, at {image.size:#x}", CORRUPT)
    return Segment(program.p_paddr, program.p_offset, program.p_filesz, program.p_memsz)


def _check_places(image: Image, segments: list[Segment], ram: list[range]) -> range:
    """Check that ascending segments are apart and in RAM, and return the addresses they span."""
    for lower, upper in pairwise(segments):
        if lower.end > upper.address:
            places = listing(range(one.address, one.end) for one in (lower, upper))
            raise image.error(f"segments overlap: {places} (p_paddr, p_memsz)", CORRUPT)
    kernel = range(segments[0].address, segments[-1].end)
    place = f"its segments go to {listing([kernel])} (p_paddr, p_memsz)"
    if kernel.start < HIGH_MEMORY:
        problem = f"{place}: below {HIGH_MEMORY:#x} are zero page, page tables and command line"
        raise image.error(problem, "link it to physical addresses from there on")
    if not holds(clipped(ram, HIGH_MEMORY, MAPPED), kernel):
        problem = f"{place}: not all of that is RAM below {MAPPED:#x}; RAM is {listing(ram)}"
        raise image.error(problem, memory_up_to(kernel.stop) or CORRUPT)
    return kernel


def _setup_header() -> bytes:
    """What matters of the header that this kernel's bzImage would have."""
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
