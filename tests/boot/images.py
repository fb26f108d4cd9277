"""Makes Multiboot kernels, whole and broken, and checks what must hold for any image whatever."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from ctypes import sizeof
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from images import MIB, Counted, Part, Recorded, inside
from vmm_arch.abi.linux_x86_64 import (
    EI_CLASS,
    EI_DATA,
    EI_VERSION,
    ELFCLASS32,
    ELFDATA2LSB,
    EM_386,
    ET_EXEC,
    EV_CURRENT,
    PT_LOAD,
    elf32_hdr,
    elf32_phdr,
)
from vmm_arch.boot.image import KernelImageError
from vmm_arch.exits import Halt
from vmm_arch.memory import GuestMemory, Region
from vmm_arch.x86_64.boot.kernel32 import BootModule, Kernel32
from vmm_arch.x86_64.boot.multiboot import load_multiboot
from vmm_arch.x86_64.entry import Entry
from vmm_arch.x86_64.exits import IoOut
from vmm_arch.x86_64.platform.e820 import E820_RAM, e820_map

MAGIC = 0x1BADB002
ADDRESSES = 1 << 16
MAGIC2 = 0xE85250D6


def header(flags: int = 3, *addresses: int) -> bytes:
    """A Multiboot header, with as many of the five address fields as are given."""
    checksum = -(MAGIC + flags) & 0xFFFFFFFF
    return struct.pack(f"<3I{len(addresses)}I", MAGIC, flags, checksum, *addresses)


def header2(*tags: bytes, architecture: int = 0) -> bytes:
    """A Multiboot 2 header with these tags, and the one that ends them."""
    content = b"".join(tags) + tag(0)
    size = 16 + len(content)
    checksum = -(MAGIC2 + architecture + size) & 0xFFFFFFFF
    return struct.pack("<4I", MAGIC2, architecture, size, checksum) + content


def tag(kind: int, *values: int, flags: int = 0, size: int | None = None) -> bytes:
    """A tag of a Multiboot 2 header, padded."""
    content = struct.pack(f"<{len(values)}I", *values)
    length = 8 + len(content)
    raw = struct.pack("<HHI", kind, flags, length if size is None else size) + content
    return raw + bytes(-length % 8)


def elf32(parts: Iterable[Part], **fields: Any) -> bytes:
    """A 32-bit ELF image that is entered behind a Multiboot header in its first part."""
    parts = list(parts)
    ident = bytearray(b"\x7fELF".ljust(16, b"\0"))
    ident[EI_CLASS], ident[EI_DATA], ident[EI_VERSION] = ELFCLASS32, ELFDATA2LSB, EV_CURRENT
    values = {
        "e_type": ET_EXEC,
        "e_machine": EM_386,
        "e_version": EV_CURRENT,
        "e_entry": parts[0].address + 12,
        "e_phoff": sizeof(elf32_hdr),
        "e_ehsize": sizeof(elf32_hdr),
        "e_phentsize": sizeof(elf32_phdr),
        "e_phnum": len(parts),
    } | fields
    elf = elf32_hdr(**values)
    elf.e_ident[:] = list(ident)
    table, content = bytearray(), bytearray()
    start = sizeof(elf32_hdr) + len(parts) * sizeof(elf32_phdr)
    for part in parts:
        program = {
            "p_type": PT_LOAD,
            "p_offset": start + len(content),
            "p_vaddr": part.address,
            "p_paddr": part.address,
            "p_filesz": len(part.data),
            "p_memsz": len(part.data) if part.size is None else part.size,
        }
        table += bytes(elf32_phdr(**(program | dict(part.fields))))
        content += part.data
    return bytes(elf) + bytes(table + content)


@dataclass(frozen=True)
class Read:
    """What a kernel reads in its boot information."""

    cmdline: bytes
    modules: list[tuple[int, int, bytes]]
    """Where each begins and ends, and its text."""
    entries: list[tuple[int, int, int]]
    """The memory map: address, size, type."""


def text(memory: GuestMemory, address: int) -> bytes:
    """The text at an address, which has to end within 64 KiB."""
    region = next(one for one in memory.regions if one.address <= address < one.end)
    content = memory.read(address, min(region.end - address, 64 << 10))
    found, zero, _ = content.partition(b"\0")
    assert zero, "a text does not end"
    return found


def read_multiboot(memory: GuestMemory, address: int) -> Read:
    """Read the information of version 1 (3.3)."""
    flags, _, _, _, line, count, table = struct.unpack("<7I", memory.read(address, 28))
    assert flags & 0x4D == 0x4D
    length, memory_map = struct.unpack("<II", memory.read(address + 44, 8))
    assert table % 4 == memory_map % 4 == 0
    modules = struct.iter_unpack("<4I", memory.read(table, 16 * count))
    entries = struct.iter_unpack("<IQQI", memory.read(memory_map, length))
    return Read(
        text(memory, line),
        [(start, stop, text(memory, string)) for start, stop, string, _ in modules],
        [entry[1:] for entry in entries],
    )


def read_multiboot2(memory: GuestMemory, address: int) -> Read:
    """Read the information of version 2 (3.6)."""
    assert address % 8 == 0
    size, reserved = struct.unpack("<II", memory.read(address, 8))
    assert reserved == 0
    content, at, line = memory.read(address, size), 8, b""
    modules: list[tuple[int, int, bytes]] = []
    entries: list[tuple[int, int, int]] = []
    while True:
        assert at % 8 == 0
        kind, length = struct.unpack_from("<II", content, at)
        tag = content[at + 8 : at + length]
        if kind == 0:
            assert (length, at + length) == (8, size)
            return Read(line, modules, entries)
        if kind == 1:
            line = tag.removesuffix(b"\0")
        elif kind == 3:
            start, stop = struct.unpack_from("<II", tag)
            modules.append((start, stop, tag[8:].removesuffix(b"\0")))
        elif kind == 6:
            assert struct.unpack_from("<II", tag) == (24, 0)
            entries = [(a, n, kind) for a, n, kind, _ in struct.iter_unpack("<QQII", tag[8:])]
        at += length + -length % 8


def read_pvh(memory: GuestMemory, address: int) -> Read:
    """Read PVH's start info (Xen, start_info.h)."""
    magic, version, flags, count = struct.unpack("<4I", memory.read(address, 16))
    assert (magic, version, flags) == (0x336EC578, 1, 0)
    table, line, rsdp, memory_map = struct.unpack("<4Q", memory.read(address + 16, 32))
    number, reserved = struct.unpack("<II", memory.read(address + 48, 8))
    assert (rsdp, reserved) == (0xE0000, 0)
    modules = struct.iter_unpack("<4Q", memory.read(table, 32 * count) if count else b"")
    entries = struct.iter_unpack("<QQII", memory.read(memory_map, 24 * number))
    return Read(
        text(memory, line),
        [(start, start + size, text(memory, string)) for start, size, string, _ in modules],
        [entry[:3] for entry in entries],
    )


