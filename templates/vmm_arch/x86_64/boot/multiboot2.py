"""Multiboot 2 kernels: what their header asks for, and the information that they get.

Source: Multiboot2 Specification 2.0, to which section numbers refer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from vmm_arch.abi.linux_x86_64 import ELFCLASS32, ELFCLASS64
from vmm_arch.boot.image import CORRUPT, Image
from vmm_arch.boot.ranges import Segment, aligned
from vmm_arch.x86_64.boot import elf
from vmm_arch.x86_64.boot.kernel32 import LOADER_NAME, Program, Told

BOOTLOADER_MAGIC: Final = 0x36D76289
"""The value of EAX at the kernel's entry (3.3)."""
_HEADER = 16
_LONGEST = 32768
"""The header is in the image's first 32 KiB (3.1)."""
_I386 = 0
_OPTIONAL = 1 << 0
_ADDRESS_TAG, _ENTRY_TAG = 2, 3
_HARMLESS = {4, 6, 7, 10}
"""Tags of the header that ask for what every machine here has, or for what is here no question:
console flags, alignment of modules to pages, EFI boot services, a range of load addresses."""
_REQUEST_TAG = 1
_NAMES = {5: "a framebuffer", 8: "EFI's 32-bit entry", 9: "EFI's 64-bit entry"}
_CMDLINE, _LOADER, _MODULE, _BASIC, _MEMORY_MAP = 1, 2, 3, 4, 6
_TOLD = {_CMDLINE, _LOADER, _MODULE, _BASIC, _MEMORY_MAP}
"""Tags of the information that a kernel gets (3.6)."""
_OTHER = "give a kernel for 32-bit or 64-bit x86"
_WITHOUT = "build it without that, or mark the tag as optional"


@dataclass(slots=True)
class _Wanted:
    """What the tags of a header say."""

    addresses: tuple[int, int, int, int] | None = None
    """header_addr, load_addr, load_end_addr, bss_end_addr (3.1.5)."""
    entry: int | None = None
    unsupported: list[str] = field(default_factory=list)


def read_program(image: Image, offset: int) -> Program:
    """Read the header at `offset`, whose magic number and checksum are right, and what it is about."""
    start = image.read(offset, min(image.size - offset, _LONGEST), "its Multiboot 2 header")
    architecture, length = struct.unpack_from("<II", start, 4)
    if architecture != _I386:
        problem = f"architecture at {offset + 4:#x} is {architecture}: not 32-bit protected mode"
        raise image.error(problem, _OTHER)
    if not _HEADER <= length <= len(start):
        problem = f"header_length at {offset + 8:#x} is {length:#x}: not within the image"
        raise image.error(problem, CORRUPT)
    wanted = _read_tags(image, start[_HEADER:length], offset + _HEADER)
    if wanted.unsupported:
        problem = f"its Multiboot 2 header requires {', '.join(wanted.unsupported)}: not supported"
        raise image.error(problem, _WITHOUT)
    if wanted.addresses is not None:
        segments: tuple[Segment, ...] = (_by_header(image, wanted.addresses, offset),)
        entry = wanted.entry
        if entry is None:
            problem = "its Multiboot 2 header has an address tag and no entry address tag"
            raise image.error(problem, CORRUPT)
    elif not elf.is_elf(image.read(0, min(image.size, 4), "its beginning")):
        problem = "it is not an ELF file, and its Multiboot 2 header has no address tag"
        raise image.error(problem, "give an ELF file")
    else:
        program = elf.read_program(image, (ELFCLASS32, ELFCLASS64), _OTHER)
        segments = program.segments
        entry = program.entry if wanted.entry is None else wanted.entry
    if not any(one.address <= entry < one.address + one.file_size for one in segments):
        raise image.error(f"its Multiboot 2 entry, {entry:#x}, is outside what is loaded", CORRUPT)
    return Program(entry, segments, _information, BOOTLOADER_MAGIC)


def _read_tags(image: Image, tags: bytes, offset: int) -> _Wanted:
    """Read the header's tags (3.1.3), which begin at `offset` in the image."""
    wanted = _Wanted()
    for kind, flags, at, content in _tags(image, tags, offset):
        layout = {_ADDRESS_TAG: "<4I", _ENTRY_TAG: "<I"}.get(kind)
        if layout is not None and len(content) < struct.calcsize(layout):
            problem = f"its Multiboot 2 header's tag at {at:#x} has {len(content)} bytes"
            raise image.error(f"{problem}, too few for its type, {kind}", CORRUPT)
        if kind == _ADDRESS_TAG:
            wanted.addresses = struct.unpack_from("<4I", content)
        elif kind == _ENTRY_TAG:
            (wanted.entry,) = struct.unpack_from("<I", content)
        elif flags & _OPTIONAL or kind in _HARMLESS:
            continue
        elif kind == _REQUEST_TAG:
            asked = {one for (one,) in struct.iter_unpack("<I", content[: len(content) & ~3])}
            wanted.unsupported += (f"information of type {one}" for one in sorted(asked - _TOLD))
        else:
            wanted.unsupported.append(_NAMES.get(kind, f"a feature of type {kind}"))
    return wanted


def _tags(image: Image, tags: bytes, offset: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, place and content of each tag; they end with one of type 0."""
    at = 0
    while at + 8 <= len(tags):
        kind, flags, size = struct.unpack_from("<HHI", tags, at)
        if not kind:
            return
        if not 8 <= size <= len(tags) - at:
            problem = f"its Multiboot 2 header's tag at {offset + at:#x} has size {size:#x}"
            raise image.error(problem, CORRUPT)
        yield kind, flags, offset + at, tags[at + 8 : at + size]
        at += aligned(size, 8)


def _by_header(image: Image, addresses: tuple[int, int, int, int], offset: int) -> Segment:
    """The segment around the header that the address tag describes (3.1.5)."""
    header, load, load_end, bss_end = addresses
    everything = 0xFFFFFFFF
    begin = 0 if load == everything else offset - (header - load)
    load = header - offset if load == everything else load
    size = image.size - begin if not load_end else load_end - load
    if load < 0 or not 0 <= begin <= offset or not 0 < size <= image.size - begin:
        fields = ", ".join(
            f"{name} {value:#x}"
            for name, value in zip(
                ("header_addr", "load_addr", "load_end_addr"), addresses, strict=False
            )
        )
        raise image.error(f"{fields}: the image begins or ends elsewhere", CORRUPT)
    return Segment(load, begin, size, max(bss_end - load, size))


def _information(told: Told, address: int) -> bytes:
    """The information for a kernel (3.6): tags, which do not depend on their address."""
    lower, upper = told.low_and_high_kib
    entries = b"".join(
        struct.pack("<QQII", addresses.start, addresses.stop - addresses.start, kind, 0)
        for addresses, kind in told.entries
    )
    tags = [
        _tag(_CMDLINE, told.cmdline),
        _tag(_LOADER, LOADER_NAME),
        *(
            _tag(_MODULE, struct.pack("<II", place.start, place.stop) + text)
            for place, text in told.modules
        ),
        _tag(_BASIC, struct.pack("<II", lower, upper)),
        _tag(_MEMORY_MAP, struct.pack("<II", 24, 0) + entries),
        _tag(0, b""),
    ]
    content = b"".join(tags)
    return struct.pack("<II", 8 + len(content), 0) + content


def _tag(kind: int, content: bytes) -> bytes:
    size = 8 + len(content)
    return struct.pack("<II", kind, size) + content + bytes(-size % 8)
