"""Takes the ELF file vmlinux out of an x86 kernel's bzImage.

The fields are those of the boot protocol: Documentation/arch/x86/boot.rst in the kernel.
"""

from __future__ import annotations

import struct

from nested import lz4

_SETUP_SECTS, _HEADER, _PAYLOAD = 0x1F1, 0x202, 0x248
_SECTOR = 512
_ALWAYS = 4
"""How many sectors of real-mode code there are where the field says 0."""


def vmlinux(bzimage: bytes) -> bytes:
    """The kernel as it was linked."""
    if bzimage[_HEADER : _HEADER + 4] != b"HdrS":
        raise ValueError("not a bzImage: it has no header of the boot protocol")
    protected_mode = (1 + (bzimage[_SETUP_SECTS] or _ALWAYS)) * _SECTOR
    offset, length = struct.unpack_from("<II", bzimage, _PAYLOAD)
    payload = bzimage[protected_mode + offset :][:length]
    # The kernel's makefiles add the size when it is unpacked: size_append in Makefile.lib.
    packed, size = payload[:-4], int.from_bytes(payload[-4:], "little")
    image = lz4.unpack(packed)
    if len(image) != size:
        raise ValueError(f"a kernel of {len(image)} bytes was unpacked, and {size} are expected")
    return image
