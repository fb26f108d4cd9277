"""The parts of the nested machine, as far as they need no machine."""

from __future__ import annotations

import lzma
import os
import struct
import sys
from functools import partial
from pathlib import Path

import images
import pytest
from guests.assemble import assemble
from requirements import require
from vmm_arch.abi.linux_x86_64 import CAN_USE_HEAP, setup_header
from vmm_arch_gen.fetch import debian
from vmm_arch_gen.fetch.debian import Unavailable

from nested import bzimage, cpio, disk, lz4
from nested.architecture import X86_64
from nested.bochs import run_bochs
from nested.bochs_package import Bochs, mended
from nested.emulator import Boot
from nested.machine import Machine, MachineFailed, provision
from nested.modules import load_order
from nested.qemu import run_qemu
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
    depends = {"a-b": "c,d-e", "c": "d_e,h", "d-e": "", "f": ""}
    modules = {
        name: f"\0license=GPL\0depends={others}\0".encode() for name, others in depends.items()
    }
    for name, module in modules.items():
        (tmp_path / name[0]).mkdir()
        (tmp_path / name[0] / f"{name}.ko").write_bytes(module)
    packed = tmp_path / "c" / "c.ko"
    packed.with_suffix(".ko.xz").write_bytes(lzma.compress(modules["c"]))
    packed.unlink()
    (tmp_path / "modules.builtin").write_text("kernel/h/h.ko\nkernel/i-j.ko\n")
    assert load_order(tmp_path, ["f", "a_b", "i_j", "c"]) == [
        ("f", modules["f"]),
        ("d_e", modules["d-e"]),
        ("c", modules["c"]),
        ("a_b", modules["a-b"]),
    ]
    with pytest.raises(Unavailable, match="the kernel's package has no module g"):
        load_order(tmp_path, ["g"])


# The disk that Bochs boots from


def test_a_disk_has_what_its_table_says() -> None:
    kernel = images.bzimage(behind=b"behind" * 9000)
    initrd = b"initrd" * 5000
    image = disk.disk(kernel, initrd, "console=ttyS0 quiet")
    assert len(image) % disk.CYLINDER == 0
    assert image[510:512] == b"\x55\xaa"
    code = assemble(disk.SOURCE, 0x7C00)
    assert image.startswith(code)
    table = struct.unpack_from("<8I", image, len(code))
    assert table == (0x90000, 3, 0x100000, 4, 0x20000000, 2, 0, 0)
    memory, at = {}, 512
    for address, chunks in zip(table[:6:2], table[1:6:2], strict=True):
        memory[address] = image[at : at + chunks * 0x4000]
        at += chunks * 0x4000
    setup = memory[0x90000]
    assert memory[0x100000].startswith(kernel[1024:])
    assert memory[0x20000000].startswith(initrd)
    loaded = setup_header.from_buffer_copy(setup, 0x1F1)
    unchanged = setup_header.from_buffer_copy(kernel, 0x1F1)
    assert (loaded.ramdisk_image, loaded.ramdisk_size) == (0x20000000, len(initrd))
    assert (loaded.type_of_loader, loaded.loadflags) == (0xFF, unchanged.loadflags | CAN_USE_HEAP)
    assert loaded.heap_end_ptr + 0x200 == 0x9000
    assert setup[loaded.cmd_line_ptr - 0x90000 :].startswith(b"console=ttyS0 quiet\0")
    assert loaded.init_size == unchanged.init_size
    assert loaded.setup_sects == unchanged.setup_sects


def test_what_no_disk_can_be_made_of() -> None:
    with pytest.raises(ValueError, match="not a bzImage"):
        disk.disk(bytes(4096), b"", "")
    with pytest.raises(ValueError, match="the command line has 2049 bytes, and 2048 is the most"):
        disk.disk(images.bzimage(), b"", "x" * 2048)
    with pytest.raises(ValueError, match="the real-mode code has 36864 bytes, and 36352 is"):
        disk.disk(images.bzimage(setup_sects=71), b"", "")


# The fault that is mended in Bochs

VM_ENTRY = "83a3dc910000fb c683b98e000001 f683d891000004 740a c783e091000001000000"
MENDED = "81a3dc910000fbf3ffff c683b98e000001 c783e091000001000000 909090909090"


def test_the_fault_is_mended_where_it_is() -> None:
    before, after = bytes.fromhex("c3" + VM_ENTRY + "c3"), bytes.fromhex("c3" + MENDED + "c3")
    assert mended(before) == after


