"""``vmm-arch run --save-on … --save FILE`` and ``--restore FILE``, as a user meets them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import flat_kernel
from requirements import require
from vmm_arch import kvm_x86_64 as arch
from vmm_arch.command.save import Saver, event
from vmm_arch.whp import VARIABLE
from whp.build import PLATFORM, libraries

COMMAND = [sys.executable, "-m", "vmm_arch", "run"]
LATE = 60

# Says "ok>", then how many characters it has got, at each one; powers off at a newline.
COUNTS = bytes.fromhex(
    "66 ba f8 03 b0 6f ee b0 6b ee b0 3e ee"  # mov dx, 0x3f8; out dx, 'o', 'k', '>'
    "66 ba fd 03 ec a8 01 74 f7"  # wait: mov dx, 0x3fd; in al, dx; test al, 1; jz wait
    "66 ba f8 03 ec 3c 0a 74 13"  # mov dx, 0x3f8; in al, dx; cmp al, '\n'; je off
    "fe 04 25 00 00 20 00 8a 04 25 00 00 20 00"  # inc byte [0x200000]; mov al, [0x200000]
    "04 30 ee eb db"  # add al, '0'; out dx, al; jmp wait
    "66 ba 00 06 b0 34 ee eb fe"  # off: mov dx, 0x600; mov al, 0x34; out dx, al; jmp $
)
# Writes to a port, says '1', then writes 5 to another port.
KNOCKS = bytes.fromhex("66 ba 99 00 ee 66 ba f8 03 b0 31 ee 66 ba 01 05 b0 05 ee eb fe")


@pytest.fixture(autouse=True)
def kvm() -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")


def run(*arguments: object, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=typed,
        capture_output=True,
        text=True,
        check=False,
        timeout=LATE,
    )


@pytest.fixture
def kernel(tmp_path: Path) -> list[object]:
    return [flat_kernel(tmp_path / "kernel", COUNTS), "--memory", "16M"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "saved"


@pytest.mark.parametrize("hypervisor", ["kvm", "whp"])
def test_a_guest_goes_on_in_another_process(
    hypervisor: str, kernel: list[object], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what was typed and not read yet, and with its memory."""
    if hypervisor == "whp":
        monkeypatch.setenv(VARIABLE, str(libraries() / PLATFORM))
    on = ["--hypervisor", hypervisor]
    saved = run(*kernel, *on, "--save-on", "text:>12", "--save", file, typed="abcd")
    assert (saved.returncode, saved.stdout) == (0, "ok>12"), saved.stderr
    said = (
        rf"vmm-arch: saved to {file} on text:>12: stopped after [0-9.]+ ms,"
        r" copied in [0-9.]+ s, written in [0-9.]+ s"
    )
    assert re.search(said, saved.stderr)
    assert (
        "vmm-arch: saved by vCPU 0 after" in saved.stderr or "vmm-arch: saved after" in saved.stderr
    )
    for clocks in ([], ["--catch-up"]):
        restored = run("--restore", file, *on, *clocks, typed="e\n")
        assert (restored.returncode, restored.stdout) == (0, "345"), restored.stderr
        assert "power off by vCPU 0" in restored.stderr


@given(
    pieces=st.lists(st.text("abc", max_size=3), min_size=1, max_size=12),
    places=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), min_size=1, max_size=3),
    others=st.lists(st.text("abc", min_size=1, max_size=4), max_size=2),
)
def test_a_text_is_noticed_however_it_comes(
    pieces: list[str], places: list[tuple[int, int]], others: list[str]
) -> None:
    whole = "".join(pieces)
    there = [whole[start : start + length] for start, length in places]
    texts = dict.fromkeys(text for text in (*there, *others) if text)
    saver = Saver(Namespace(save_on=[event(f"text:{text}") for text in texts]), ExitStack(), print)
    noticed: list[str] = []
    with patch.object(saver, "request", lambda wanted: noticed.append(wanted.value.decode())):
        for number, piece in enumerate(pieces, 1):
            saver.note(piece.encode())
            shown = "".join(pieces[:number])
            assert sorted(noticed) == sorted(text for text in texts if text in shown)


def test_it_can_be_saved_once_more(kernel: list[object], file: Path) -> None:
    """In place of the file that it came from, which is mapped meanwhile."""
    first = run(*kernel, "--save-on", "text:1", "--save", file, typed="a")
    assert first.stdout == "ok>1"
    second = run("--restore", file, "--save-on", "text:2", "--save", file, typed="b")
    assert (second.returncode, second.stdout) == (0, "2")
    third = run("--restore", file, typed="c\n")
    assert (third.returncode, third.stdout) == (0, "3")


