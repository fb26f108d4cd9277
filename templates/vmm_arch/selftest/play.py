"""Plays a CPU's scenarios on a backend, and returns the outcome of each."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from time import perf_counter
from typing import Any, cast

from vmm_arch.errors import HypervisorUnavailableError
from vmm_arch.protocols.common import Backend
from vmm_arch.selftest.harness import Machine, Scenario, ScenarioFailed, play


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one scenario."""

    name: str
    failure: str
    """The first deviation from the scenario; empty if it passed."""
    seconds: float
    lacking: str = ""
    """Why it was not played: what the host lacks; empty if it was."""


@dataclass(frozen=True, slots=True)
class _Patient:
    """A scenario with a longer time limit."""

    MACHINE: Machine
    scenario: Callable[[Any], None]


class Suite:
    """The scenarios of a CPU, and the code of their guests, from ``vmm_arch.selftest.CPU``.

    Each scenario is a module in its folder ``scenarios``. ``CODE`` in its module ``code`` has the
    guests' code in hexadecimal, by scenario name.
    """

    def __init__(self, cpu: str) -> None:
        self._package = f"vmm_arch.selftest.{cpu}"
        code: Mapping[str, str] = import_module(f"{self._package}.code").CODE
        self.code = {name: bytes.fromhex(code[name]) for name in sorted(code)}

    @property
    def names(self) -> list[str]:
        """The names of the scenarios."""
        return list(self.code)

    def scenario(self, name: str) -> Scenario:
        """The scenario with this name."""
        return cast(Scenario, import_module(f"{self._package}.scenarios.{name}"))

    def play(
        self, arch: Backend, names: Iterable[str], *, patience: float = 1
    ) -> Iterator[Outcome]:
        """Play scenarios one after the other; ``patience`` multiplies their time limits.

        Raises HypervisorUnavailableError if this host cannot play any.
        """
        for name in names:
            start = perf_counter()
            lacking = self.scenario(name).MACHINE.lacking(arch)
            failure = "" if lacking else self._failure(arch, name, patience)
            yield Outcome(name, failure, perf_counter() - start, lacking)

    def _failure(self, arch: Backend, name: str, patience: float) -> str:
        played = self.scenario(name)
        machine = replace(played.MACHINE, patience=patience * played.MACHINE.patience)
        try:
            play(arch, _Patient(machine, played.scenario), self.code[name])
        except HypervisorUnavailableError:
            raise
        except ScenarioFailed as error:
            return str(error)
        except Exception:
            return traceback.format_exc()
        return ""
