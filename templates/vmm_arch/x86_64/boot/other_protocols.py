"""Kernels for other boot protocols than Linux's: Multiboot, Multiboot 2, and Xen's PVH and PV.

They are ELF images like a vmlinux, for the same CPU, but their entry expects another mode or other
registers: recognised, so that they are refused by name and do not fault in the guest.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from ctypes import sizeof
from dataclasses import dataclass
from typing import TypeAlias

from vmm_arch.abi.linux_x86_64 import (
    PT_NOTE,
    elf32_hdr,
    elf32_phdr,
    elf64_hdr,
    elf64_note,
    elf64_phdr,
    elf64_shdr,
)
from vmm_arch.boot.image import Image, KernelImageError, OtherProtocolError

Header: TypeAlias = elf32_hdr | elf64_hdr
ProgramHeader: TypeAlias = elf32_phdr | elf64_phdr

_FOR_A_PC = "give a kernel for a PC"

_MULTIBOOT = 0x1BADB002
_MULTIBOOT_SEARCH = 8192
_ADDRESSES_VALID = 1 << 16
_MULTIBOOT2 = 0xE85250D6
_MULTIBOOT2_SEARCH = 32768
_ENTRY_TAG = 3
_XEN_ENTRY, _XEN_PHYS32_ENTRY = 1, 18
_XEN_SECTION = b"\0__xen_guest\0"
"""The older marker, from before there were notes for it."""
_MOST = 64 << 10
"""The most bytes read of notes and of section names: a kernel has a few hundred, hostile headers
may claim more."""


@dataclass(frozen=True, slots=True)
class Multiboot:
    """A Multiboot header. Its entry is always 32-bit code."""

    offset: int
    """In the file."""
    version: int
    entry: int | None
    """Physical; None if the header has none, so that the ELF header's counts."""

    def refusal(self, image: Image) -> OtherProtocolError:
        """The error where a kernel of another protocol is expected."""
        name = "Multiboot" if self.version == 1 else "Multiboot 2"
        problem = f"it is a {name} kernel (header at {self.offset:#x}), entered in 32-bit code"
        return image.error_of_protocol(problem, "multiboot")


def multiboot_header(image: Image) -> Multiboot | None:
    """Find a Multiboot header as a loader does (Multiboot 0.6.96, 3.1; Multiboot 2.0, 3.1)."""
    start = image.read(0, min(image.size, _MULTIBOOT2_SEARCH), "its beginning")
    for offset in _places(start[:_MULTIBOOT_SEARCH], _MULTIBOOT, 4):
        if offset + 12 <= len(start):
            flags, checksum = struct.unpack_from("<II", start, offset + 4)
            if not _MULTIBOOT + flags + checksum & 0xFFFFFFFF:
                entry = None
                if flags & _ADDRESSES_VALID and offset + 32 <= len(start):
                    (entry,) = struct.unpack_from("<I", start, offset + 28)
                return Multiboot(offset, 1, entry)
    for offset in _places(start, _MULTIBOOT2, 8):
        if offset + 16 <= len(start):
            architecture, length, checksum = struct.unpack_from("<III", start, offset + 4)
            if not _MULTIBOOT2 + architecture + length + checksum & 0xFFFFFFFF:
                return Multiboot(offset, 2, _entry_tag(start[offset + 16 : offset + length]))
    return None


def pvh_entry(image: Image, programs: Sequence[ProgramHeader]) -> int | None:
    """The physical address of the PVH entry, by Xen's note PHYS32_ENTRY; None without one."""
    for name, kind, content in _notes(image, programs):
        if name == b"Xen\0" and kind == _XEN_PHYS32_ENTRY:
            return int.from_bytes(content, "little")
    return None


def xen_refusal(
    image: Image, elf: Header, programs: Sequence[ProgramHeader], entry: int
) -> KernelImageError | None:
    """The error if the ELF entry is for a protocol of Xen's; None if it is for none.

    `entry` is the entry's physical address. A Linux kernel has entries for Xen as well, but its ELF
    entry is not one of them. Source: Xen, xen/include/public/elfnote.h; the notes' layout: System V
    ABI, chapter 5.
    """
    for name, kind, content in _notes(image, programs):
        value = int.from_bytes(content, "little")
        if name == b"Xen\0" and kind == _XEN_PHYS32_ENTRY and value == entry:
            problem = "it is a PVH kernel (Xen's note PHYS32_ENTRY), entered in 32-bit code"
            return image.error_of_protocol(problem, "pvh")
        if name == b"Xen\0" and kind == _XEN_ENTRY and value == elf.e_entry:
            return image.error("it is a kernel for Xen's PV guests (Xen's note ENTRY)", _FOR_A_PC)
    if _XEN_SECTION in _section_names(image, elf):
        return image.error("it is a kernel for Xen's PV guests (section __xen_guest)", _FOR_A_PC)
    return None


def _places(content: bytes, magic: int, alignment: int) -> Iterator[int]:
    wanted = magic.to_bytes(4, "little")
    place = content.find(wanted)
    while place >= 0:
        if not place % alignment:
            yield place
        place = content.find(wanted, place + 1)


def _entry_tag(tags: bytes) -> int | None:
    """The entry address in the tags of a Multiboot 2 header, if there is one (3.1.3 and on)."""
    at = 0
    while at + 12 <= len(tags):
        kind, _, size, value = struct.unpack_from("<HHII", tags, at)
        if kind == _ENTRY_TAG:
            return int(value)
        at += max(size + 7 & ~7, 8)
    return None


def _notes(image: Image, programs: Sequence[ProgramHeader]) -> Iterator[tuple[bytes, int, bytes]]:
    """Name, type and content of each note; invalid ones are skipped, since loading needs none."""
    left = _MOST
    for one in programs:
        if (
            one.p_type == PT_NOTE
            and one.p_filesz <= left
            and one.p_offset + one.p_filesz <= image.size
        ):
            left -= one.p_filesz
            yield from _notes_in(image.read(one.p_offset, one.p_filesz, "its notes"))


def _section_names(image: Image, elf: Header) -> bytes:
    """The section names, each preceded by a zero; empty if invalid, since loading needs none."""
    size = sizeof(elf64_shdr)
    at = elf.e_shoff + elf.e_shstrndx * size
    if elf.e_shentsize != size or elf.e_shstrndx >= elf.e_shnum or at + size > image.size:
        return b""
    names = elf64_shdr.from_buffer_copy(image.read(at, size, "a section header"))
    if names.sh_size > _MOST or names.sh_offset + names.sh_size > image.size:
        return b""
    return image.read(names.sh_offset, names.sh_size, "names of sections")


def _notes_in(content: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    at = 0
    while at + sizeof(elf64_note) <= len(content):
        note = elf64_note.from_buffer_copy(content, at)
        name = at + sizeof(elf64_note)
        begin = name + (note.n_namesz + 3 & ~3)
        end = begin + note.n_descsz
        if end > len(content):
            return
        yield content[name : name + note.n_namesz], note.n_type, content[begin:end]
        at = end + 3 & ~3
