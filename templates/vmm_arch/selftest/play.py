"""Plays a CPU's scenarios on a backend, and tells what came of each."""

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
    """What came of one scenario."""

    name: str
    failure: str
    """What was not as the scenario says; empty if all was."""
    seconds: float


@dataclass(frozen=True, slots=True)
class _Patient:
    """A scenario with more time."""

    MACHINE: Machine
    scenario: Callable[[Any], None]


class Suite:
    """The scenarios of a CPU, and the code of their guests: what is in ``vmm_arch.selftest.CPU``.

    ``CODE`` in its module ``code`` has the code in hexadecimal, by the scenarios' names. Each
    scenario is a module in its folder ``scenarios``.
    """

    def __init__(self, cpu: str) -> None:
        self._package = f"vmm_arch.selftest.{cpu}"
        code: Mapping[str, str] = import_module(f"{self._package}.code").CODE
        self.code = {name: bytes.fromhex(code[name]) for name in sorted(code)}

    @property
    def names(self) -> list[str]:
        """The scenarios, by their names."""
        return list(self.code)

    def scenario(self, name: str) -> Scenario:
        """The scenario of a name."""
        return cast(Scenario, import_module(f"{self._package}.scenarios.{name}"))

    def play(
        self, arch: Backend, names: Iterable[str], *, patience: float = 1
    ) -> Iterator[Outcome]:
        """Play scenarios one after the other; each is given ``patience`` times its own time.

        Raises HypervisorUnavailableError if this host cannot play any.
        """
        for name in names:
            start = perf_counter()
            failure = self._failure(arch, name, patience)
            yield Outcome(name, failure, perf_counter() - start)

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
