"""Debug registers (Intel SDM volume 3, 19.2): what they say, and what they report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from vmm_arch.breakpoint import HardwareBreakpoint, On

BREAKPOINT_VECTOR: Final = 3
"""#BP, which INT3 raises."""
MOST: Final = 4
"""Breakpoints at a time."""
DR6_SINGLE_STEP: Final = 1 << 14
_DR7_FIXED: Final = 1 << 10
_DR7_ENABLE: Final = 0b10
_KINDS: Final = {On.EXECUTE: 0b00, On.WRITE: 0b01, On.ACCESS: 0b11}
_LENGTHS: Final = {1: 0b00, 2: 0b01, 4: 0b11, 8: 0b10}


def debug_control(breakpoints: Sequence[HardwareBreakpoint]) -> int:
    """The value of DR7 with which DR0 and on are these breakpoints. Raises ValueError."""
    if len(breakpoints) > MOST:
        raise ValueError(f"{len(breakpoints)} hardware breakpoints: there are {MOST}")
    value = _DR7_FIXED * bool(breakpoints)
    for index, one in enumerate(breakpoints):
        value |= _DR7_ENABLE << 2 * index
        value |= (_KINDS[one.on] | _LENGTHS[one.length] << 2) << 16 + 4 * index
    return value


def reached(breakpoints: Sequence[HardwareBreakpoint], status: int) -> HardwareBreakpoint | None:
    """The breakpoint that DR6 reports, the first if there are several; None if it reports none."""
    return next((one for index, one in enumerate(breakpoints) if status >> index & 1), None)
