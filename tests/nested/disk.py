"""Makes a disk that a PC's BIOS boots a Linux kernel from: no boot loader, no file system.

The disk is a boot sector and three sections, one behind the other, which the sector loads to fixed
places: the kernel's real-mode code with the command line, the rest of the kernel, the initrd. What
a boot loader tells the kernel is written into its header here, beforehand; the fields are those of
the boot protocol: Documentation/arch/x86/boot.rst in the kernel.
"""

from __future__ import annotations

import struct
from pathlib import Path

from guests.assemble import assemble

_ORIGIN = 0x7C00
SOURCE = Path(__file__).with_name("boot_sector.S")
_SECTOR = 512
_CHUNK = 0x4000
"""What the boot sector reads at a time: CHUNK there."""
HEADS, TRACK = 16, 63
CYLINDER = HEADS * TRACK * _SECTOR
"""The size of a disk is a multiple of this."""

# Where the sections are loaded to.
_SETUP = 0x90000
_PROTECTED_MODE = 0x100000
_INITRD = 512 << 20
MEMORY = 1 << 30
"""How much memory a machine needs to have for that."""

# Below the BIOS' data, which begins at 0x9fc00: the real-mode code, its heap and stack to 0x9000,
# then the command line.
_COMMAND_LINE, _SETUP_SIZE = 0x9000, 0xC000
_STACK = 0x200
"""What is left of the heap for the stack, by boot.rst's example."""

_UNKNOWN_LOADER = 0xFF
_CAN_USE_HEAP = 0x80


def disk(kernel: bytes, initrd: bytes, cmdline: str) -> bytes:
    """The disk that boots a bzImage with an initrd and a command line."""
    if kernel[0x202:0x206] != b"HdrS":
        raise ValueError("not a bzImage: it has no header of the boot protocol")
    protected_mode = (1 + (kernel[0x1F1] or 4)) * _SECTOR
    setup = bytearray(kernel[:protected_mode].ljust(_SETUP_SIZE, b"\0"))
    setup[0x210] = _UNKNOWN_LOADER
    setup[0x211] |= _CAN_USE_HEAP
    struct.pack_into("<II", setup, 0x218, _INITRD, len(initrd))
    struct.pack_into("<H", setup, 0x224, _COMMAND_LINE - _STACK)  # heap_end_ptr
    struct.pack_into("<I", setup, 0x228, _SETUP + _COMMAND_LINE)  # cmd_line_ptr
    line = cmdline.encode() + b"\0"
    setup[_COMMAND_LINE : _COMMAND_LINE + len(line)] = line
    sections = {_SETUP: setup, _PROTECTED_MODE: kernel[protected_mode:], _INITRD: initrd}
    size = {"the real-mode code": protected_mode, "the command line": len(line)}
    for what, limit in (("the real-mode code", _COMMAND_LINE - _STACK), ("the command line", 2048)):
        if size[what] > limit:
            raise ValueError(f"{what} has {size[what]} bytes, and {limit} is the most")
    table, content = b"", b""
    for address, data in sections.items():
        chunks = -(-len(data) // _CHUNK)
        table += struct.pack("<II", address, chunks)
        content += bytes(data).ljust(chunks * _CHUNK, b"\0")
    boot = assemble(SOURCE, _ORIGIN) + table + bytes(8)
    image = boot.ljust(_SECTOR - 2, b"\0") + b"\x55\xaa" + content
    return image + bytes(-len(image) % CYLINDER)
