"""What a vCPU would do if it were run."""

from __future__ import annotations

from enum import StrEnum


class Activity(StrEnum):
    """What a vCPU does if it is run."""

    RUNNING = "executes instructions"
    HALTED = "halted, until an interrupt comes"
    HALTED_FOR_GOOD = "halted with interrupts off: nothing can wake it"
    NOT_STARTED = "waits until another vCPU starts it"
