"""Kernels made for tests, tries to load them, and what must hold for any image whatever."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from ctypes import sizeof
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from vmm_arch.abi.linux_x86_64 import (
    EI_CLASS,
    EI_DATA,
    EI_VERSION,
    ELFCLASS64,
    ELFDATA2LSB,
    EM_X86_64,
    ET_EXEC,
    EV_CURRENT,
    LOADED_HIGH,
    PT_LOAD,
    PT_NOTE,
    XLF_CAN_BE_LOADED_ABOVE_4G,
    XLF_KERNEL_64,
    boot_params,
    elf64_hdr,
    elf64_phdr,
    setup_header,
)
from vmm_arch.boot.image import KernelImageError
from vmm_arch.memory import GuestMemory, Region
from vmm_arch.x86_64.linux.entry import Linux64
from vmm_arch.x86_64.linux.kernel import load_kernel
from vmm_arch.x86_64.linux.zero_page import write_zero_page
from vmm_arch.x86_64.platform.e820 import E820_RAM, e820_map

PAGE = 0x1000
MIB = 1 << 20
GIB = 1 << 30

CODE = bytes(range(256)) * 3
"""Longer than the offset of the 64-bit entry."""
TEXT, DATA = b"text" * 64, b"data" * 32


def bzimage(code: bytes = CODE, behind: bytes = b"", **fields: int) -> bytes:
    """A bzImage for 2 MiB that needs 64 KiB there; `fields` are those of the setup header."""
    values = {
        "setup_sects": 1,
        "syssize": -(-len(code) // 16),
        "boot_flag": 0xAA55,
        "jump": 0xEB | (0x26C - 0x202) << 8,
        "header": 0x53726448,
        "version": 0x020F,
        "loadflags": LOADED_HIGH,
        "initrd_addr_max": 0x7FFFFFFF,
        "kernel_alignment": 2 * MIB,
        "relocatable_kernel": 1,
        "xloadflags": XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G,
        "cmdline_size": 2047,
        "pref_address": 2 * MIB,
        "init_size": 0x10000,
    } | fields
    sectors = (values["setup_sects"] or 4) + 1
    setup = bytearray(sectors * 512)
    setup[0x1F1 : 0x1F1 + sizeof(setup_header)] = bytes(setup_header(**values))
    return bytes(setup) + code + behind


def old_bzimage(name: bytes, version: int) -> bytes:
    """What has a bzImage's header by an older protocol, as Linux, iPXE and memdisk have."""
    image = bytearray(bzimage(version=version, xloadflags=0, kernel_version=0x100))
    image[0x300 : 0x300 + len(name) + 1] = name + b"\0"
    return bytes(image)


def multiboot(entry: int | None = None) -> bytes:
    """A Multiboot header, perhaps one that says where to load and to enter, too."""
    flags = 3 if entry is None else 3 | 1 << 16
    header = struct.pack("<III", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF)
    return header if entry is None else header + struct.pack("<5I", 0, 0, 0, 0, entry)


def multiboot2(entry: int | None = None) -> bytes:
    """A Multiboot 2 header, perhaps one that says where to enter."""
    tags = struct.pack("<HHII", 1, 0, 12, 0).ljust(16, b"\0")
    if entry is not None:
        tags += struct.pack("<HHII", 3, 0, 12, entry).ljust(16, b"\0")
    tags += struct.pack("<HHI", 0, 0, 8)
    size = 16 + len(tags)
    checksum = -(0xE85250D6 + size) & 0xFFFFFFFF
    return struct.pack("<IIII", 0xE85250D6, 0, size, checksum) + tags


def note(name: bytes, kind: int, content: bytes) -> bytes:
    """An ELF note."""
    padded = [one + bytes(-len(one) % 4) for one in (name, content)]
    return struct.pack("<III", len(name), len(content), kind) + b"".join(padded)


def notes(content: bytes) -> Part:
    """A segment of notes, which is not loaded."""
    return Part(0, content, None, (("p_type", PT_NOTE),))


@dataclass(frozen=True)
class Part:
    """A segment of an ELF image: its bytes, its physical address, its size in memory."""

    address: int
    data: bytes
    size: int | None = None
    fields: tuple[tuple[str, int], ...] = ()
    """Fields of the program header that are to say something else."""


def elf(parts: Iterable[Part], **fields: Any) -> bytes:
    """An ELF image that is entered at its first part; `fields` are those of the ELF header."""
    parts = list(parts)
    ident = bytearray(b"\x7fELF".ljust(16, b"\0"))
    ident[EI_CLASS], ident[EI_DATA], ident[EI_VERSION] = ELFCLASS64, ELFDATA2LSB, EV_CURRENT
    for name in ("EI_CLASS", "EI_DATA"):
        if name in fields:
            ident[{"EI_CLASS": EI_CLASS, "EI_DATA": EI_DATA}[name]] = fields.pop(name)
    values = {
        "e_type": ET_EXEC,
        "e_machine": EM_X86_64,
        "e_version": EV_CURRENT,
        "e_entry": parts[0].address if parts else 0,
        "e_phoff": sizeof(elf64_hdr),
        "e_ehsize": sizeof(elf64_hdr),
        "e_phentsize": sizeof(elf64_phdr),
        "e_phnum": len(parts),
    } | fields
    header = elf64_hdr(**values)
    header.e_ident[:] = list(ident)
    table, content = bytearray(), bytearray()
    start = sizeof(elf64_hdr) + len(parts) * sizeof(elf64_phdr)
    for part in parts:
        program = {
            "p_type": PT_LOAD,
            "p_offset": start + len(content),
            "p_vaddr": part.address + 0xFFFFFFFF80000000,  # where Linux is linked to run
            "p_paddr": part.address,
            "p_filesz": len(part.data),
            "p_memsz": len(part.data) if part.size is None else part.size,
        }
        table += bytes(elf64_phdr(**(program | dict(part.fields))))
        content += part.data
    return bytes(header) + bytes(table + content)


