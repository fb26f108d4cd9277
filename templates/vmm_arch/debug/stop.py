"""Why a guest stopped, as a debugger is told, and how it is to go on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from vmm_arch.debug.points import Kind, Point


class Signal(IntEnum):
    """gdb's numbers."""

    INT = 2
    TRAP = 5
    ABRT = 6
    SEGV = 11


_WATCHPOINTS: Final = {Kind.WRITE: "watch", Kind.READ: "rwatch", Kind.ACCESS: "awatch"}


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a vCPU stopped, and the others with it."""

    index: int
    signal: Signal
    point: Point | None = None
    """The watchpoint that it reached."""
    software: bool | None = None
    """If it reached a breakpoint, whether that is one in memory."""

    @property
    def happens_again(self) -> bool:
        """Whether it would stop for the same reason if it went on."""
        return self.software is not None

    def reply(self, names: bool) -> bytes:
        """The packet about it; ``names`` if the client knows the names of breakpoints' kinds."""
        text = f"T{self.signal:02x}thread:{self.index + 1:x};"
        if self.point is not None:
            text += f"{_WATCHPOINTS[self.point.kind]}:{self.point.address:x};"
        elif names and self.software is not None:
            text += "swbreak:;" if self.software else "hwbreak:;"
        return text.encode()


@dataclass(frozen=True, slots=True)
class Resume:
    """How the guest goes on: which vCPUs run, and which of them by one instruction only."""

    running: frozenset[int]
    stepping: frozenset[int]


@dataclass(frozen=True, slots=True)
class Detach:
    """The client leaves, and the guest goes on without it."""


@dataclass(frozen=True, slots=True)
class Kill:
    """The guest is to end."""

    answer: bool
    """Whether the client waits for an answer."""
