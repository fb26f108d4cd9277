"""SMBIOS: what the firmware tells about the machine: its maker, serial numbers, processor, memory.

System Management BIOS Reference Specification 3.0 (DMTF DSP0134), whose section numbers are given.
A guest finds it below 1 MiB, by an anchor at a multiple of 16 (5.2).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Final
from uuid import UUID

from vmm_arch.boot.ranges import runs_of
from vmm_arch.memory import GuestMemory
from vmm_arch.x86_64.platform.acpi import checksum
from vmm_arch.x86_64.platform.memory_map import BIOS
from vmm_arch.x86_64.topology import Topology

_TABLE_AT: Final = 0x40
"""After the two entry points, each at a multiple of 16."""
_MOST_STRINGS: Final = 255
_NONE: Final = 0xFFFF
_KIB, _MIB = 10, 20
_MEMORY_ARRAY: Final = 0x1000
_MEMORY_DEVICE: Final = 0x1100


@dataclass(frozen=True, slots=True, kw_only=True)
class Smbios:
    """The texts of SMBIOS; an empty one is not given. Linux shows most of them in /sys/class/dmi/id."""

    manufacturer: str = "vmm-arch"
    product: str = "virtual machine"
    version: str = ""
    serial: str = ""
    uuid: UUID | None = None
    """Of the system: what cloud images and systemd tell machines apart by."""
    sku: str = ""
    family: str = ""
    asset_tag: str = ""
    """Of the chassis."""
    bios_vendor: str = "vmm-arch"
    bios_version: str = ""
    bios_date: str = "01/01/2020"
    """Month, day and year."""
    processor: str = ""
    """The processor's name."""
    oem_strings: Sequence[str] = ()
    """Texts for programs in the guest (type 11), such as systemd's ``io.systemd.credential:…``."""

    def __post_init__(self) -> None:
        problems = []
        if self.uuid is not None and not isinstance(self.uuid, UUID):
            problems.append(f"uuid: expected UUID, got {type(self.uuid).__name__}")
        texts = [(f.name, getattr(self, f.name)) for f in fields(self) if f.type == "str"]
        texts += [(f"oem_strings[{n}]", text) for n, text in enumerate(self.oem_strings)]
        for name, text in texts:
            if not isinstance(text, str):
                problems.append(f"{name}: expected str, got {type(text).__name__}")
            elif "\0" in text:
                problems.append(f"{name}: {text!r} has a zero in it, which would end it; remove it")
        if len(self.oem_strings) > _MOST_STRINGS:
            problems.append(
                f"oem_strings: {len(self.oem_strings)} are too many; give {_MOST_STRINGS} or fewer"
            )
        if empty := [n for n, text in enumerate(self.oem_strings) if text == ""]:
            problems.append(
                f"oem_strings[{empty[0]}] is empty, which would end the list; remove it"
            )
        if problems:
            raise ValueError("\n".join(f"Smbios: {problem}" for problem in problems))


def smbios(about: Smbios, memory: GuestMemory, topology: Topology, address: int) -> bytes:
    """Lay out entry points and table for a guest-physical address, a multiple of 16 below 1 MiB."""
    structures = list(_structures(about, memory, topology))
    table = b"".join(structures)
    at = address + _TABLE_AT
    return (
        _entry_point_64(at, len(table))
        + bytes(8)
        + _entry_point_32(at, len(table), len(structures), max(map(len, structures)))
        + bytes(1)
        + table
    )


def _entry_point_64(table: int, size: int) -> bytes:
    """The 64-bit entry point (5.2.2): version 3.0."""
    content = struct.pack("<5sBBBBBBBIQ", b"_SM3_", 0, 24, 3, 0, 0, 1, 0, size, table)
    return content[:5] + bytes([checksum(content)]) + content[6:]


def _entry_point_32(table: int, size: int, count: int, largest: int) -> bytes:
    """The 32-bit entry point (5.2.1), for systems that know no other: version 2.8."""
    inner = struct.pack("<5sBHIHB", b"_DMI_", 0, min(size, 0xFFFF), table, count, 0x28)
    inner = inner[:5] + bytes([checksum(inner)]) + inner[6:]
    outer = struct.pack("<4sBBBBHB5x", b"_SM_", 0, 31, 2, 8, min(largest, 0xFFFF), 0)
    content = outer + inner
    return content[:4] + bytes([checksum(content)]) + content[5:]


