"""Breakpoints of the processor's own, for the VMM that debugs a guest."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class On(StrEnum):
    """What a hardware breakpoint stops."""

    EXECUTE = "execute"
    WRITE = "write"
    ACCESS = "access"
    """Reads and writes, but not the fetch of instructions."""


@dataclass(frozen=True, slots=True)
class HardwareBreakpoint:
    """A breakpoint of the processor's own, at a guest-virtual address (on x86_64 a linear one).

    ``length`` is in bytes: 1, 2, 4 or 8, and 1 for execution. The address is a multiple of it.
    Raises ValueError.
    """

    address: int
    on: On = On.EXECUTE
    length: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "on", On(self.on))
        if self.length not in (1, 2, 4, 8):
            raise ValueError(f"length={self.length}: it is 1, 2, 4 or 8 bytes")
        if self.on is On.EXECUTE and self.length != 1:
            raise ValueError(f"length={self.length}: for execution it is 1")
        if not 0 <= self.address < 1 << 64:
            raise ValueError(f"address={self.address:#x} is not an unsigned 64-bit value")
        if self.address % self.length:
            raise ValueError(f"address={self.address:#x} is not a multiple of {self.length}")

    def __str__(self) -> str:
        return f"{self.on} of {self.length} at {self.address:#x}"
