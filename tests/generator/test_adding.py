"""The guide to adding a hypervisor, and an architecture with two of them, followed literally."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

GUIDE = "generator/ADDING.md"
PROGRAMS = {
    "vmm-arch-gen": ["-m", "vmm_arch_gen"],
    "vmm-arch": ["-m", "vmm_arch"],
    "python3": [],
}
FAILURE = re.compile(r"FAILED |  NO ")
"""What a command that found something wrong with a hypervisor says."""


def test_what_the_guide_says_works(checkout: Path, tmp_path: Path) -> None:
    text = (checkout / GUIDE).read_text()
    followed = 0
    for kind, block in re.findall(r"^```(\w+)\n(.*?)^```", text, re.S | re.M):
        if kind == "console":
            follow(block, tmp_path)
            followed += 1
        elif name := re.match(r"(?://|#|\{#) ((?:paper|slate)/\S+)", block):
            file = tmp_path / name[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block)
    assert followed == 9
    check_types(tmp_path / "paper/src", "vmm_arch.paper_x86_64")
    check_types(
        tmp_path / "slate/src",
        "vmm_arch.chalk_slate",
        "vmm_arch.sponge_slate",
        "vmm_arch.protocols.slate",
        "vmm_arch.selftest.slate.scenarios.adds",
    )


def follow(block: str, folder: Path) -> None:
    """Run a block's command, which prints what is below it: an error, or what is to come."""
    command, *said = block.removeprefix("$ ").splitlines()
    program, *arguments = shlex.split(command)
    python = PROGRAMS[program]
    toy = "slate" if "slate" in command else "paper"
    done = subprocess.run(
        [sys.executable, *python, *arguments],
        cwd=folder,
        env=os.environ
        | ({} if program == "vmm-arch-gen" else {"PYTHONPATH": str(folder / toy / "src")}),
        capture_output=True,
        text=True,
        check=False,
    )
    printed = done.stdout + done.stderr
    status = 2 if "error:" in said[0] else 1 if any(FAILURE.match(line) for line in said) else 0
    assert done.returncode == status, printed
    for line in said:
        assert line in printed


def check_types(folder: Path, *modules: str) -> None:
    """The modules of the guide are as well typed as the others."""
    environment = os.environ | {"MYPYPATH": str(folder)}
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(folder.parent / "mypy")]
    done = subprocess.run(
        [*command, *(part for module in modules for part in ("-m", module))],
        cwd=folder.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
