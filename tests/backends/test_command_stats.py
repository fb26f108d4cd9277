"""``vmm-arch run --stats``."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from backends import BACKENDS
from images import flat_kernel
from requirements import require
from vmm_arch.command.counts import Counts, count
from vmm_arch.errors import HypervisorError
from vmm_arch.statistic import Statistic
from vmm_arch.whp import VARIABLE
from whp.build import PLATFORM, libraries

COMMAND = [sys.executable, "-m", "vmm_arch"]
# mov dx, 0x3f8; mov al, '!'; out dx, al; mov dx, 0x505; mov al, 1; out dx, al; jmp $
SAYS_AND_PANICS = bytes.fromhex("66 ba f8 03 b0 21 ee 66 ba 05 05 b0 01 ee eb fe")
SPINS = bytes.fromhex("eb fe")


@pytest.mark.parametrize("hypervisor", [name.partition("_")[0] for name in BACKENDS])
def test_what_was_counted_is_printed_at_the_end(tmp_path: Path, hypervisor: str) -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    kernel = flat_kernel(tmp_path / "kernel", SAYS_AND_PANICS)
    options = ["--stats", "--cpus", "2", "--timeout", "60", "--quiet", "--hypervisor", hypervisor]
    done = subprocess.run(
        [*COMMAND, "run", str(kernel), *options],
        env=os.environ | {VARIABLE: str(libraries() / PLATFORM)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert "what the hypervisor counted, vCPU by vCPU:" in done.stderr
    name = "exits" if hypervisor == "kvm" else r"IoInstructions\.Count"
    found = re.search(rf"^  {name} +(\d+)", done.stderr, re.M)
    assert found
    assert int(found[1]) >= 1  # what the guest says is collected
    assert "\x1b" not in done.stderr  # which is no terminal


def test_a_terminals_title_shows_how_the_guest_is_doing(tmp_path: Path) -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    kernel = flat_kernel(tmp_path / "kernel", SPINS)
    main, side = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "run", str(kernel), "--stats", "--timeout", "60"],
        stdin=side,
        stdout=side,
        stderr=side,
    )
    os.close(side)
    shown = b""
    while not re.search(rb"\x1b]2;vmm-arch: \d+ s, [\d,]+ exits/s, \d+% CPU\x07", shown):
        shown += os.read(main, 1000)
    os.write(main, b"\x1d")
    while b"of the whole machine:" not in shown:
        shown += os.read(main, 1000)
    assert b"\x1b]2;\x07" in shown  # the title is the terminal's own again
    process.wait()
    os.close(main)


def machine(statistics: Any) -> Any:
    return SimpleNamespace(statistics=statistics, vcpus=[SimpleNamespace(statistics=statistics)])


def test_only_what_changed_is_printed() -> None:
    readings = iter(
        {"exits": Statistic((n,)), "same": Statistic((7,))} for n in (0, 10, 1234567, 1234567)
    )
    counts = Counts(machine(lambda: next(readings)))
    assert list(counts.lines()) == [
        "what the hypervisor counted, vCPU by vCPU:",
        "  exits  1,234,557",
        "of the whole machine:",
        "  exits  1,234,567",
    ]


def test_a_hypervisor_that_does_not_count() -> None:
    def refuses() -> None:
        raise HypervisorError("statistics", "ENOTTY", "this kernel does not know the call")

    said: list[str] = []
    assert count(Namespace(stats=True), machine(refuses), said.append) is None
    assert said == [
        "vmm-arch: no statistics: statistics: ENOTTY: this kernel does not know the call"
    ]
