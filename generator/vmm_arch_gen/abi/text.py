"""The .abi file: a target's facts as sorted text, made to be read in a diff.

::

    constant KVM_API_VERSION = 12 in linux/kvm.h
    string VFIO_DEVICE_API_PCI_STRING = "vfio-pci" in linux/vfio.h
    struct kvm_segment is 24 bytes aligned 8 in asm/kvm.h
      @ 0 base __u64
      @ 8 limit __u32
      @ 12 selector __u16
      @ 14 type, present, dpl, db, s, l, g, avl, unusable, padding __u8
    typedef union WHV_UINT128 is 16 bytes aligned 16 aligned(16) in winhvplatformdefs.h
      @ 0 - struct WHV_UINT128.<struct> is 16 bytes aligned 8: @ 0 Low64, High64 UINT64
      @ 0 Dword UINT32[4]
    macro KVM_REG_SIZE(id) -> u32 = 1U << ((id & 0xf0000000000000) >> 52) in linux/kvm.h

A line is a fact, but neighbours of one type share a line, as C has it. ``@`` gives an offset in the
record that the line belongs to: bytes, or for a bit-field ``byte.bit:width``. A type without a name
is written where it is first used. What belongs to a line is indented, so that a diff's ``@@`` lines
name the record. Of a macro with arguments the line says what type C gives its value, and the value in
the canonical form of ``vmm_arch_gen.abi.expressions``, which only a change of meaning changes. The
last line is a digest of all lines before it, so that a cut, edited or wrongly merged file is noticed.
"""

from __future__ import annotations

import hashlib
import re

FORMAT = 3
MAGIC = "vmm-arch abi"


def digest(text: str) -> str:
    """What the last line says of all lines before it."""
    return hashlib.sha256(text.encode()).hexdigest()


def quoted(value: bytes) -> str:
    """Bytes as a string literal, in the one way that the facts files and C spell them."""
    return f'"{"".join(map(_SPELT.__getitem__, value))}"'


def unquoted(text: str) -> bytes:
    """The bytes that :func:`quoted` wrote; ValueError if it did not."""
    value = bytes(
        int(octal, 8) if octal else ord(escaped or plain)
        for octal, escaped, plain in re.findall(r"\\([0-7]{3})|\\(.)|(.)", text[1:-1])
    )
    if quoted(value) != text:
        raise ValueError(f"{text} is not spelt as {quoted(value)}")
    return value


_SPELT = [chr(c) if 0x20 <= c < 0x7F else f"\\{c:03o}" for c in range(256)]
_SPELT[ord('"')], _SPELT[ord("\\")] = '\\"', "\\\\"


_UNNAMED = re.compile(r"(?:struct|union) \w+\.[\w.<>]+")


def unnamed_in(type: str) -> str | None:
    """The record without a name that a spelt type is made of, if any."""
    match = _UNNAMED.search(type)
    return match[0] if match else None