def what_it_says(arch: Any, memory: GuestMemory, entry: Entry) -> tuple[list[int], bytes]:
    """Run a kernel until it halts: the numbers that it sends to port 0x10, the text to port 0xe9."""
    numbers, said = [], bytearray()
    with arch.Vm(memory) as vm:
        arch.configure_system(vm, entry)
        arch.configure_vcpu(vm.vcpus[0], entry)
        while True:
            match vm.vcpus[0].run():
                case IoOut(port=0x10, data=data):
                    numbers.append(int.from_bytes(data, "little"))
                case IoOut(port=0xE9, data=data):
                    said += data
                case Halt():
                    return numbers, bytes(said)
                case other:
                    raise AssertionError(f"{other}")


def attempt(
    machine: int | list[Region],
    image: bytes,
    cmdline: bytes = b"",
    modules: Sequence[tuple[bytes, bytes]] = (),
    load: Callable[..., Kernel32] = load_multiboot,
) -> Kernel32 | None:
    """Load an image of which nothing is known, and assert all that must hold.

    Either it is refused by KernelImageError and nothing was written, or it is loaded, and exactly
    what was announced was written.
    """
    kernel, entry = Counted(image), None
    files = [BootModule(Counted(content), said) for content, said in modules]
    with Recorded(machine) as memory:
        try:
            entry = load(memory, kernel, cmdline=cmdline, modules=files)
            _check(memory, entry, cmdline, modules)
        except KernelImageError as error:
            assert not memory.written, f"refused, but {memory.written} was written"
            assert "; " in str(error), "the error does not say what to do"
        size = sum(region.size for region in memory.regions)
        assert kernel.count <= 2 * len(image) + 4 * 32768 + size, "read again and again"
    return entry


def _check(
    memory: Recorded,
    entry: Kernel32,
    cmdline: bytes,
    modules: Sequence[tuple[bytes, bytes]],
) -> None:
    taken = [*entry.segments, *(one for one in entry.modules if one), entry.information]
    for written in memory.written:
        assert not written or any(inside(written, one) for one in taken), f"{written} is announced"
    for one, other in combinations(taken, 2):
        assert one.stop <= other.start or other.stop <= one.start, f"{one} and {other} overlap"
    expected = [(a.start, a.stop - a.start, kind) for a, kind in e820_map(memory)]
    ram = [range(start, start + size) for start, size, kind in expected if kind == E820_RAM]
    for one in taken:
        assert any(inside(one, run) for run in ram), f"{one} is not RAM"
        assert one.stop <= 1 << 32
    assert any(entry.address in one for one in entry.segments)
    assert inside(range(entry.gdt, entry.gdt + 48), entry.information)
    assert entry.rbx >= entry.gdt + 48
    assert entry.rbx in entry.information

    read = READERS[entry.rax](memory, entry.rbx)
    assert (read.cmdline, read.entries) == (cmdline, expected)
    assert len(read.modules) == len(entry.modules) == len(modules)
    for told, place, (content, said) in zip(read.modules, entry.modules, modules, strict=True):
        assert told == (place.start, place.stop, said)
        assert place.start % 0x1000 == 0
        assert place.start >= MIB
        assert memory.read(place.start, len(place)) == content


READERS = {0x2BADB002: read_multiboot, 0x36D76289: read_multiboot2, 0: read_pvh}
"""By what EAX is at the entry."""
