"""ACPI tables found in guest memory, and as ACPICA's disassembler and compiler read them."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

from requirements import require
from vmm_arch.memory import GuestMemory


def tables_at(memory: GuestMemory, address: int) -> dict[str, bytes]:
    """Every table that a root pointer leads to, and the pointer itself."""
    root = memory.read(address, 36)
    assert root[:8] == b"RSD PTR "
    (xsdt,) = struct.unpack_from("<Q", root, 24)

    def table(at: int) -> bytes:
        (length,) = struct.unpack("<I", memory.read(at + 4, 4))
        return memory.read(at, length)

    found = {"RSDP": root, "XSDT": table(xsdt)}
    for (at,) in struct.iter_unpack("<Q", found["XSDT"][36:]):
        found[table(at)[:4].decode()] = table(at)
    for layout, offset in (("<I", 40), ("<Q", 140)):  # the FADT's two pointers to it
        (dsdt,) = struct.unpack_from(layout, found["FACP"], offset)
        found["DSDT"] = table(dsdt)
    return found


def disassembled(table: bytes, folder: Path) -> str:
    """A table as text, which is also in the folder's ``table.dsl``."""
    require(shutil.which("iasl") is not None, "no iasl; Debian has it in acpica-tools")
    (folder / "table.aml").write_bytes(table)
    done = subprocess.run(
        ["iasl", "-d", "table.aml"], cwd=folder, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert not re.search(r"\b(error|warning|incorrect|invalid)", said, re.I), said
    return (folder / "table.dsl").read_text()


def compiles(folder: Path) -> None:
    """What was disassembled compiles, without a complaint."""
    done = subprocess.run(
        ["iasl", "table.dsl"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert "0 Errors, 0 Warnings" in done.stdout + done.stderr, done.stdout + done.stderr
