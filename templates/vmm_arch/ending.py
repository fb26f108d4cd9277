"""Why ``serve()`` returned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """The reasons for which ``serve()`` returns."""

    SHUTDOWN = "shutdown"
    """The guest could not continue, on x86_64 after a triple fault, which resets a real machine."""
    RESET = "reset"
    """The guest asked a device, or its firmware, for a reset."""
    POWER_OFF = "power off"
    """The guest asked a device, or its firmware, to power the machine off."""
    PANIC = "panic"
    """The guest's kernel panicked, and reported it or reset the machine because of it."""
    DEBUG_EXIT = "debug exit"
    """The guest wrote ``code`` to the debug-exit port."""
    HALTED = "halted"
    """Every vCPU has halted and nothing can wake one: interrupts are off, or there is no irqchip."""
    SAVED = "saved"
    """The guest was saved, to go on another time."""
    TIMEOUT = "timeout"
    STOPPED = "stopped"
    """``bus.stop()`` was called."""
    SYSTEM_EVENT = "system event"
    """The guest called its firmware for something else; ``code`` is the hypervisor's number for it."""
    FAILED = "failed"
    """A vCPU cannot run on; ``message`` says why."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What ``serve()`` returns."""

    reason: Reason
    vcpu: int | None
    """The index of the vCPU that ended it; None if no vCPU did."""
    seconds: float
    exits: Mapping[str, int]
    """The number of exits of all vCPUs, by class name."""
    message: str = ""
    code: int | None = None
    """The number that came with the reason, if any: see :class:`Reason`."""

    def __str__(self) -> str:
        cause = "" if self.vcpu is None else f" by vCPU {self.vcpu}"
        message = f": {self.message}" if self.message else ""
        exits = sum(self.exits.values())
        code = "" if self.code is None else f" {self.code}"
        return f"{self.reason}{code}{cause} after {self.seconds:.3f} s and {exits} exits{message}"
