"""The ``vmm-arch`` command as a user meets it."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from images import flat_kernel
from requirements import require
from vmm_arch.command.run import size

COMMAND = [sys.executable, "-m", "vmm_arch"]


def command(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], input=typed, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["doctor", "--help"]])
def test_help(arguments: list[str]) -> None:
    done = command(*arguments)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: vmm-arch")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["run"], "the following arguments are required: kernel"),
        (["run", "k", "--memory", "lots"], "'lots' is no size such as 512M or 4G"),
        (["run", "no-such-file"], "No such file or directory: 'no-such-file'"),
        (["run", "k", "--debug-exit", "0x10000"], "'0x10000' is not a port number such as 0xf4"),
        (["run", "--debug-exit", "kernel"], "'kernel' is not a port number such as 0xf4"),
        (["run", "/dev/null"], "vmm-arch run: "),
        (["run", sys.executable], "vmm-arch run: "),
    ],
)
def test_wrong_use(arguments: list[str], complaint: str) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "bytes_"), [("4096", 4096), ("512M", 512 << 20), ("4g", 4 << 30), ("8K", 8192)]
)
def test_sizes(text: str, bytes_: int) -> None:
    assert size(text) == bytes_


def test_doctor() -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    done = command("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "KVM: works on this host" in done.stdout
    assert "yes  a guest: was made, ran and halted in" in done.stdout
    assert re.search("(yes|no ) +an operating system: ", done.stdout)


# mov dx, 0x3f8; mov al, '!'; out dx, al; then what ends the guest
SAYS = "66 ba f8 03 b0 21 ee"


@pytest.mark.parametrize(
    ("code", "status", "ending"),
    [
        ("66 ba 00 06 b0 34 ee eb fe", 0, "power off by vCPU 0"),  # SLEEP_CONTROL
        ("66 ba f9 0c b0 06 ee eb fe", 8, "reset by vCPU 0"),
        # mov word [0x472], 0x1234: as Linux does before it resets because of a panic
        ("66 c7 04 25 72 04 00 00 34 12 66 ba f9 0c b0 06 ee eb fe", 7, "panic by vCPU 0"),
        ("66 ba 05 05 b0 01 ee eb fe", 7, "panic by vCPU 0"),  # pvpanic
        ("0f 0b", 3, "shutdown by vCPU 0"),  # ud2, without anything that handles it
        ("eb fe", 124, "timeout"),
    ],
)
def test_how_a_guest_ends_is_the_exit_status(
    tmp_path: Path, code: str, status: int, ending: str
) -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    done = command(
        "run", str(flat_kernel(tmp_path / "kernel", bytes.fromhex(SAYS + code))), "--timeout", "2"
    )
    assert done.returncode == status, done.stderr
    assert done.stdout == "!"
    assert f"vmm-arch: {ending}" in done.stderr
    assert ("rip" in done.stderr) == (status in (3, 124))  # where it was, if it ended badly


PANICS = bytes.fromhex("66 ba 05 05 b0 01 ee eb fe")


def test_a_panic_is_dumped_where_that_is_asked_for(tmp_path: Path) -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    kernel = str(flat_kernel(tmp_path / "kernel", PANICS))
    done = command("run", kernel, "--on-panic", "dump")
    assert done.returncode == 7
    assert "rip" in done.stderr


@pytest.mark.parametrize(
    ("options", "port", "value", "status"),
    [
        (["--debug-exit"], 0xF4, 0, 1),
        (["--debug-exit"], 0xF4, 0x10, 0x21),
        (["--debug-exit=0x501"], 0x501, 0x81, 0x03),  # eight bits are all that a status has
    ],
)
def test_debug_exit(tmp_path: Path, options: list[str], port: int, value: int, status: int) -> None:
    """As QEMU's isa-debug-exit."""
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    code = b"\x66\xba" + port.to_bytes(2, "little") + bytes([0xB0, value, 0xEE, 0xEB, 0xFE])
    done = command("run", str(flat_kernel(tmp_path / "kernel", code)), *options)
    assert done.returncode == status, done.stderr
    assert f"vmm-arch: debug exit {value} by vCPU 0" in done.stderr


@pytest.mark.parametrize("event", ["reset", "panic"])
def test_a_guest_that_begins_anew(tmp_path: Path, event: str) -> None:
    """A new machine each time: what the last one wrote to its memory is gone."""
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    # Says '!', or '?' if it was here before; notes that it was; then ends by a reset or a panic.
    code = bytes.fromhex("66 ba f8 03 b0 21 02 04 25 00 00 20 00 ee c6 04 25 00 00 20 00 1e") + (
        PANICS if event == "panic" else bytes.fromhex("66 ba f9 0c b0 06 ee eb fe")
    )
    kernel = str(flat_kernel(tmp_path / "kernel", code))
    process = subprocess.Popen(
        [*COMMAND, "run", kernel, f"--on-{event}", "restart", "--timeout", "60"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdout.read(3) == b"!!!"
    process.kill()
    process.wait()
    process.stdout.close()


def test_what_is_typed_goes_to_the_guest_and_the_escape_key_ends_it(tmp_path: Path) -> None:
    """At a real terminal: the guest sends back what it gets, until Control-]."""
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    # wait: mov dx, 0x3fd; in al, dx; test al, 1; jz wait; mov dx, 0x3f8; in al, dx; out dx, al;
    # jmp wait
    echo = bytes.fromhex("66bafd03 ec a801 74f7 66baf803 ec ee ebee")
    kernel = flat_kernel(tmp_path / "kernel", echo)
    main, side = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "run", str(kernel), "--timeout", "30"],
        stdin=side,
        stdout=side,
        stderr=subprocess.PIPE,
    )
    os.close(side)
    shown = b""

    def wait_for(text: bytes) -> None:
        nonlocal shown
        end = time.monotonic() + 20
        while text not in shown:
            assert time.monotonic() < end, shown
            if select.select([main], [], [], 0.1)[0]:
                shown += os.read(main, 100)

    assert process.stderr is not None
    assert b"Control-] ends the guest" in process.stderr.readline()
    time.sleep(0.3)
    os.write(main, b"a\x03b")  # Control-C is the guest's
    wait_for(b"b")
    assert shown.endswith(b"a\x03b")
    os.write(main, b"\x1d")
    assert process.wait(20) == 130
    os.close(main)
    assert b"stopped" in process.stderr.read()
