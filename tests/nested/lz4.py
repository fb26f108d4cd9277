"""Unpacks LZ4's legacy frames, which is how Debian's x86 kernels are packed.

Both formats are documented with LZ4: doc/lz4_Frame_format.md and doc/lz4_Block_format.md.
"""

from __future__ import annotations

MAGIC = bytes.fromhex("02214c18")
_LEAST_MATCH = 4
_MORE = 15
"""A length that does not fit into its half of the token goes on in bytes of its own."""


def unpack(packed: bytes) -> bytes:
    """Unpack a legacy frame: blocks, each with its packed size before it."""
    if not packed.startswith(MAGIC):
        raise ValueError(f"not LZ4's legacy format: it begins with {packed[:4].hex()}")
    out = bytearray()
    at = len(MAGIC)
    while at < len(packed):
        size = int.from_bytes(packed[at : at + 4], "little")
        at += 4
        if size > len(packed) - at:
            raise ValueError(f"a block of {size} bytes, of which {len(packed) - at} are there")
        out += unpack_block(packed[at : at + size])
        at += size
    return bytes(out)


def unpack_block(block: bytes) -> bytes:
    """Unpack one block: sequences of literals and of a match, something that was there before."""
    out = bytearray()
    at = 0
    while True:
        token = block[at]
        length, at = _length(block, at + 1, token >> 4)
        out += block[at : at + length]
        at += length
        if at >= len(block):  # the last sequence has no match
            return bytes(out)
        offset = block[at] | block[at + 1] << 8
        length, at = _length(block, at + 2, token & 15)
        length += _LEAST_MATCH
        if not 0 < offset <= len(out):
            raise ValueError(f"a match {offset} bytes back, where there are {len(out)}")
        start = len(out) - offset
        match = out[start : start + length]
        if length > offset:  # a match may overlap what it makes: then it is repeated
            match = (match * (length // offset + 1))[:length]
        out += match


def _length(block: bytes, at: int, length: int) -> tuple[int, int]:
    """A length that begins in a token, and where what follows it is."""
    if length == _MORE:
        while True:
            length += block[at]
            at += 1
            if block[at - 1] != 255:
                break
    return length, at
