"""The bytecode of ACPI's tables (AML): objects of its namespace, and descriptors of resources.

Section numbers are those of the ACPI Specification 6.5.
"""

from __future__ import annotations

import struct


def aml_sized(opcode: bytes, content: bytes) -> bytes:
    """An opcode with the length of its content, which counts the length's own bytes (20.2.4)."""
    for more in range(4):
        length = len(content) + 1 + more
        if more == 0 and length < 0x40:
            return opcode + bytes([length]) + content
        if more and length < 1 << (4 + 8 * more):
            lead = more << 6 | length & 0xF
            return opcode + bytes([lead]) + (length >> 4).to_bytes(more, "little") + content
    raise ValueError(f"{len(content)} bytes are too many for a package length of AML")


def aml_name(name: str, value: bytes) -> bytes:
    """A named object (20.2.5.1)."""
    return b"\x08" + name.encode() + value


def aml_device(name: str, *content: bytes) -> bytes:
    """A device, with the objects that it has (20.2.5.2)."""
    return aml_sized(b"\x5b\x82", name.encode() + b"".join(content))


def aml_integer(value: int) -> bytes:
    """A constant, with as many bytes as it needs (20.2.3)."""
    for prefix, size in ((b"\x0a", 1), (b"\x0b", 2), (b"\x0c", 4)):
        if value < 1 << 8 * size:
            return prefix + value.to_bytes(size, "little")
    return b"\x0e" + value.to_bytes(8, "little")


def aml_text(text: str) -> bytes:
    """A string, in ASCII (20.2.3)."""
    return b"\x0d" + text.encode() + b"\0"


def aml_package(*elements: bytes) -> bytes:
    """A package of objects (20.2.5.4)."""
    return aml_sized(b"\x12", bytes([len(elements)]) + b"".join(elements))


def aml_buffer(content: bytes) -> bytes:
    """A buffer (20.2.5.4)."""
    return aml_sized(b"\x11", b"\x0b" + struct.pack("<H", len(content)) + content)


def aml_eisa_id(name: str) -> bytes:
    """A compressed id (19.3.4): three letters of five bits, four hexadecimal digits, big-endian."""
    letters = [ord(letter) - 0x40 for letter in name[:3]]
    value = letters[0] << 26 | letters[1] << 21 | letters[2] << 16 | int(name[3:], 16)
    return b"\x0c" + value.to_bytes(4, "big")


def aml_resources(*descriptors: bytes) -> bytes:
    """A buffer with resource descriptors, and the one that ends them (6.4.2.9)."""
    return aml_buffer(b"".join(descriptors) + b"\x79\0")


def aml_io_ports(first: int, count: int) -> bytes:
    """Resource descriptor (6.4.2.5): these ports, all 16 bits decoded."""
    return struct.pack("<BBHHBB", 0x47, 1, first, first, 1, count)


def aml_memory(addresses: range) -> bytes:
    """Resource descriptor (6.4.3.4 or, above 4 GiB, 6.4.3.5.1): these addresses, to read and write."""
    start, size = addresses.start, len(addresses)
    if addresses.stop <= 1 << 32:
        return struct.pack("<BHBII", 0x86, 9, 1, start, size)
    fixed = 0x0D  # both ends; the device consumes it
    bounds = (0, start, addresses.stop - 1, 0, size)
    return struct.pack("<BHBBB5Q", 0x8A, 0x2B, 0, fixed, 1, *bounds)


def aml_interrupt(line: int, *, level: bool = False) -> bytes:
    """Resource descriptor (6.4.3.6): this line, by default edge-triggered, active high, not shared."""
    return struct.pack("<BHBBI", 0x89, 6, 0x01 if level else 0x03, 1, line)
