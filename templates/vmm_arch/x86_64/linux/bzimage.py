"""Linux's bzImage, started by the 64-bit boot protocol (Documentation/arch/x86/boot.rst).

Offsets are file offsets; the setup header has the same offset in the zero page.
"""

from __future__ import annotations

import re

from vmm_arch.abi.linux_x86_64 import LOADED_HIGH, XLF_KERNEL_64, setup_header
from vmm_arch.boot.image import CORRUPT, Image, described
from vmm_arch.boot.ranges import Segment, aligned, clipped, holds, listing, lowest
from vmm_arch.x86_64.linux.layout import Layout
from vmm_arch.x86_64.platform.memory_map import HIGH_MEMORY, memory_up_to
from vmm_arch.x86_64.tables import MAPPED

HEADER = 0x1F1
"""The offset of the setup header."""
MAGIC = 0x53726448
"""HdrS."""
BOOT_FLAG = 0xAA55
VERSION_2_12 = 0x020C
"""The oldest protocol with a 64-bit entry: Linux 3.8."""

_JUMP_END = 0x202
"""The jump at 0x200 is relative to this, and leads to the end of the header."""
_LONGEST_JUMP = 0x7F
_SHORT_JUMP = 0xEB
_HEADER_END = 0x264
"""The end of the fields used here: init_size is the last one."""
_SECTOR = 512
_PARAGRAPH = 16
_DEFAULT_SETUP_SECTORS = 4
_ENTRY_64 = 0x200
_LONGEST_NAME = 64
_LINUX = re.compile(r"\d+\.\d+.* \(.*@")
"""Linux's version string: 6.1.0 (who@where) #1 SMP … (arch/x86/boot/version.c)."""


def is_bzimage(start: bytes) -> bool:
    """Whether an image with these first bytes has the magic number of a bzImage."""
    return start[_JUMP_END : _JUMP_END + 4] == MAGIC.to_bytes(4, "little")


def read_layout(image: Image, ram: list[range]) -> Layout:
    """Read the setup header and choose the kernel's load address, or raise KernelImageError."""
    # Reading beyond the header is harmless: the code that follows it is long enough.
    longest = _JUMP_END + _LONGEST_JUMP - HEADER
    raw = image.read(HEADER, longest, "its setup header")
    header = setup_header.from_buffer_copy(raw)
    _check(image, header)
    code_offset = ((header.setup_sects or _DEFAULT_SETUP_SECTORS) + 1) * _SECTOR
    code_size = header.syssize * _PARAGRAPH
    # The size is rounded up, and the last paragraph need not be whole.
    missing = max(code_offset + code_size - image.size, 0)
    if code_size <= _ENTRY_64:
        problem = (
            f"{_field(header, 'syssize')}: there is no code at the 64-bit entry, {_ENTRY_64:#x}"
        )
        raise image.error(problem, CORRUPT)
    if missing >= _PARAGRAPH:
        place = f"its code, [{code_offset:#x}, {code_offset + code_size:#x}) (setup_sects, syssize)"
        raise image.error(f"it ends at {image.size:#x}, before the end of {place}", CORRUPT)
    if aligned(header.init_size, _PARAGRAPH) < code_size:
        problem = f"{_field(header, 'init_size')}, less than its code, {code_size:#x} bytes"
        raise image.error(problem, CORRUPT)
    size = max(header.init_size, code_size)
    address = _place(image, header, size, ram)
    return Layout(
        entry=address + _ENTRY_64,
        kernel=range(address, address + size),
        segments=(Segment(address, code_offset, code_size - missing, code_size),),
        setup_header=raw[: _end(header) - HEADER],
    )


def _check(image: Image, header: setup_header) -> None:
    if header.boot_flag != BOOT_FLAG:
        raise image.error(f"{_field(header, 'boot_flag')}, not {BOOT_FLAG:#x}", CORRUPT)
    if header.version < VERSION_2_12:
        problem = f"{_field(header, 'version')}: a boot protocol before 2.12 has no 64-bit entry"
        name = _name(image, header)
        if name is None or _LINUX.match(name):
            raise image.error(problem, "give a kernel of Linux 3.8 or newer")
        problem += f', and "{name}" (kernel_version) is not Linux'
        raise image.error(problem, "such programs need a BIOS: use a VMM that has one")
    if (
        header.jump & 0xFF != _SHORT_JUMP
        or not _HEADER_END <= _end(header) <= _JUMP_END + _LONGEST_JUMP
    ):
        problem = f"{_field(header, 'jump')}, not a short jump to {_HEADER_END:#x} or beyond"
        raise image.error(problem, CORRUPT)
    if not header.loadflags & LOADED_HIGH:
        problem = f"{_field(header, 'loadflags')}: a zImage, which is loaded below 1 MiB"
        raise image.error(problem, "give a bzImage")
    if not header.xloadflags & XLF_KERNEL_64:
        problem = f"{_field(header, 'xloadflags')}: no 64-bit entry (XLF_KERNEL_64)"
        raise image.error(problem, "give a kernel for x86-64, this one is 32-bit")


def _name(image: Image, header: setup_header) -> str | None:
    """The image's version string, if it has one: one line, truncated."""
    offset = header.kernel_version + _SECTOR
    if not header.kernel_version or offset >= image.size:
        return None
    text = image.read(offset, min(image.size - offset, _LONGEST_NAME), "its version")
    name = text.partition(b"\0")[0].decode("ascii", "backslashreplace")
    return name if name and name.isprintable() else None


def _end(header: setup_header) -> int:
    """The offset of the end of the header."""
    return _JUMP_END + (header.jump >> 8)


def _place(image: Image, header: setup_header, size: int, ram: list[range]) -> int:
    """The kernel's load address.

    A relocatable kernel runs where it is loaded, but never below its preferred address; any other
    kernel moves itself there (arch/x86/boot/compressed/head_64.S). So lower addresses are useless.
    """
    start = header.pref_address or HIGH_MEMORY
    runs = clipped(ram, HIGH_MEMORY, MAPPED)
    where = f"{size:#x} bytes of RAM (init_size) at {start:#x} (pref_address)"
    if header.relocatable_kernel:
        alignment = header.kernel_alignment
        if alignment.bit_count() != 1:
            raise image.error(f"{_field(header, 'kernel_alignment')}, not a power of two", CORRUPT)
        start = aligned(max(start, HIGH_MEMORY), alignment)
        where += f" or at a higher multiple of {alignment:#x} (kernel_alignment)"
        address = lowest(runs, size, start, alignment)
    else:
        address = start if holds(runs, range(start, start + size)) else None
    if address is None:
        problem = f"it needs {where}, within [{HIGH_MEMORY:#x}, {MAPPED:#x}); RAM is {listing(ram)}"
        remedy = memory_up_to(start + size) if start >= HIGH_MEMORY else None
        raise image.error(problem, remedy or CORRUPT)
    return address


def _field(header: setup_header, name: str) -> str:
    return described(header, name, HEADER)
