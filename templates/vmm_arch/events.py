"""Event descriptors (eventfd) that a hypervisor rings, or that raise an interrupt, without an exit."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

from vmm_arch.errors import unsupported
from vmm_arch.memory import Region


class AnyDoorbell(Protocol):
    """What a CPU's doorbells have: writes of the guest that ring."""

    @property
    def address(self) -> int | None:
        """Guest-physical; None if it is somewhere else."""

    def collides(self, other: Any, /) -> bool:
        """Whether some write would ring both."""

    def rings(self, exit: object, /) -> int:
        """How often an exit rings it."""


BellT = TypeVar("BellT", bound=AnyDoorbell)


class EventInUseError(ValueError):
    """A doorbell's place, or an interrupt line's descriptor, already has another event descriptor."""


def new_event() -> int:
    """A new event descriptor, which never blocks: reading one that has not rung is BlockingIOError."""
    if sys.platform != "linux":
        raise unsupported("doorbells", "event descriptors are Linux's: here each write is an exit")
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def ring(event: int, count: int = 1) -> None:
    """Add to the counter of an event descriptor."""
    if sys.platform == "linux":
        os.eventfd_write(event, count)


def check_free(doorbell: AnyDoorbell, taken: Iterable[AnyDoorbell]) -> None:
    """Raise EventInUseError if some write would ring one of the others, too."""
    for other in taken:
        if doorbell.collides(other):
            raise EventInUseError(
                f"doorbell at {doorbell}: there is one already, at {other}; remove that,"
                " or give each a value"
            )


class EventDescriptors(Generic[BellT]):
    """Those that a machine was given: duplicates, so that the caller can close his at any time."""

    def __init__(self) -> None:
        self._bells: dict[BellT, int] = {}
        self._lines: dict[tuple[int, int], tuple[int, int | None]] = {}
        """By the line and the number that the caller gave: the event, and that for the end of interrupt."""

    def add_doorbell(
        self,
        doorbell: BellT,
        event: int,
        regions: Iterable[Region],
        register: Callable[[BellT, int], object],
    ) -> None:
        """Check a doorbell, and have the hypervisor ring a duplicate of the descriptor."""
        check_free(doorbell, self._bells)
        for region in regions:
            address = doorbell.address
            if address is not None and region.address <= address < region.end:
                raise ValueError(f"doorbell at {doorbell}: guest memory is there; move it")
        kept = os.dup(event)
        try:
            register(doorbell, kept)
        except BaseException:
            os.close(kept)
            raise
        self._bells[doorbell] = kept

    def remove_doorbell(self, doorbell: BellT, unregister: Callable[[BellT, int], object]) -> None:
        """Take a doorbell back; KeyError if it is not there."""
        if doorbell not in self._bells:
            raise KeyError(f"there is no doorbell at {doorbell}")
        unregister(doorbell, self._bells[doorbell])
        os.close(self._bells.pop(doorbell))

    def add_line(
        self,
        event: int,
        line: int,
        resample: int | None,
        register: Callable[[int, int, int | None], object],
    ) -> None:
        """Have the hypervisor raise a line whenever a duplicate of the descriptor is written."""
        key = line, event
        if key in self._lines:
            raise EventInUseError(f"interrupt line {line}: it has this event already; remove it")
        kept = os.dup(event)
        again = None
        try:
            again = None if resample is None else os.dup(resample)
            register(kept, line, again)
        except BaseException:
            _close(kept, again)
            raise
        self._lines[key] = kept, again

    def remove_line(self, event: int, line: int, unregister: Callable[[int, int], object]) -> None:
        """Take a line's descriptor back; KeyError if it has no such one."""
        key = line, event
        if key not in self._lines:
            raise KeyError(f"interrupt line {line} does not have this event")
        kept, again = self._lines[key]
        unregister(kept, line)
        del self._lines[key]
        _close(kept, again)

    def close(self) -> None:
        """Close the duplicates; for the machine, which ends with them."""
        for kept in self._bells.values():
            _close(kept, None)
        for descriptors in self._lines.values():
            _close(*descriptors)
        self._bells.clear()
        self._lines.clear()


def _close(event: int, other: int | None) -> None:
    for descriptor in (event, other):
        if descriptor is not None:
            os.close(descriptor)