def _structure(
    kind: int, handle: int, layout: str, *values: int | str | bytes, more: Sequence[str] = ()
) -> bytes:
    """A structure (6.1): a header, the formatted part, and the texts, ``more`` after all others.

    A text among the values becomes a byte with its number.
    """
    texts: list[str] = []
    numbers: list[int | bytes] = []
    for value in values:
        if isinstance(value, str):
            if value:
                texts.append(value)
            numbers.append(len(texts) if value else 0)
        else:
            numbers.append(value)
    body = struct.pack("<" + layout, *numbers)
    strings = b"".join(text.encode() + b"\0" for text in [*texts, *more]) or b"\0"
    return struct.pack("<BBH", kind, 4 + len(body), handle) + body + strings + b"\0"


def _structures(about: Smbios, memory: GuestMemory, topology: Topology) -> Iterator[bytes]:
    yield _structure(  # BIOS (7.1): characteristics are not given, but that it is a virtual machine
        0, 0, "BBHBBQBBBBBB",
        *(about.bios_vendor, about.bios_version, BIOS.start >> 4, about.bios_date, 0),
        *(1 << 3, 0, 1 << 4, 0, 0, 0xFF, 0xFF),
    )  # fmt: skip
    yield _structure(  # system (7.2), woken up by its power switch
        1, 0x100, "BBBB16sBBB",
        *(about.manufacturer, about.product, about.version, about.serial),
        *(about.uuid.bytes_le if about.uuid else bytes(16), 6, about.sku, about.family),
    )  # fmt: skip
    yield _structure(  # chassis (7.4): "other", and everything in a safe state
        3, 0x300, "BBBBBBBBBIBBBBB",
        *(about.manufacturer, 1, about.version, about.serial, about.asset_tag),
        *(3, 3, 3, 2, 0, 0, 0, 0, 0, about.sku),
    )  # fmt: skip
    counts = (
        topology.dies * topology.cores,
        topology.dies * topology.cores,
        topology.vcpus_per_socket,
    )
    in_bytes: list[int | str] = [min(count, 0xFF) for count in counts]
    for socket in range(topology.sockets):
        yield _structure(  # processor (7.5): populated and enabled, 64-bit, without caches
            4, 0x400 + socket, "BBBBQBBHHHBBHHHBBBBBBHHHHH",
            *(f"CPU {socket}", 3, 1, about.manufacturer, 0, about.processor, 0, 0, 0, 0, 0x41, 1),
            *(_NONE, _NONE, _NONE, "", "", "", *in_bytes, 1 << 2, 1, *counts),
        )  # fmt: skip
    if about.oem_strings:
        yield _structure(11, 0xB00, "B", len(about.oem_strings), more=about.oem_strings)
    yield from _memory(memory)
    yield _structure(32, 0x2000, "6xB", 0)  # booted without errors (7.33)
    yield _structure(127, 0x7F00, "")


def _memory(memory: GuestMemory) -> Iterator[bytes]:
    """One array of memory (7.17), one device in it (7.18), and where it is mapped (7.20)."""
    runs = runs_of(memory, writable=True)
    size = sum(map(len, runs))
    kib = size >> _KIB
    yield _structure(
        16, _MEMORY_ARRAY, "BBBIHHQ",
        *(3, 3, 3, min(kib, 0x80000000), 0xFFFE, 1, size if kib >= 0x80000000 else 0),
    )  # fmt: skip
    mib = size >> _MIB
    small = size < 32 << _MIB  # in KiB, which bit 15 says
    yield _structure(
        17, _MEMORY_DEVICE, "HHHHHBBBBBHHBBBBBIHHHH",
        *(_MEMORY_ARRAY, 0xFFFE, _NONE, _NONE, kib | 0x8000 if small else min(mib, 0x7FFF), 9, 0),
        *("DIMM 0", "", 7, 1 << 1, 0, "", "", "", "", 0),
        *(mib if not small and mib >= 0x7FFF else 0, 0, 0, 0, 0),
    )  # fmt: skip
    for number, run in enumerate(runs):
        far = run.stop > 1 << 42  # beyond what 32 bits of KiB reach
        first, last = (0xFFFFFFFF,) * 2 if far else (run.start >> _KIB, (run.stop - 1) >> _KIB)
        extended = (run.start, run.stop - 1) if far else (0, 0)
        yield _structure(19, 0x1300 + number, "IIHBQQ", first, last, _MEMORY_ARRAY, 1, *extended)
