"""A guest under the real gdb, in batch mode: what it shows, what it does to the guest, and what its going does."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import debugged_kernel
import pytest
from debugged_kernel import kernel_at
from requirements import require
from vmm_arch.whp import VARIABLE
from whp.build import PLATFORM, libraries

LATE = 90
BACKENDS = ["kvm_x86_64", "whp_x86_64"]
CONNECT = "target remote {}"


@pytest.fixture(autouse=True)
def tools() -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    require(shutil.which("gdb") is not None, "no gdb")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kernel_at(tmp_path_factory.mktemp("debugged"))


def gdb(kernel: Path, where: str, *commands: str) -> str:
    """What gdb says to these commands, on standard output and error."""
    all_commands = ("set pagination off", CONNECT.format(where), *commands)
    arguments = [part for command in all_commands for part in ("-ex", command)]
    done = subprocess.run(
        ["gdb", "-batch", "-nx", kernel, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=LATE,
    )
    return done.stdout


def interrupt_after(seconds: float) -> str:
    """A command of gdb's that has it get a Control-C while the next one runs."""
    return (
        "python import os, signal, threading; threading.Timer("
        f"{seconds}, os.kill, (os.getpid(), signal.SIGINT)).start()"
    )


class Guest:
    """A program that runs the kernel under a server."""

    def __init__(self, backend: str, kernel: Path, vcpus: int) -> None:
        environment = os.environ | {VARIABLE: str(libraries() / PLATFORM)}
        command = [sys.executable, debugged_kernel.__file__, backend, str(kernel), str(vcpus)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self.where = self.says()

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


Start = Callable[..., Guest]


@pytest.fixture
def start(kernel: Path) -> Iterator[Start]:
    guests: list[Guest] = []

    def make(backend: str, vcpus: int = 1) -> Guest:
        guests.append(Guest(backend, kernel, vcpus))
        return guests[-1]

    yield make
    for guest in guests:
        guest.process.kill()
        guest.process.communicate()


def test_a_kernel_of_ours_from_its_first_instruction(start: Start, kernel: Path) -> None:
    guest = start("kvm_x86_64")
    said = gdb(
        kernel,
        guest.where,
        "info symbol $pc",
        "break add",
        "continue",
        "backtrace",
        "info locals",
        "next",
        "print sum",
        "stepi",
        "finish",
        "delete",
        "set can-use-hw-watchpoints 0",
        "watch counters[0]",
        "continue",
        "delete",
        "set var watched = 0x1122334455667788",
        "print/x watched",
        "x/2xb &watched",
        "set $rbx = 0x1234",
        "print/x $rbx",
        "set $xmm1.uint128 = 0x5678",
        "print/x $xmm1.uint128",
        "print $cs",
        "set $cs = 0",
        "print/x $efer",
        "monitor translate 0x200000",
        "monitor dump",
        "monitor nonsense",
        "set var stop = 1",
        "continue",
    )
    for expected in (
        r"_start in section \.text",
        r"Breakpoint 1, add \(a=0, b=1\) at .*debugged\.c",
        r"#0  add \(a=0, b=1\)",
        r"#1  0x[0-9a-f]+ in work \(number=0\)",
        r"#2  0x[0-9a-f]+ in kernel \(\)",
        r"sum = 0\n",
        r"\$1 = 1\n",
        r"Value returned is \$\d = 1\n",
        r"Old value = 0\nNew value = 1\n",
        r"\$\d = 0x1122334455667788\n",
        r"<watched>:\s0x88\s0x77",
        r"\$\d = 0x1234\n",
        r"\$\d = 0x5678\n",
        r"\$\d = 16\n",
        r"\$\d = 0x500\n",
        r"PML4\[0\] at 0x9000: [0-9a-f]+\n(.*\n)+physical 0x200000",
        r"vCPU 0:\n +rax ",
        "nonsense: there is no such command",
        r"\[Inferior 1 \(Remote target\) exited with code 07\]",
    ):
        assert re.search(expected, said), (expected, said)
    assert [guest.says(), guest.says()] == ["gdb is connected", "power off"]


def test_more_breakpoints_than_the_processor_has(start: Start, kernel: Path) -> None:
    """Here the hypervisor does not execute INT3, which the program's server does not know."""
    guest = start("kvm_x86_64")
    places = ["break kernel", "break work", "break add", "break power_off", "break second"]
    said = gdb(kernel, guest.where, *places, "continue", "continue", "continue")
    for name in ("kernel ()", "work (number=0)", "add (a=0, b=1)"):
        assert f"{name} at " in said


def test_two_vcpus_are_two_threads(start: Start, kernel: Path) -> None:
    guest = start("kvm_x86_64", 2)
    said = gdb(
        kernel,
        guest.where,
        "info threads",
        "break add thread 2",
        "continue",
        "backtrace 2",
        "delete",
        interrupt_after(1),
        "continue",
        "set scheduler-locking on",
        "thread 2",
        "print counters[0]",
        "next",
        "next",
        "next",
        "next",
        "next",
        "next",
        "print counters[0]",
        "set var stop = 1",
        "thread 1",
        "set scheduler-locking off",
        "continue",
    )
    for expected in (
        r"1    Thread 1 \(vCPU 0\) .* in _start \(\)",
        r"2    Thread 2 \(vCPU 1\) .* in _second \(\)",
        r"Thread 2 hit Breakpoint 1, add \(a=0, b=1\)",
        r"in work \(number=1\)",
        r"received signal SIGINT",
        r"exited with code 07",
    ):
        assert re.search(expected, said), (expected, said)
    counts = [int(count) for count in re.findall(r"\$[12] = (\d+)", said)]
    assert counts[0] == counts[1] > 0  # nobody else ran while one was stepped


def test_a_guest_runs_on_when_gdb_detaches_and_can_be_killed(start: Start, kernel: Path) -> None:
    guest = start("kvm_x86_64", 2)
    first = gdb(kernel, guest.where, "break add", "continue", "print counters[0]", "detach")
    assert "[Inferior 1 (Remote target) detached]" in first
    second = gdb(kernel, guest.where, interrupt_after(0.3), "continue", "print counters[0]", "kill")
    counts = [int(re.findall(r"\$1 = (\d+)", said)[0]) for said in (first, second)]
    assert counts[1] > counts[0]
    said = [guest.says() for _ in range(4)]
    assert said == ["gdb is connected", "gdb has detached", "gdb is connected", "stopped"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_looking_interrupting_and_ending_on_every_hypervisor(
    start: Start, kernel: Path, backend: str
) -> None:
    guest = start(backend)
    said = gdb(
        kernel,
        guest.where,
        interrupt_after(0.5),
        "continue",
        "print counters[0] > 0",
        "set var watched = 5",
        "print watched",
        "set $r15 = 0x4321",
        "print/x $r15",
        "set var stop = 1",
        "continue",
    )
    for expected in ("received signal SIGINT", "$1 = 1", "$2 = 5", "$3 = 0x4321", "code 07"):
        assert expected in said, said


def test_what_a_hypervisor_lacks_is_said(start: Start, kernel: Path) -> None:
    said = gdb(kernel, start("whp_x86_64").where, "watch watched", "continue", "stepi")
    assert "Could not insert hardware watchpoint 1" in said or "Could not insert hardware" in said


def test_the_command(kernel: Path) -> None:
    """``--gdb`` says how to connect, and the guest's ending is the command's."""
    command = [
        sys.executable,
        "-m",
        "vmm_arch",
        "run",
        str(kernel),
        "--memory",
        "16M",
        "--gdb",
        "0",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            while "waits for gdb" not in (line := process.stderr.readline()):
                assert line
            where = re.search(r"-ex 'target remote (127\.0\.0\.1:\d+)'", line)
            assert where
            said = gdb(kernel, where[1], "break add", "continue", "watch watched", "continue")
            assert "Breakpoint 1, add" in said
            said = gdb(kernel, where[1], "set var stop = 1", "continue")
            assert "exited normally" in said
            process.wait(LATE)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gdb", "no"], "'no' is not a TCP port such as 1234, or HOST:1234"),
        (["--gdb", "70000"], "'70000' is not a TCP port"),
        (["--gdb", "0", "--single-step"], "--gdb and --single-step: gdb does the stepping"),
    ],
)
def test_options_that_cannot_be(kernel: Path, arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "vmm_arch", "run", str(kernel), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LATE)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
