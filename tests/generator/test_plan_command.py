"""``vmm-arch-gen plan``: what a state takes on each hypervisor, as it is printed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vmm_arch_gen", "plan", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("state", ["real_mode", "long64", "secondary"])
def test_what_a_state_takes(state: str, golden: Callable[[str, str], None]) -> None:
    """A change of this text is a change of what every VMM does: it is to be seen in review."""
    done = plan(state, "--hypervisor", "kvm", "--hypervisor", "whp")
    assert done.returncode == 0, done.stderr
    golden(f"plan-{state}.txt", done.stdout)


def test_one_hypervisor_of_several() -> None:
    both, kvm, whp = (
        plan("long64", "--hypervisor", "kvm", "--hypervisor", "whp"),
        plan("long64", "--hypervisor", "kvm"),
        plan("long64", "--hypervisor", "whp"),
    )
    assert kvm.stdout.startswith("long64 on kvm_x86_64: ")
    assert whp.stdout.startswith("long64 on whp_x86_64: 1 call for any vCPU")
    assert both.stdout == f"{kvm.stdout}\n{whp.stdout}"


def test_a_state_of_another_cpu(tmp_path: Path) -> None:
    own = tmp_path / "cpu/slate/states.py"
    own.parent.mkdir(parents=True)
    own.write_text('STATES = {"started": {"pc": 0}}\n')
    done = plan("started", "--templates", str(tmp_path))
    assert done.returncode == 2
    where = "templates/cpu/x86_64/states.py has no state started"
    assert re.search(
        f"{where}; write (--cpu \\w+ or )*--cpu slate; the states are boot, ", done.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["long46"],
            "STATE: templates/cpu/x86_64/states.py has no state long46; did you mean long64",
        ),
        (
            ["long64", "--hypervisor", "kwm"],
            "kwm_x86_64: there is no such backend; the backends are",
        ),
        (["long64", "--cpu", "pdp11"], "pdp11: there is no such backend; the backends are"),
    ],
)
def test_what_there_is_not(arguments: list[str], complaint: str) -> None:
    done = plan(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
