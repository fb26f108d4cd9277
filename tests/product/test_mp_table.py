"""The MP table: Intel, MultiProcessor Specification 1.4."""

from __future__ import annotations

import struct

import pytest
from vmm_arch.x86_64.platform.description import Platform
from vmm_arch.x86_64.platform.memory_map import BIOS, GuestMemory
from vmm_arch.x86_64.platform.mp_table import mp_table
from vmm_arch.x86_64.platform.smbios import Smbios
from vmm_arch.x86_64.topology import Topology

SIZES = {0: 20, 1: 8, 2: 8, 3: 8, 4: 8}


def entries(table: bytes) -> list[bytes]:
    found, at = [], 44
    while at < len(table):
        found.append(table[at : at + SIZES[table[at]]])
        at += SIZES[table[at]]
    return found


@pytest.mark.parametrize("vcpus", [1, 4, 255])
def test_the_table(vcpus: int) -> None:
    content = mp_table(Topology(cores=vcpus), BIOS.start)
    pointer, table = content[:16], content[16:]
    assert pointer[:4] == b"_MP_"
    assert sum(pointer) % 256 == 0
    assert struct.unpack_from("<IBB", pointer, 4) == (BIOS.start + 16, 1, 4)
    assert table[:4] == b"PCMP"
    assert sum(table) % 256 == 0
    assert struct.unpack_from("<H", table, 4) == (len(table),)
    found = entries(table)
    assert struct.unpack_from("<H", table, 34) == (len(found),)
    processors = [one for one in found if one[0] == 0]
    assert [one[1] for one in processors] == list(range(vcpus))
    assert [one[3] & 2 for one in processors] == [2] + [0] * (vcpus - 1)  # the first one boots
    (io_apic,) = (one for one in found if one[0] == 2)
    assert struct.unpack_from("<I", io_apic, 4) == (0xFEC00000,)
    lines = [one for one in found if one[0] == 3]
    assert [(one[5], one[6], one[7]) for one in lines] == [(n, io_apic[1], n) for n in range(24)]


def test_more_processors_than_its_format_has() -> None:
    platform = Platform(smbios=None, mp_table=True)
    with GuestMemory(0x200000) as memory:
        with pytest.raises(
            ValueError, match="MP table: APIC ids up to 255, and its format ends at 254"
        ):
            platform.write(memory, Topology(cores=256))
        assert not any(memory.read(0, 0x200000))


@pytest.mark.parametrize("smbios", [None, Smbios(serial="x")])
def test_its_anchor_is_where_systems_look(smbios: Smbios | None) -> None:
    with GuestMemory(0x200000) as memory:
        assert (
            Platform(acpi=False, smbios=smbios, mp_table=True).write(memory, Topology(cores=2))
            is None
        )
        bios = memory.read(BIOS.start, len(BIOS))
        anchors = [at for at in range(0, len(bios), 16) if bios[at : at + 4] == b"_MP_"]
        assert len(anchors) == 1
        (table,) = struct.unpack_from("<I", bios, anchors[0] + 4)
        assert memory.read(table, 4) == b"PCMP"
        assert not any(memory.read(0xE0000, 0x10000))
        assert (b"_SM3_" in bios) == (smbios is not None)
