"""Plays scenarios on a backend, and tells what came of each."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from time import perf_counter
from typing import cast

from vmm_arch.errors import HypervisorUnavailableError
from vmm_arch.selftest.harness import (
    AnyBackend,
    Guest,
    Machine,
    Scenario,
    ScenarioFailed,
    play,
)
from vmm_arch.selftest.x86_64.code import CODE

NAMES = tuple(sorted(CODE))
"""The scenarios."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one scenario."""

    name: str
    failure: str
    """What was not as the scenario says; empty if all was."""
    seconds: float


@dataclass(frozen=True, slots=True)
class _Patient:
    """A scenario with more time."""

    MACHINE: Machine
    scenario: Callable[[Guest], None]


def scenario(name: str) -> Scenario:
    """The scenario of a name."""
    return cast(Scenario, import_module(f"vmm_arch.selftest.x86_64.scenarios.{name}"))


def play_all(
    arch: AnyBackend, names: Iterable[str] = NAMES, *, patience: float = 1
) -> Iterator[Outcome]:
    """Play scenarios one after the other; each is given ``patience`` times its own time.

    Raises HypervisorUnavailableError if this host cannot play any.
    """
    for name in names:
        start = perf_counter()
        failure = _failure(arch, name, patience)
        yield Outcome(name, failure, perf_counter() - start)


def _failure(arch: AnyBackend, name: str, patience: float) -> str:
    played = scenario(name)
    machine = replace(played.MACHINE, patience=patience * played.MACHINE.patience)
    try:
        play(arch, _Patient(machine, played.scenario), bytes.fromhex(CODE[name]))
    except HypervisorUnavailableError:
        raise
    except ScenarioFailed as error:
        return str(error)
    except Exception:
        return traceback.format_exc()
    return ""