NOISE = b"\xa5"
"""What memory is full of before, where it matters that it is not zero."""


def flat_kernel(path: Path, code: bytes) -> Path:
    """An ELF executable that is no more than some 64-bit code at 1 MiB."""
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, 0x100000, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack(
        "<IIQQQQQQ", 1, 5, 0x1000, 0x100000, 0x100000, len(code), len(code), 0x1000
    )
    path.write_bytes((header + segment).ljust(0x1000, b"\0") + code)
    return path


def noisy(memory: GuestMemory) -> None:
    for region in memory.regions:
        memory.write(region.address, NOISE * region.size)


def unchanged(memory: GuestMemory) -> bool:
    return all(
        memory.read(region.address, region.size) == NOISE * region.size for region in memory.regions
    )


def refused(kernel: Any, memory: int | list[Region] = 8 * MIB, **options: Any) -> str:
    """The message of the error for something that cannot be loaded, and that left no trace."""
    with GuestMemory(memory) as guest:
        noisy(guest)
        try:
            load_kernel(guest, kernel, **options)
        except KernelImageError as error:
            assert isinstance(error, ValueError)
            assert unchanged(guest)
            return str(error)
    raise AssertionError("it was loaded")


def loaded(kernel: Any, memory: int | list[Region] = 8 * MIB, **options: Any) -> Linux64:
    with GuestMemory(memory) as guest:
        return load_kernel(guest, kernel, **options)


class Recorded(GuestMemory):
    """Guest memory that keeps a record of what was written."""

    def __init__(self, size_or_regions: int | Iterable[Region]) -> None:
        super().__init__(size_or_regions)
        self.written: list[range] = []

    def write(self, address: int, data: Any) -> None:
        super().write(address, data)
        self.written.append(range(address, address + len(data)))

    def view(self, address: int, size: int) -> memoryview:
        raise AssertionError("a view could be written without a record")


class Counted(io.BytesIO):
    """A file that keeps a record of how much was read."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


MACHINES: tuple[int | list[Region], ...] = (
    8 * MIB,
    [Region(0, 3 * MIB), Region(4 * MIB, MIB, read_only=True), Region(6 * MIB, 4 * MIB)],
    [Region(0, 8 * MIB), Region(4 * GIB, 2 * MIB)],
    [Region(MIB, 8 * MIB)],
)
"""Guests that an image may be loaded into: with holes, above 4 GiB, without low memory."""


def attempt(
    machine: int | list[Region], image: bytes, cmdline: bytes = b"", initrd: bytes | None = None
) -> Linux64 | None:
    """Load an image of which nothing is known, and assert all that must hold.

    Either it is refused by KernelImageError and nothing was written, or it is loaded, and exactly
    what was announced was written. Any other exception is a failure as well.
    """
    kernel, ramdisk = Counted(image), None if initrd is None else Counted(initrd)
    linux = None
    with Recorded(machine) as memory:
        try:
            linux = load_kernel(memory, kernel, cmdline=cmdline, initrd=ramdisk)
        except KernelImageError as error:
            assert not memory.written, f"refused, but {memory.written} was written"
            assert "; " in str(error), "the error does not say what to do"
        else:
            _check(memory, linux, cmdline, initrd)
        size = sum(region.size for region in memory.regions)
        for file in filter(None, (kernel, ramdisk)):  # headers once or twice, and what was loaded
            assert file.count <= 2 * len(file.getvalue()) + size, "read again and again"
    return linux


def _check(memory: Recorded, linux: Linux64, cmdline: bytes, initrd: bytes | None) -> None:
    announced = [linux.kernel, linux.command_line]
    if linux.initrd is not None:
        announced.append(linux.initrd)
    for written in memory.written:
        assert any(inside(written, one) for one in announced), f"{written} is not in {announced}"
    taken = [*announced, range(0x500, 0x530), range(0x7000, 0x8000), range(0x8000, 0xF000)]
    for one, other in combinations(taken, 2):
        assert one.stop <= other.start or other.stop <= one.start, f"{one} and {other} overlap"
    ram = [addresses for addresses, kind in e820_map(memory) if kind == E820_RAM]
    for one in taken:
        assert any(inside(one, run) for run in ram), f"{one} is not RAM"
    assert linux.kernel.start >= MIB
    assert linux.kernel.stop <= 4 * GIB, "the first page tables do not map it"
    assert linux.address in linux.kernel

    line = linux.command_line
    assert memory.read(line.start, line.stop - line.start) == cmdline + b"\0"
    assert (linux.initrd is None) == (initrd is None)
    if linux.initrd is not None:
        assert linux.initrd.start % PAGE == 0
        assert memory.read(linux.initrd.start, linux.initrd.stop - linux.initrd.start) == initrd

    memory.written.clear()
    write_zero_page(memory, linux)
    assert memory.written == [range(0x7000, 0x8000)]
    page = boot_params.from_buffer_copy(memory.read(0x7000, PAGE))
    assert page.sentinel == 0, "Linux would take most of the page for rubbish"
    assert page.hdr.cmd_line_ptr == line.start


def inside(inner: range, outer: range) -> bool:
    return outer.start <= inner.start and inner.stop <= outer.stop