def test_it_runs_on_after_it_was_saved_if_that_is_wanted(kernel: list[object], file: Path) -> None:
    on = ["--save-on", "text:1", "--after-save", "continue", "--save", file, "--quiet"]
    saved = run(*kernel, *on, typed="ab\n")
    assert (saved.returncode, saved.stdout, saved.stderr) == (0, "ok>12", "")
    restored = run("--restore", file)
    assert (restored.returncode, restored.stdout) == (0, "2"), restored.stderr


def test_saving_after_a_time(kernel: list[object], file: Path) -> None:
    saved = run(*kernel, "--save-on", "time:0.5", "--save", file)
    assert (saved.returncode, saved.stdout) == (0, "ok>"), saved.stderr
    assert run("--restore", file, typed="a\n").stdout == "1"


def test_saving_at_a_signal(kernel: list[object], file: Path) -> None:
    command = [*COMMAND, *map(str, kernel), "--save-on", "signal", "--save", str(file)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.read(3) == b"ok>"
    process.send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=LATE)
    assert process.returncode == 0, errors
    assert b"on signal: stopped after" in errors
    assert run("--restore", file, typed="a\n").stdout == "1"


def test_saving_when_the_guest_writes_to_a_place(tmp_path: Path, file: Path) -> None:
    """A restored machine has the devices that options gave it, without the options."""
    kernel = flat_kernel(tmp_path / "kernel", KNOCKS)
    options = ["--debug-exit=0x501", "--memory", "16M"]
    saved = run(kernel, *options, "--save-on", "write:0x99", "--save", file)
    assert (saved.returncode, saved.stdout) == (0, ""), saved.stderr
    for options_given in ([], ["--debug-exit=0x501"]):
        restored = run("--restore", file, *options_given)
        assert (restored.returncode, restored.stdout) == (11, "1"), restored.stderr
    other = run("--restore", file, "--debug-exit")
    assert other.returncode == 2
    assert "DebugExit at ports [0x501, 0x502): this bus has no such device" in other.stderr
    assert "DebugExit at ports [0xf4, 0xf5): the state does not have this device" in other.stderr


