"""The ``vmm-arch`` command as a user meets it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from backends import BACKENDS, backend_module
from images import Part, elf, flat_kernel, multiboot, note, notes
from requirements import require
from vmm_arch.__main__ import main
from vmm_arch.command.backends import default_hypervisor, hypervisors
from vmm_arch.command.messages import report_error
from vmm_arch.command.run import size
from vmm_arch.report import Check, Report
from vmm_arch.whp import VARIABLE
from whp.build import PLATFORM, libraries

COMMAND = [sys.executable, "-m", "vmm_arch"]


def command(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], input=typed, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["doctor", "--help"], ["state", "--help"]]
)
def test_help(arguments: list[str]) -> None:
    done = command(*arguments)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: vmm-arch")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["run"], "vmm-arch run: no kernel: give one, or a saved machine with --restore"),
        (["run", "k", "--memory", "lots"], "'lots' is not a size such as 512M or 4G"),
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


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["doctor"], 1, "vmm-arch has no backend for slate yet"),
        (["selftest"], 2, "vmm-arch selftest: vmm-arch has no scenarios for slate"),
        (["run", os.devnull], 2, "vmm-arch run: vmm-arch has no backend for kvm on slate"),
    ],
)
def test_a_processor_without_a_backend_is_named(
    arguments: list[str],
    status: int,
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("vmm_arch.command.backends.processor", lambda: "slate")
    assert main(arguments) == status
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "status"), [(["doctor"], 1), (["run", os.devnull], 2)])
def test_a_processor_that_the_commands_lack_a_part_for_is_named(
    arguments: list[str],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arch = SimpleNamespace(probe=lambda: Report("Chalk", (Check("chalk", True, "is at hand"),)))
    monkeypatch.setattr("vmm_arch.command.backends.processor", lambda: "slate")
    monkeypatch.setattr("vmm_arch.command.backends.hypervisors", lambda: {"kvm": "chalk_slate"})
    monkeypatch.setattr("vmm_arch.command.backends.backend", lambda name: arch)
    assert main(arguments) == status
    said = f"vmm-arch {arguments[0]}: vmm-arch has no commands for slate: no module vmm_arch"
    assert said in capsys.readouterr().err


def test_doctor() -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    done = command("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "KVM: works on this host" in done.stdout
    assert "yes  a guest: created, ran and halted in" in done.stdout
    assert re.search("(yes|no ) +an operating system: ", done.stdout)


@pytest.mark.parametrize(("system", "first"), [("linux", "kvm"), ("win32", "whp")])
def test_a_systems_own_hypervisor_comes_first(
    system: str, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert default_hypervisor() == first
    assert next(iter(hypervisors())) == first
    assert sorted(hypervisors()) == ["kvm", "whp"]


# mov dx, 0x3f8; mov al, '!'; out dx, al; then what ends the guest
SAYS = "66 ba f8 03 b0 21 ee"
SAYS_AND_SPINS = bytes.fromhex(SAYS + "eb fe")


@pytest.mark.parametrize(
    ("code", "status", "ending"),
    [
        ("66 ba 00 06 b0 34 ee eb fe", 0, "power off by vCPU 0"),  # SLEEP_CONTROL
        ("66 ba f9 0c b0 06 ee eb fe", 8, "reset by vCPU 0"),
        # mov word [0x472], 0x1234: as Linux does before it resets because of a panic
        ("66 c7 04 25 72 04 00 00 34 12 66 ba f9 0c b0 06 ee eb fe", 7, "panic by vCPU 0"),
        ("66 ba 05 05 b0 01 ee eb fe", 7, "panic by vCPU 0"),  # pvpanic
        ("0f 0b", 3, "shutdown by vCPU 0"),  # ud2, without anything that handles it
        ("fa f4 eb fd", 4, "halted"),  # cli; hlt: nothing can wake it
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
    assert ("rip" in done.stderr) == (status in (3, 4, 124))  # where it was, if it ended badly


# mov dx, 0x3f8; mov al, '!'; out dx, al; mov dx, 0x505; mov al, 1; out dx, al; jmp $
SAYS_AND_PANICS = bytes.fromhex("66 ba f8 03 b0 21 ee 66 ba 05 05 b0 01 ee eb fe")
PVH_KERNEL = elf(
    [
        Part(0x100000, SAYS_AND_PANICS),
        notes(note(b"Xen\0", 18, (0x100000).to_bytes(4, "little"))),
    ]
)


@pytest.mark.parametrize(
    ("image", "protocol", "says"),
    [
        (PVH_KERNEL, "auto", "boot protocol pvh, entered at 0x100000"),
        (PVH_KERNEL, "linux", "it is a PVH kernel (Xen's note PHYS32_ENTRY), entered in 32-bit code"),
        (elf([Part(0x100000, multiboot() + SAYS_AND_PANICS)], e_entry=0x10000C), "auto",
         "boot protocol multiboot, entered at 0x10000c"),
        (elf([Part(0x100000, SAYS_AND_PANICS)]), "pvh", "it has no PVH entry"),
    ],
)  # fmt: skip
def test_a_kernel_is_loaded_by_the_protocol_that_it_is_for(
    tmp_path: Path, image: bytes, protocol: str, says: str
) -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    kernel = tmp_path / "kernel"
    kernel.write_bytes(image)
    done = command("run", str(kernel), "--protocol", protocol, "--timeout", "20")
    assert says in done.stderr
    started = "entered at" in says
    assert (done.returncode, done.stdout) == ((7, "!") if started else (2, ""))


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
    echo = bytes.fromhex("66bafd03 ec a801 74f7 66baf803 ec ee ebef")
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


SPINS = bytes.fromhex("eb fe")
SPEAKS_FOREVER = bytes.fromhex("66 ba f8 03 b0 41 ee eb fd")  # mov dx, 0x3f8; mov al, 'A'; out


@dataclass
class AtTerminal:
    """The command at a terminal of its own, and how that was before."""

    process: subprocess.Popen[bytes]
    side: int
    before: list[Any]

    @property
    def is_raw(self) -> bool:
        return termios.tcgetattr(self.side) != self.before

    def wait_until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.01)

    def is_stopped(self) -> bool:
        return (
            Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        )


def _as_at_a_terminal() -> None:
    """Have signals end the command: who runs the tests in the background ignores some of them."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def at_terminal(tmp_path: Path) -> Iterator[AtTerminal]:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    kernel = flat_kernel(tmp_path / "kernel", SPINS)
    main, side = pty.openpty()
    before = termios.tcgetattr(side)
    process = subprocess.Popen(
        [*COMMAND, "run", str(kernel), "--timeout", "60", "--quiet"],
        stdin=side,
        stdout=side,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_as_at_a_terminal,
    )
    at = AtTerminal(process, side, before)
    at.wait_until(lambda: at.is_raw)
    yield at
    process.kill()
    process.communicate()
    os.close(main)
    os.close(side)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGQUIT", "SIGINT"])
