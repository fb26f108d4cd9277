"""Makes Multiboot kernels, whole and broken, and checks what must hold for any image whatever."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from ctypes import sizeof
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
from vmm_arch.memory import Region
from vmm_arch.x86_64.boot.multiboot import Multiboot32, MultibootModule, load_multiboot
from vmm_arch.x86_64.platform.e820 import E820_RAM, e820_map

MAGIC = 0x1BADB002
ADDRESSES = 1 << 16


def header(flags: int = 3, *addresses: int) -> bytes:
    """A Multiboot header, with as many of the five address fields as are given."""
    checksum = -(MAGIC + flags) & 0xFFFFFFFF
    return struct.pack(f"<3I{len(addresses)}I", MAGIC, flags, checksum, *addresses)


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


def attempt(
    machine: int | list[Region],
    image: bytes,
    cmdline: bytes = b"",
    modules: Sequence[tuple[bytes, bytes]] = (),
) -> Multiboot32 | None:
    """Load an image of which nothing is known, and assert all that must hold.

    Either it is refused by KernelImageError and nothing was written, or it is loaded, and exactly
    what was announced was written.
    """
    kernel, entry = Counted(image), None
    files = [MultibootModule(Counted(content), text) for content, text in modules]
    with Recorded(machine) as memory:
        try:
            entry = load_multiboot(memory, kernel, cmdline=cmdline, modules=files)
            _check(memory, entry, cmdline, modules)
        except KernelImageError as error:
            assert not memory.written, f"refused, but {memory.written} was written"
            assert "; " in str(error), "the error does not say what to do"
        size = sum(region.size for region in memory.regions)
        assert kernel.count <= 2 * len(image) + 2 * 32768 + size, "read again and again"
    return entry


def _check(
    memory: Recorded,
    entry: Multiboot32,
    cmdline: bytes,
    modules: Sequence[tuple[bytes, bytes]],
) -> None:
    taken = [*entry.segments, *(one for one in entry.modules if one), entry.information]
    for written in memory.written:
        assert not written or any(inside(written, one) for one in taken), f"{written} is announced"
    for one, other in combinations(taken, 2):
        assert one.stop <= other.start or other.stop <= one.start, f"{one} and {other} overlap"
    ram = [addresses for addresses, kind in e820_map(memory) if kind == E820_RAM]
    for one in taken:
        assert any(inside(one, run) for run in ram), f"{one} is not RAM"
        assert one.stop <= 1 << 32
    assert any(entry.address in one for one in entry.segments)
    assert inside(range(entry.gdt, entry.gdt + 48), entry.information)
    assert entry.rbx >= entry.gdt + 48

    def text(address: int) -> bytes:
        content = memory.read(address, entry.information.stop - address)
        return content.partition(b"\0")[0]

    flags, _, _, _, line, count, table = struct.unpack("<7I", memory.read(entry.rbx, 28))
    assert flags & 0x4D == 0x4D
    assert text(line) == cmdline
    memory_map = struct.unpack("<I", memory.read(entry.rbx + 48, 4))[0]
    assert table % 4 == memory_map % 4 == 0
    assert count == len(entry.modules) == len(modules)
    for index, (place, (content, said)) in enumerate(zip(entry.modules, modules, strict=True)):
        start, stop, string, _ = struct.unpack("<4I", memory.read(table + 16 * index, 16))
        assert (start, stop) == (place.start, place.stop)
        assert start % 0x1000 == 0
        assert start >= MIB
        assert memory.read(start, stop - start) == content
        assert text(string) == said
