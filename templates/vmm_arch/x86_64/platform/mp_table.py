"""The MP table: processors and interrupt lines for systems that do not read ACPI.

Intel, MultiProcessor Specification 1.4, whose section numbers are given. A guest finds it below
1 MiB, by an anchor at a multiple of 16 (4.1).
"""

from __future__ import annotations

import struct
from typing import Final

from vmm_arch.x86_64.platform.acpi import checksum
from vmm_arch.x86_64.platform.resources import IO_APIC_ADDRESS, LOCAL_APIC_ADDRESS
from vmm_arch.x86_64.topology import Topology

MOST_PROCESSORS: Final = 255
"""An APIC id has eight bits, and the last one is everybody's."""
_LINES: Final = 24
_PROCESSOR, _BUS, _IO_APIC, _INTERRUPT, _LOCAL_INTERRUPT = range(5)
_VECTORED, _NMI, _EXTERNAL = 0, 1, 3
_APIC_VERSION: Final = 0x14
_IO_APIC_VERSION: Final = 0x11
_SIGNATURE: Final = 0x600
"""Some 32-bit processor of Intel's: nobody looks."""
_FEATURES: Final = 1 << 9 | 1 << 0
"""A local APIC, and an FPU."""
_ENABLED, _BOOT = 1 << 0, 1 << 1


def mp_table(topology: Topology, address: int) -> bytes:
    """Lay out floating pointer and configuration table for a guest-physical address.

    The lines are those of an ISA bus, each at the I/O APIC's input of its number. Raises ValueError
    if there are more processors than the format has.
    """
    apic_ids = topology.apic_ids
    if apic_ids[-1] >= MOST_PROCESSORS:
        raise ValueError(
            f"MP table: APIC ids up to {apic_ids[-1]}, and its format ends at {MOST_PROCESSORS - 1};"
            " leave it out (mp_table=False), since ACPI has them all"
        )
    io_apic = min(apic_ids[-1] + 1, 0xFE)
    entries = [
        struct.pack(
            "<BBBBII8x",
            *(_PROCESSOR, apic_id, _APIC_VERSION, _ENABLED | _BOOT * (apic_id == 0)),
            *(_SIGNATURE, _FEATURES),
        )
        for apic_id in apic_ids
    ]
    entries.append(struct.pack("<BB6s", _BUS, 0, b"ISA   "))
    entries.append(
        struct.pack("<BBBBI", _IO_APIC, io_apic, _IO_APIC_VERSION, _ENABLED, IO_APIC_ADDRESS)
    )
    for line in range(_LINES):
        entries.append(struct.pack("<BBHBBBB", _INTERRUPT, _VECTORED, 0, 0, line, io_apic, line))
    for kind, target, input_ in ((_EXTERNAL, 0, 0), (_NMI, 0xFF, 1)):
        entries.append(struct.pack("<BBHBBBB", _LOCAL_INTERRUPT, kind, 0, 0, 0, target, input_))
    return _pointer(address + 16) + _table(entries)


def _pointer(table: int) -> bytes:
    """The floating pointer (4.1); there is no 8259 that has to be switched off (IMCR)."""
    content = struct.pack("<4sIBBB5x", b"_MP_", table, 1, 4, 0)
    return content[:10] + bytes([checksum(content)]) + content[11:]


def _table(entries: list[bytes]) -> bytes:
    """The configuration table (4.2)."""
    body = b"".join(entries)
    content = (
        struct.pack(
            "<4sHBB8s12sIHHIHBx",
            *(b"PCMP", 44 + len(body), 4, 0, b"VMMARCH ", b"VMM-ARCH    "),
            *(0, 0, len(entries), LOCAL_APIC_ADDRESS, 0, 0),
        )
        + body
    )
    return content[:7] + bytes([checksum(content)]) + content[8:]