@pytest.mark.parametrize("times", [0, 2])
def test_another_bochs_is_refused(times: int) -> None:
    with pytest.raises(Unavailable, match=f"VM entry is at {times} places of its program"):
        mended(bytes.fromhex("c3" + times * VM_ENTRY))


# What goes wrong. The emulator is a script here, which is run in the folder of the ports' files.

OWN_END = {
    "QEMU": "exit 0",
    "Bochs": "echo '1p[ACPI  ] >>PANIC<< ACPI control: soft power off' >emulator; exit 1",
}


@pytest.fixture(params=OWN_END)
def emulator(request: pytest.FixtureRequest) -> str:
    assert isinstance(request.param, str)
    return request.param


def failure(emulator: str, tmp_path: Path, script: str, timeout: float = 60) -> str:
    """What is said of a machine that such an emulator runs."""
    program = tmp_path / "usr/lib64/ld-linux-x86-64.so.2"  # which starts Bochs
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    kernel = tmp_path / "kernel"
    kernel.write_bytes(images.bzimage())
    boot: Boot
    if emulator == "QEMU":
        boot = partial(run_qemu, str(program), "486")
    else:
        boot = partial(run_bochs, Bochs(tmp_path), "486")
    machine = Machine(boot, X86_64.python, kernel, ())
    with pytest.raises(MachineFailed) as caught:
        machine.run({}, ["play", "a guest"], timeout)
    return str(caught.value)


def test_a_machine_that_hangs_is_ended(emulator: str, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"echo $$ >{pid}; echo began >console; exec sleep 1000"
    said = failure(emulator, tmp_path, script, timeout=1)
    assert said == (
        "the machine that was to run play 'a guest' failed: it did not end within 1 s\n"
        "the end of console:\n"
        "    began"
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.parametrize("sent", ["", "tar -c --files-from=/dev/null >results"])
def test_a_machine_that_panics_shows_its_console(emulator: str, sent: str, tmp_path: Path) -> None:
    panic = "seq 100 >console; echo Kernel panic >>console; echo playing >stderr"
    said = failure(emulator, tmp_path, "\n".join([panic, sent, OWN_END[emulator]]))
    lines = [line for line in said.splitlines() if "emulator" not in line and "PANIC" not in line]
    assert lines[:2] == [
        "the machine that was to run play 'a guest' failed: it ended before its command had",
        "the end of console:",
    ]
    assert lines[2:] == [
        *(f"    {number}" for number in range(72, 101)),
        "    Kernel panic",
        "the end of stderr:",
        "    playing",
    ]


def test_a_qemu_that_fails_says_why(tmp_path: Path) -> None:
    noise = "warning: TCG doesn't support requested feature: CPUID.07H:EBX.rdseed"
    said = failure("QEMU", tmp_path, f'echo "{noise}" >&2; echo "no such CPU" >&2; exit 1')
    assert "failed: QEMU ended with exit status 1\nthe end of emulator:\n    no such CPU" in said
    assert "rdseed" not in said


def test_a_bochs_that_fails_says_why(tmp_path: Path) -> None:
    said = failure("Bochs", tmp_path, 'echo "no such CPU" >&2; exit 1')
    assert "failed: Bochs ended with exit status 1: no such CPU" in said


def test_bochs_is_given_no_path_that_may_be_long(tmp_path: Path) -> None:
    """It ends in a buffer overflow on one of a hundred characters."""
    said = failure("Bochs", tmp_path, "grep file=/ settings; exit 1")
    assert "failed: Bochs ended with exit status 1: it said nothing" in said


def test_what_bochs_draws_is_taken(tmp_path: Path) -> None:
    """On a terminal of its own, which takes some thousand characters; then Bochs would wait."""
    draw = tmp_path / "draw.py"
    draw.write_text("""
import os, tty
ours, theirs = os.openpty()
tty.setraw(theirs)
print(f'Bochs connected to screen "{os.ttyname(theirs)}"', flush=True)
for _ in range(1000):
    os.write(ours, b"\\x1b[?25h" * 100)
""")
    said = failure("Bochs", tmp_path, f"{sys.executable} {draw} && {OWN_END['Bochs']}", timeout=60)
    assert "failed: it ended before its command had" in said


def test_an_emulator_that_is_killed_is_a_failure_whatever_was_sent(
    emulator: str, tmp_path: Path
) -> None:
    script = "echo 0 >status; tar -c status >results; kill -9 $$"
    assert "failed: its emulator was ended by signal 9" in failure(emulator, tmp_path, script)


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
            assert any(
                name.startswith("linux-image-6.1.0-") for name in suite.closure(X86_64.kernel)
            )
    except Unavailable as reason:
        require(False, str(reason))
