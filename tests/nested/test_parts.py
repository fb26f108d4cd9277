"""The parts of the nested machine, as far as they need no machine."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import debian
import pytest
from debian import Unavailable
from requirements import require

from nested import bzimage, cpio, lz4
from nested.architecture import X86_64
from nested.machine import Machine, MachineFailed, provision
from nested.modules import load_order
from nested.stock import stock_kernel, stock_vmlinux

# Archives


def test_an_archive_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_bytes(b"12345")
    (tmp_path / "folder/file").chmod(0o640)
    (tmp_path / "link").symlink_to("folder/file")
    entries = [*cpio.tree(tmp_path), cpio.character_device("null", 1, 3)]
    zero, one = "00000000", "00000001"
    expected = [
        # inode, mode, uid, gid, links, mtime, size, device 2x, device number 2x, name, checksum
        ("00000000 000041ED", one, "00000000", zero + zero + zero + zero, "00000007", "folder"),
        (
            "00000001 000081A0",
            one,
            "00000005",
            zero + zero + zero + zero,
            "0000000C",
            "folder/file",
        ),
        ("00000002 0000A1FF", one, "0000000B", zero + zero + zero + zero, "00000005", "link"),
        ("00000003 00002180", one, "00000000", zero + zero + one + "00000003", "00000005", "null"),
        ("00000004 00000000", one, "00000000", zero + zero + zero + zero, "0000000B", "TRAILER!!!"),
    ]
    data = {"folder/file": b"12345\0\0\0", "link": b"folder/file\0"}
    found = cpio.archive(entries)
    for numbers, links, size, devices, length, name in expected:
        header = f"070701{numbers}{zero * 2}{links}{zero}{size}{devices}{length}{zero}"
        record = header.replace(" ", "").encode() + name.encode() + b"\0"
        record += bytes(-len(record) % 4) + data.get(name, b"")
        assert found.startswith(record), f"{found[: len(record)]!r} is not {record!r}"
        found = found[len(record) :]
    assert found == b""


# The kernel


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("30 616263", b"abc"),
        ("30 616263 0300 10 64", b"abc" b"abca" b"d"),
        ("1f 61 0100 05 00", b"a" + 24 * b"a"),  # the match is what it makes
        ("f0 ff 00" + 270 * "62", 270 * b"b"),
    ],
)
def test_lz4(block: str, expected: bytes) -> None:
    assert lz4.unpack_block(bytes.fromhex(block)) == expected
    size = len(bytes.fromhex(block)).to_bytes(4, "little")
    frame = lz4.MAGIC + 2 * (size + bytes.fromhex(block))
    assert lz4.unpack(frame) == 2 * expected


@pytest.mark.parametrize(
    ("packed", "says"),
    [
        ("04224d18 00", "not LZ4's legacy format: it begins with 04224d18"),
        ("02214c18 05000000 00", "a block of 5 bytes, of which 1 are there"),
        ("02214c18 06000000 10 61 0200 10 61", "a match 2 bytes back, where there are 1"),
        ("02214c18 06000000 10 61 0000 10 61", "a match 0 bytes back, where there are 1"),
    ],
)
def test_lz4_that_is_refused(packed: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        lz4.unpack(bytes.fromhex(packed))


@pytest.fixture(scope="module")
def kernel() -> bytes:
    try:
        return stock_kernel().read_bytes()
    except Unavailable as reason:
        require(False, str(reason))
        raise


def test_the_elf_file_is_the_kernel_that_the_bzimage_boots(kernel: bytes) -> None:
    elf = stock_vmlinux().read_bytes()
    assert elf.startswith(b"\x7fELF")
    sections, size, count = *struct.unpack_from("<Q", elf, 40), *struct.unpack_from("<2H", elf, 58)
    assert sections + size * count <= len(elf)  # the section headers are last of what is in it
    (version,) = struct.unpack_from("<H", kernel, 0x20E)
    release = kernel[0x200 + version :].split(b" ")[0]
    assert b"Linux version " + release in elf


def test_a_bzimage_that_is_refused(kernel: bytes) -> None:
    with pytest.raises(ValueError, match="not a bzImage"):
        bzimage.vmlinux(stock_vmlinux().read_bytes())
    length = struct.unpack_from("<I", kernel, 0x24C)[0]
    cut = bytearray(kernel)
    struct.pack_into("<I", cut, 0x24C, length - 4)
    with pytest.raises(ValueError, match=r"a block of \d+ bytes, of which \d+ are there"):
        bzimage.vmlinux(bytes(cut))


def test_modules_are_loaded_after_those_that_they_depend_on(tmp_path: Path) -> None:
    depends = {"a-b": "c,d-e", "c": "d_e", "d-e": "", "f": ""}
    for name, others in depends.items():
        folder = tmp_path / name[0]
        folder.mkdir()
        (folder / f"{name}.ko").write_bytes(f"\0license=GPL\0depends={others}\0".encode())
    order = [path.stem for path in load_order(tmp_path, ["f", "a_b", "c"])]
    assert order == ["f", "d-e", "c", "a-b"]
    with pytest.raises(Unavailable, match="the kernel's package has no module g"):
        load_order(tmp_path, ["g"])


# What goes wrong. QEMU is a script here, which is run in the folder of the ports' files.


def failure(tmp_path: Path, script: str, timeout: float = 60) -> str:
    """What is said of a machine that such a QEMU runs."""
    qemu, part = tmp_path / "qemu", tmp_path / "part"
    qemu.write_text(f"#!/bin/sh\n{script}\n")
    qemu.chmod(0o755)
    part.write_bytes(b"")
    machine = Machine(X86_64, str(qemu), part, part)
    with pytest.raises(MachineFailed) as caught:
        machine.run({}, ["play", "a guest"], timeout)
    return str(caught.value)


def test_a_machine_that_hangs_is_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    said = failure(tmp_path, f"echo $$ >{pid}; echo began >console; exec sleep 1000", timeout=1)
    assert said == (
        "the machine that was to run play 'a guest' failed: it did not end within 1 s\n"
        "the end of console:\n"
        "    began"
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_machine_that_panics_shows_its_console(tmp_path: Path) -> None:
    script = "seq 100 >console; echo Kernel panic >>console; echo playing >stderr; : >status"
    said = failure(tmp_path, script)
    assert said.splitlines()[:2] == [
        "the machine that was to run play 'a guest' failed: it ended before its command had",
        "the end of console:",
    ]
    assert said.splitlines()[2:] == [
        *(f"    {number}" for number in range(72, 101)),
        "    Kernel panic",
        "the end of stderr:",
        "    playing",
    ]


def test_a_qemu_that_fails_says_why(tmp_path: Path) -> None:
    noise = "warning: TCG doesn't support requested feature: CPUID.07H:EBX.rdseed"
    said = failure(tmp_path, f'echo "{noise}" >&2; echo "no such CPU" >&2; exit 1')
    assert "failed: QEMU ended with exit status 1\nthe end of qemu:\n    no such CPU" in said
    assert "rdseed" not in said


def test_a_qemu_that_is_killed_is_a_failure_whatever_was_sent(tmp_path: Path) -> None:
    script = "echo 0 >status; tar -c --files-from=/dev/null >results; kill -9 $$"
    assert "failed: QEMU was ended by signal 9" in failure(tmp_path, script)


def test_without_qemu_there_is_no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unavailable, match=r"needs qemu-system-x86_64; on Debian: apt-get install"):
        provision()


def test_without_apt_there_are_no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with (
        pytest.raises(Unavailable, match="there is no apt-get and no dpkg"),
        debian.suite("bookworm"),
    ):
        pass


def test_what_a_suite_does_not_have_is_named(tmp_path: Path) -> None:
    try:
        with debian.suite("bookworm") as suite:
            with pytest.raises(Unavailable, match="Unable to locate package no-such-package"):
                suite.unpack(["no-such-package"], tmp_path)
            assert suite.dependencies(X86_64.kernel)[0].startswith("linux-image-6.1.0-")
    except Unavailable as reason:
        require(False, str(reason))
