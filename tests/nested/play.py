"""Plays guests' scenarios inside the machine: ``play.py BACKEND NAME…``.

Each guest's code is in the file ``NAME.bin``; what came of them all goes to the results as JSON.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import cast

from guests.harness import AnyBackend, Guest, Machine, Scenario, ScenarioFailed, play

SLOWER = 10
"""How much longer a scenario may take here than where hardware is not interpreted."""


@dataclass(frozen=True)
class Patient:
    """A scenario with more time."""

    MACHINE: Machine
    scenario: Callable[[Guest], None]


def main(backend: str, *names: str) -> None:
    outcomes = {}
    arch = cast(AnyBackend, import_module(f"vmm_arch.{backend}"))
    for name in names:
        # If the machine does not survive a guest, this is what tells which one it was.
        print("playing", name, file=sys.stderr, flush=True)
        start = monotonic()
        failure = _play(arch, name)
        outcomes[name] = {"failure": failure, "seconds": monotonic() - start}
    Path("results/outcomes.json").write_text(json.dumps(outcomes))


def _play(arch: AnyBackend, name: str) -> str:
    """What was not as the scenario says; nothing if all was."""
    try:
        scenario = cast(Scenario, import_module(f"guests.{name}"))
        machine = replace(scenario.MACHINE, patience=SLOWER * scenario.MACHINE.patience)
        play(arch, Patient(machine, scenario.scenario), Path(f"{name}.bin").read_bytes())
    except ScenarioFailed as error:
        return str(error)
    except Exception:
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    main(*sys.argv[1:])