def test_a_signal_leaves_the_terminal_as_it_was(at_terminal: AtTerminal, name: str) -> None:
    number = signal.Signals[name]
    at_terminal.process.send_signal(number)
    _, said = at_terminal.process.communicate(timeout=20)
    assert at_terminal.process.returncode == 128 + number
    assert not at_terminal.is_raw
    assert said == b""


def test_a_command_that_is_stopped_for_a_while(at_terminal: AtTerminal) -> None:
    """The shell gets its terminal back meanwhile."""
    for _ in range(2):
        at_terminal.process.send_signal(signal.SIGTSTP)
        at_terminal.wait_until(at_terminal.is_stopped)
        assert not at_terminal.is_raw
        at_terminal.process.send_signal(signal.SIGCONT)
        at_terminal.wait_until(lambda: at_terminal.is_raw)
    at_terminal.process.send_signal(signal.SIGTERM)
    assert at_terminal.process.wait(20) == 128 + signal.SIGTERM
    assert not at_terminal.is_raw


def test_what_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As nohup has it."""
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    kernel = flat_kernel(tmp_path / "kernel", SAYS_AND_SPINS)
    process = subprocess.Popen(
        [*COMMAND, "run", str(kernel), "--timeout", "2", "--quiet"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert process.stdout is not None
    assert process.stdout.read(1) == b"!"
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=20)
    assert process.returncode == 124


@pytest.mark.parametrize("options", [[], ["--trace"]], ids=["", "traced"])
def test_a_timeout_does_not_wait_for_a_reader(tmp_path: Path, options: list[str]) -> None:
    """Neither of the guest's output nor of what is said at the end."""
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    kernel = flat_kernel(tmp_path / "kernel", SPEAKS_FOREVER)
    process = subprocess.Popen(
        [*COMMAND, "run", str(kernel), "--timeout", "2", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.wait(30) == 124  # and nobody reads
    out, _ = process.communicate()
    assert set(out) == {ord("A")}


def test_output_that_is_read_late_is_not_lost(tmp_path: Path) -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    # mov dx, 0x3f8; mov ecx, 100000; 1: mov al, cl; out dx, al; dec ecx; jnz 1b; power off
    code = bytes.fromhex(
        "66 ba f8 03 b9 a0 86 01 00 88 c8 ee ff c9 75 f9 66 ba 00 06 b0 34 ee eb fe"
    )
    kernel = flat_kernel(tmp_path / "kernel", code)
    process = subprocess.Popen(
        [*COMMAND, "run", str(kernel), "--timeout", "60", "--quiet"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(3)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out == bytes(count & 0xFF for count in range(100000, 0, -1))


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    kernel = flat_kernel(tmp_path / "kernel", SPEAKS_FOREVER)
    process = subprocess.Popen(
        [*COMMAND, "run", str(kernel), "--timeout", "60", "--quiet"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(10) == b"A" * 10
    process.stdout.close()
    assert process.wait(20) == 128 + signal.SIGPIPE
    said = process.stderr.read()
    process.stderr.close()
    assert said == b"vmm-arch run: the reader of standard output has closed it\n"


def test_readers_of_everything_that_go_away(tmp_path: Path) -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    kernel = flat_kernel(tmp_path / "kernel", SPEAKS_FOREVER)
    process = subprocess.Popen(
        [*COMMAND, "run", str(kernel), "--timeout", "60"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    assert process.stdout.readline().endswith(b": boot protocol linux, entered at 0x100000\n")
    assert process.stdout.read(10) == b"A" * 10
    process.stdout.close()
    assert process.wait(20) == 128 + signal.SIGPIPE


def test_a_timeout_is_for_all_machines_together(tmp_path: Path) -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    resets = flat_kernel(tmp_path / "kernel", bytes.fromhex("66 ba f9 0c b0 06 ee eb fe"))
    done = command("run", str(resets), "--on-reset", "restart", "--timeout", "2", "--quiet")
    assert done.returncode == 124


@pytest.mark.parametrize("hypervisor", [name.partition("_")[0] for name in BACKENDS])
def test_piped_input_waits_until_the_guest_listens(tmp_path: Path, hypervisor: str) -> None:
    """A guest that probes the chip as Linux' driver does, and only then asks for interrupts."""
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    backend_module(f"{hypervisor}_x86_64")
    probes = (
        "b9 00 00 08 00 ff c9 75 fc"  # a while: mov ecx, 0x80000; 1: dec ecx; jnz 1b
        "66 ba fa 03 b0 07 ee"  # FCR: enable and clear the FIFOs
        "66 ba fd 03 ec 66 ba f8 03 ec"  # LSR, RBR: whatever may be there
        "66 ba fa 03 b0 01 ee"  # FCR
        "66 ba f9 03 b0 01 ee"  # IER: received data
    )
    # 1: mov dx, 0x3fd; in al, dx; test al, 1; jz 1b; mov dx, 0x3f8; in al, dx; out dx, al;
    # cmp al, '\n'; jne 1b; power off
    echoes = "66 ba fd 03 ec a8 01 74 f7 66 ba f8 03 ec ee 3c 0a 75 ed 66 ba 00 06 b0 34 ee eb fe"
    kernel = flat_kernel(tmp_path / "kernel", bytes.fromhex(probes + echoes))
    done = subprocess.run(
        [*COMMAND, "run", str(kernel), "--timeout", "40", "--quiet", "--hypervisor", hypervisor],
        input="all of this, longer than the FIFO is\n",
        env=os.environ | {VARIABLE: str(libraries() / PLATFORM)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("all of this, longer than the FIFO is\n", "")
    assert done.returncode == 0


def test_an_errors_notes_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    error = ValueError("no such thing")
    error.add_note("It happened here.")
    report_error("run", error)
    assert capsys.readouterr().err == "vmm-arch run: no such thing\nIt happened here.\n"


def test_a_list_that_nobody_reads_to_its_end() -> None:
    """As head(1) does; a traceback would be the last thing to be seen of it."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "selftest", "--list"], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
