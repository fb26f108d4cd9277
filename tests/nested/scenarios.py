"""Plays the guests' scenarios in the machine, and reads what came of each."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import vmm_arch
from vmm_arch.selftest.play import Outcome

from nested.machine import Machine, MachineFailed

PRODUCT = Path(vmm_arch.__path__[0])
SLOWER = 10
"""How much longer a scenario may take there than where hardware is not interpreted."""
SELFTEST = [
    "python3",
    "-X",
    "faulthandler",
    "-m",
    "vmm_arch",
    "selftest",
    "--report",
    "results/report.json",
]
ENDED = (0, 1)
"""The self-test's exit status if every scenario was played."""


@dataclass(frozen=True)
class Played:
    """What came of scenarios that a machine played."""

    outcomes: dict[str, Outcome]
    parameters: dict[str, str]
    """What KVM says of itself: its module's parameters."""


def play_all(machine: Machine, names: Iterable[str]) -> Played:
    """Boot the machine once and play these scenarios in it, on its KVM."""
    selftest = shlex.join([*SELFTEST, "--hypervisor", "kvm", "--patience", str(SLOWER), *names])
    parameters = "cp -r /sys/module/kvm_*/parameters results"
    result = machine.run(
        {"vmm_arch": PRODUCT}, ["sh", "-c", f"{parameters}; {selftest}"], timeout=900
    )
    if result.status not in ENDED:
        said = result.stdout + result.stderr
        raise MachineFailed(f"the self-test ended with status {result.status}:\n{said}")
    outcomes = json.loads(result.files["report.json"])["scenarios"]
    return Played(
        {name: Outcome(name, **outcome) for name, outcome in outcomes.items()},
        {
            name.removeprefix("parameters/"): value.decode().strip()
            for name, value in result.files.items()
            if name.startswith("parameters/")
        },
    )
