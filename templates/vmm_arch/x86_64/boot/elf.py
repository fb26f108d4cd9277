"""ELF kernels, loaded by physical address (System V ABI, chapters 4 and 5)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from ctypes import sizeof
from dataclasses import dataclass
from itertools import pairwise

from vmm_arch.abi.linux_x86_64 import (
    EI_CLASS,
    EI_DATA,
    EI_NIDENT,
    ELFCLASS32,
    ELFCLASS64,
    ELFDATA2LSB,
    EM_386,
    EM_X86_64,
    ET_DYN,
    ET_EXEC,
    PN_XNUM,
    PT_LOAD,
    elf32_hdr,
    elf32_phdr,
    elf64_hdr,
    elf64_phdr,
)
from vmm_arch.boot.image import CORRUPT, Image, described
from vmm_arch.boot.ranges import Segment, listing
from vmm_arch.x86_64.boot.other_protocols import Header, ProgramHeader

_MAGIC = b"\x7fELF"
_ELF_HEADER = "its ELF header"

_CLASSES: dict[int, tuple[type[Header], type[ProgramHeader], int]] = {
    ELFCLASS32: (elf32_hdr, elf32_phdr, EM_386),
    ELFCLASS64: (elf64_hdr, elf64_phdr, EM_X86_64),
}
"""By EI_CLASS: the types of the two headers, and the expected e_machine."""


@dataclass(frozen=True, slots=True)
class Program:
    """An ELF file's headers, and what follows from them: physical addresses."""

    header: Header
    programs: Sequence[ProgramHeader]
    entry: int
    segments: tuple[Segment, ...]
    """The segments to load: in ascending order, without overlap."""


def is_elf(start: bytes) -> bool:
    """Whether an image with these first bytes is an ELF file."""
    return start.startswith(_MAGIC)


def read_program(image: Image, classes: Collection[int], other: str) -> Program:
    """Read an ELF file's headers and check them against the file, or raise KernelImageError.

    `classes` are the accepted values of EI_CLASS; `other` is the remedy for an ELF file of another
    kind. The caller has to check whether there is memory at the addresses.
    """
    elf_class = class_of(image)
    if elf_class not in classes or elf_class not in _CLASSES:
        wanted = " or ".join(f"{32 * one}" for one in sorted(classes))  # ELFCLASS32 is 1
        problem = f"EI_CLASS at {EI_CLASS:#x} is {elf_class:#x}: not {wanted}-bit"
        raise image.error(problem, other)
    header_type, program_type, machine = _CLASSES[elf_class]
    header = header_type.from_buffer_copy(image.read(0, sizeof(header_type), _ELF_HEADER))
    _check(image, header, machine, sizeof(program_type), other)
    size = header.e_phnum * sizeof(program_type)
    table = image.read(header.e_phoff, size, "its program headers (e_phoff, e_phnum)")
    programs = [
        program_type.from_buffer_copy(table, offset)
        for offset in range(0, size, sizeof(program_type))
    ]
    loaded, segments = [], []
    for index, program in enumerate(programs):
        if program.p_type == PT_LOAD and program.p_memsz:
            loaded.append(program)
            at = header.e_phoff + index * sizeof(program_type)
            segments.append(_segment(image, program, at))
    if not segments:
        raise image.error("it has no PT_LOAD segment: there is nothing to load", other)
    entry = _entry(image, header, loaded)
    segments.sort(key=lambda segment: segment.address)
    for lower, upper in pairwise(segments):
        if lower.end > upper.address:
            places = listing(range(one.address, one.end) for one in (lower, upper))
            raise image.error(f"segments overlap: {places} (p_paddr, p_memsz)", CORRUPT)
    return Program(header, programs, entry, tuple(segments))


def class_of(image: Image) -> int:
    """An ELF file's EI_CLASS."""
    return image.read(0, EI_NIDENT, _ELF_HEADER)[EI_CLASS]


def _entry(image: Image, elf: Header, loaded: Sequence[ProgramHeader]) -> int:
    """The guest-physical address of the entry.

    e_entry is a virtual address (System V ABI, chapter 4), as in BSD kernels, which is translated
    with its segment, as GRUB does. In Linux's vmlinux it is physical.
    """
    for program in loaded:
        if program.p_vaddr <= elf.e_entry < program.p_vaddr + program.p_filesz:
            return elf.e_entry - program.p_vaddr + program.p_paddr
    if any(one.p_paddr <= elf.e_entry < one.p_paddr + one.p_filesz for one in loaded):
        return elf.e_entry
    problem = f"{described(elf, 'e_entry')}, in no loaded segment (p_vaddr, p_paddr, p_filesz)"
    raise image.error(problem, CORRUPT)


def _check(image: Image, elf: Header, machine: int, program_size: int, other: str) -> None:
    if elf.e_ident[EI_DATA] != ELFDATA2LSB:
        problem = f"EI_DATA at {EI_DATA:#x} is {elf.e_ident[EI_DATA]:#x}: not little-endian"
    elif elf.e_machine != machine:
        problem = f"{described(elf, 'e_machine')}: for another CPU (x86 is {machine:#x})"
    elif elf.e_type not in (ET_EXEC, ET_DYN):
        problem = f"{described(elf, 'e_type')}: not an executable (ET_EXEC, ET_DYN)"
    elif elf.e_phentsize != program_size:
        problem = f"{described(elf, 'e_phentsize')}, not {program_size:#x}"
    elif elf.e_phnum == PN_XNUM:
        problem = f"{described(elf, 'e_phnum')}: more program headers than a kernel has"
    else:
        return
    raise image.error(problem, other)


def _segment(image: Image, program: ProgramHeader, at: int) -> Segment:
    """Check a program header, which is at offset `at`, against the file."""
    file_size = described(program, "p_filesz", at)
    if program.p_filesz > program.p_memsz:
        problem = f"{file_size}, more than p_memsz, {program.p_memsz:#x}"
        raise image.error(problem, CORRUPT)
    if program.p_offset + program.p_filesz > image.size:
        place = f"{described(program, 'p_offset', at)}, {file_size}"
        raise image.error(f"{place}: beyond the file's end at {image.size:#x}", CORRUPT)
    return Segment(program.p_paddr, program.p_offset, program.p_filesz, program.p_memsz)
