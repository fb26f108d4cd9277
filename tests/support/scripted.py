"""A machine whose vCPU makes the exits that it is given, of any CPU, for code above hypervisors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from vmm_arch.activity import Activity
from vmm_arch.exits import AnyExit

ExitT = TypeVar("ExitT", bound=AnyExit)


@dataclass
class ScriptedVcpu(Generic[ExitT]):
    exits: list[ExitT]
    index: int = 0

    def run(self) -> ExitT:
        return self.exits.pop(0)

    def kick(self) -> None:
        raise AssertionError("nobody else runs")

    def get_activity(self) -> Activity:
        raise AssertionError("a halt is an exit")


@dataclass
class ScriptedMachine(Generic[ExitT]):
    vcpus: list[ScriptedVcpu[ExitT]]
    irqchip: bool = False
