"""The SMBIOS tables, as dmidecode reads them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from requirements import require
from vmm_arch.memory import Region
from vmm_arch.x86_64.platform.description import Platform
from vmm_arch.x86_64.platform.memory_map import BIOS, GuestMemory
from vmm_arch.x86_64.platform.smbios import Smbios, smbios
from vmm_arch.x86_64.topology import Topology

DMIDECODE = Path("/usr/sbin/dmidecode")
AT = BIOS.start


def structures(table: bytes) -> list[tuple[int, bytes, list[bytes]]]:
    """Types, formatted parts and texts, by the rules of 6.1."""
    found = []
    while table:
        kind, length = table[0], table[1]
        texts, _, table_after = table[length:].partition(b"\0\0")
        found.append((kind, table[:length], texts.split(b"\0") if texts else []))
        table = table_after
    return found


def decoded(content: bytes, folder: Path, *options: str) -> str:
    """What dmidecode says of both entry points: 64-bit, then 32-bit."""
    require(DMIDECODE.exists(), "no dmidecode; Debian has it in dmidecode")
    size = int.from_bytes(content[12:16], "little")
    texts = []
    for entry, pointer, checksums in (
        (content[:24], 16, [(5, 24)]),
        (content[32:63], 24, [(21, 31), (4, 31)]),
    ):
        moved = bytearray(entry)
        moved[pointer : pointer + 4] = (0x20).to_bytes(4, "little")  # where a dump has the table
        for at, end in checksums:
            start = 16 if at == 21 else 0
            moved[at] = (moved[at] - sum(moved[start:end])) & 0xFF
        file = folder / "dump"
        file.write_bytes(bytes(moved).ljust(32, b"\0") + content[0x40 : 0x40 + size])
        done = subprocess.run(
            [DMIDECODE, "--from-dump", file, *options], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        said = done.stdout + done.stderr
        assert not re.search(r"wrong|bogus|invalid|truncated|bad|overlap|\bout of spec", said, re.I)
        texts.append(done.stdout)
    first, second = (re.sub(r"\A.*?(?=Handle)", "", text, flags=re.S) for text in texts)
    assert first == second
    assert "SMBIOS 3.0.0 present" in texts[0]
    assert "SMBIOS 2.8 present" in texts[1]
    return first


EVERYTHING = Smbios(
    manufacturer="ACME",
    product="Rocket",
    version="2",
    serial="0042",
    uuid=UUID("00112233-4455-6677-8899-aabbccddeeff"),
    sku="SKU1",
    family="Rockets",
    asset_tag="tag-7",
    bios_vendor="BIOS Inc",
    bios_version="1.2",
    bios_date="02/03/2024",
    processor="A processor @ 1 Hz",
    oem_strings=["first", "io.systemd.credential:one=two"],
)


def test_checksums_and_anchors() -> None:
    with GuestMemory(0x200000) as memory:
        content = smbios(EVERYTHING, memory, Topology(cores=2), AT)
    assert content[:5] == b"_SM3_"
    assert sum(content[:24]) % 256 == 0
    assert content[32:36] == b"_SM_"
    assert sum(content[32:63]) % 256 == 0
    assert content[48:53] == b"_DMI_"
    assert sum(content[48:63]) % 256 == 0
    assert int.from_bytes(content[16:24], "little") == AT + 0x40
    assert int.from_bytes(content[56:60], "little") == AT + 0x40
    found = structures(content[0x40:])
    assert [kind for kind, _, _ in found] == [0, 1, 3, 4, 11, 16, 17, 19, 32, 127]
    assert int.from_bytes(content[60:62], "little") == len(found)
    largest = max(
        len(part) + sum(len(text) + 1 for text in texts) + 1 + (not texts)
        for _, part, texts in found
    )
    assert int.from_bytes(content[40:42], "little") == largest
    assert len({part[2:4] for _, part, _ in found}) == len(found), "handles"


def test_what_dmidecode_reads(tmp_path: Path) -> None:
    with GuestMemory(512 << 20) as memory:
        text = decoded(smbios(EVERYTHING, memory, Topology(cores=3), AT), tmp_path)
    for line in (
        "Vendor: BIOS Inc",
        "Version: 1.2",
        "Release Date: 02/03/2024",
        "System is a virtual machine",
        "Manufacturer: ACME",
        "Product Name: Rocket",
        "Serial Number: 0042",
        "UUID: 00112233-4455-6677-8899-aabbccddeeff",
        "SKU Number: SKU1",
        "Family: Rockets",
        "Asset Tag: tag-7",
        "Socket Designation: CPU 0",
        "Version: A processor @ 1 Hz",
        "Status: Populated, Enabled",
        "Core Count: 3",
        "64-bit capable",
        "String 1: first",
        "String 2: io.systemd.credential:one=two",
        "Maximum Capacity: 512 MB",
        "Size: 512 MB",
        "Starting Address: 0x00000000000",
        "Range Size: 512 MB",
        "Status: No errors detected",
    ):
        assert re.search(rf"^\t+{re.escape(line)}", text, re.M), line


@pytest.mark.parametrize(
    ("size", "says"),
    [
        (8 << 20, "Size: 8 MB"),
        ((8 << 20) + 0x3000, "Size: 8204 kB"),
        (6 << 30, "Size: 6 GB"),
        (64 << 30, "Size: 64 GB"),
        (8 << 40, "Size: 8 TB"),
    ],
)
def test_any_size_of_memory(size: int, says: str, tmp_path: Path) -> None:
    with GuestMemory(size) as memory:
        text = decoded(smbios(Smbios(), memory, Topology(cores=1), AT), tmp_path)
    assert f"\t{says}\n" in text
    # Beyond 4 TiB the addresses are in bytes (7.20), for all that dmidecode puts a "k" behind them.
    mapped = re.findall(r"Starting Address: (0x\w+?)k?\n\tEnding Address: (0x\w+?)k?\n", text)
    ranges = [range(int(first, 0), int(last, 0) + 1) for first, last in mapped]
    expected = [range(one.address, one.end) for one in memory.regions]
    assert [(r.start, r.stop) for r in ranges] == [(r.start, r.stop & ~0x3FF) for r in expected]


def test_more_processors_than_a_byte_counts(tmp_path: Path) -> None:
    with GuestMemory(0x200000) as memory:
        assert "Core Count: 300\n" in decoded(
            smbios(Smbios(), memory, Topology(cores=300), AT), tmp_path
        )


def test_texts_that_cannot_be() -> None:
    wrong: dict[str, Any] = {"product": 7, "uuid": "no"}
    with pytest.raises(ValueError, match="Smbios: ") as caught:
        Smbios(serial="a\0b", oem_strings=["", *["x"] * 255], **wrong)
    assert str(caught.value).split("\n") == [
        "Smbios: uuid: expected UUID, got str",
        "Smbios: product: expected str, got int",
        r"Smbios: serial: 'a\x00b' has a zero in it, which would end it; remove it",
        "Smbios: oem_strings: 256 are too many; give 255 or fewer",
        "Smbios: oem_strings[0] is empty, which would end the list; remove it",
    ]


def test_texts_that_do_not_fit_are_refused_before_anything_is_written() -> None:
    platform = Platform(smbios=Smbios(oem_strings=["x" * 0x10000]), mp_table=True)
    with GuestMemory(0x200000) as memory:
        with pytest.raises(ValueError, match="do not fit in the 0xf000 bytes from 0xf0000 on"):
            platform.write(memory, Topology(cores=1))
        assert not any(memory.read(0, 0x200000))


def test_memory_that_is_not_there_is_found_before_anything_is_written() -> None:
    with GuestMemory([Region(0, 0xF0000)]) as memory:
        with pytest.raises(IndexError):
            Platform().write(memory, Topology(cores=1))
        assert not any(memory.read(0, 0xF0000))
        Platform(smbios=None).write(memory, Topology(cores=1))