def test_a_guest_that_resets_is_restored_again(tmp_path: Path, file: Path) -> None:
    """Where a new one would be booted, had it not been restored."""
    # Writes to port 0x99, says '1', resets the machine.
    code = bytes.fromhex("66 ba 99 00 ee 66 ba f8 03 b0 31 ee 66 ba f9 0c b0 06 ee eb fe")
    kernel = flat_kernel(tmp_path / "kernel", code)
    run(kernel, "--memory", "16M", "--save-on", "write:0x99", "--save", file)
    process = subprocess.Popen(
        [*COMMAND, "--restore", str(file), "--on-reset", "restart", "--timeout", "60"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdout.read(3) == b"111"
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_guest_that_ends_before_was_not_saved(kernel: list[object], file: Path) -> None:
    done = run(*kernel, "--save-on", "text:never", "--save", file, typed="\n")
    assert done.returncode == 9
    assert f"{file} was not written: text:never did not come" in done.stderr
    assert not file.exists()


def test_what_cannot_be_written_is_said(kernel: list[object], tmp_path: Path) -> None:
    full = ["--save-on", "text:1", "--save", tmp_path]  # a folder
    done = run(*kernel, *full, typed="a\n")
    assert done.returncode == 2
    assert "is not a regular file" in done.stderr
    assert "Traceback" not in done.stderr
    done = run(*kernel, *full, "--after-save", "continue", typed="a\n")
    assert (done.returncode, done.stdout) == (9, "ok>1")
    assert "vmm-arch: not saved: " in done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaints"),
    [
        ([], ["no kernel: give one, or a saved machine with --restore"]),
        (["k", "--catch-up"], ["--catch-up: no saved machine; give one with --restore"]),
        (
            ["k", "--restore", "f", "--cpus", "2", "--memory", "1G", "--protocol", "linux"],
            ["--restore: the saved machine has its own KERNEL, --memory, --cpus, --protocol;"],
        ),
        (["k", "--save-on", "time:1"], ["--save-on: no file; give one with --save"]),
        (
            ["--save", "/nowhere/file"],
            [
                "no kernel: give one",
                "--save: no event; say when with --save-on",
                "--save: nothing can be written to the folder /nowhere",
            ],
        ),
        (["k", "--save-on", "lunch"], ["'lunch' is not an event: text:TEXT, time:SECONDS"]),
        (["k", "--save-on", "text:"], ["'text:' is not an event"]),
        (["k", "--save-on", "time:-1"], ["'time:-1' is not an event"]),
        (["k", "--save-on", "time:nan"], ["'time:nan' is not an event"]),
        (["k", "--save-on", "write:port"], ["'write:port' is not an event"]),
        (["k", "--save-on", "signal:9"], ["'signal:9' is not an event"]),
        (["--restore", "/dev/null"], ["/dev/null: is not a regular file"]),
        (["--restore", sys.executable], ["is not a snapshot"]),
        (["--restore", "no-such-file"], ["No such file or directory"]),
    ],
)
def test_wrong_use(arguments: list[str], complaints: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    for complaint in complaints:
        assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_place_that_is_taken_is_said(kernel: list[object], file: Path) -> None:
    done = run(*kernel, "--save-on", "write:0x3f9", "--save", file)
    assert done.returncode == 2
    assert "Notifier at ports [0x3f9, 0x3fa) overlaps Serial16550" in done.stderr


def test_a_snapshot_of_other_devices_is_refused(file: Path) -> None:
    with arch.GuestMemory(0x10000) as memory, arch.Vm(memory) as vm:
        with vm.take_snapshot() as snapshot:
            snapshot.save(file)
        done = run("--restore", file)
        assert done.returncode == 2
        assert "it was not saved by vmm-arch run, so that its devices are not known" in done.stderr
        devices = {"bus": {}, "options": {"debug_exit": 1 << 16, "notified": [-1]}}
        with vm.take_snapshot(devices=devices) as snapshot:
            snapshot.save(file)
    done = run("--restore", file)
    assert done.returncode == 2
    assert f"{file}: debug_exit: expected a port's number or null, got 65536" in done.stderr
    assert f"{file}: notified: expected a list of places, got [-1]" in done.stderr


def test_a_damaged_file_is_refused(kernel: list[object], file: Path) -> None:
    run(*kernel, "--save-on", "text:1", "--save", file, typed="a")
    os.truncate(file, file.stat().st_size - 0x1000)
    done = run("--restore", file)
    assert done.returncode == 2
    assert "cut short" in done.stderr


def test_another_hypervisors_file_is_refused(
    kernel: list[object], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(libraries() / PLATFORM))
    run(*kernel, "--save-on", "text:1", "--save", file, typed="a")
    done = run("--restore", file, "--hypervisor", "whp")
    assert done.returncode == 2
    assert "kvm_x86_64" in done.stderr
    assert "Traceback" not in done.stderr


# Says "k", waits for a character, says eight digits of its generation id, and powers off.
SAYS_ITS_ID = bytes.fromhex(
    "66 ba f8 03 b0 6b ee"  # mov dx, 0x3f8; out dx, 'k'
    "66 ba fd 03 ec a8 01 74 f7"  # wait: mov dx, 0x3fd; in al, dx; test al, 1; jz wait
    "66 ba f8 03 ec be 00 f0 0f 00 b9 08 00 00 00"  # in al, dx; mov esi, 0xff000; mov ecx, 8
    "8a 06 24 0f 04 61 ee ff c6 e2 f5"  # next: mov al, [rsi]; and al, 15; add al, 'a'; out; inc; loop
    "66 ba 00 06 b0 34 ee eb fe"  # mov dx, 0x600; mov al, 0x34; out dx, al; jmp $
)


def test_guests_that_go_on_from_one_file_have_ids_of_their_own(tmp_path: Path, file: Path) -> None:
    kernel = flat_kernel(tmp_path / "kernel", SAYS_ITS_ID)
    saved = run(kernel, "--memory", "16M", "--save-on", "text:k", "--save", file)
    assert saved.returncode == 0, saved.stderr
    ids = []
    for options in ([], [], ["--new-id"], ["--new-id"]):
        done = run("--restore", file, *options, typed="x")
        assert done.returncode == 0, done.stderr
        assert re.fullmatch("[a-p]{8}", done.stdout)
        ids.append(done.stdout)
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_a_new_id_is_for_machines_that_are_restored(tmp_path: Path) -> None:
    kernel = flat_kernel(tmp_path / "kernel", SAYS_ITS_ID)
    done = run(kernel, "--new-id")
    assert done.returncode == 2
    assert "--new-id: it is for a machine that is restored" in done.stderr
