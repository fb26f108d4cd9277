"""Plays the guests' scenarios in the machine: assembles here, ships, and reads what came of each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import cast

import vmm_arch
from guests.assemble import assemble
from guests.harness import Scenario

from nested.machine import Machine, MachineFailed

GUESTS = Path(__file__).parents[1] / "guests"
NAMES = sorted(source.stem for source in GUESTS.glob("*.S"))
PRODUCT = Path(vmm_arch.__path__[0])
PLAYER = Path(__file__).with_name("play.py")


@dataclass(frozen=True)
class Outcome:
    """What came of one scenario."""

    failure: str
    """What was not as the scenario says; nothing if all was."""
    seconds: float


def play_all(machine: Machine, backend: str, names: Iterable[str]) -> dict[str, Outcome]:
    """Boot the machine once and play these guests in it, with a backend of vmm_arch."""
    names = list(names)
    files: dict[str, bytes | Path] = {"vmm_arch": PRODUCT, PLAYER.name: PLAYER}
    files |= {f"guests/{module.name}": module for module in GUESTS.glob("*.py")}
    for name in names:
        scenario = cast(Scenario, import_module(f"guests.{name}"))
        files[f"{name}.bin"] = assemble(GUESTS / f"{name}.S", scenario.MACHINE.origin)
    command = ["python3", "-X", "faulthandler", PLAYER.name, backend, *names]
    result = machine.run(files, command, timeout=900)
    if result.status:
        raise MachineFailed(f"{PLAYER.name} ended with status {result.status}:\n{result.stderr}")
    outcomes = json.loads(result.files["outcomes.json"])
    return {name: Outcome(**outcome) for name, outcome in outcomes.items()}
