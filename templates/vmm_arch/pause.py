"""A point at which no vCPU of a machine runs, each of its instructions is complete, and it can go on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence, Sized
from contextlib import suppress
from threading import Condition
from typing import Protocol, TypeAlias

from vmm_arch.errors import ClosedError

Call: TypeAlias = Callable[[], object]


class Vcpu(Protocol):
    def kick(self) -> None: ...


class Runner(Protocol):
    """A vCPU and its thread: what is needed here."""

    @property
    def vcpu(self) -> Vcpu: ...
    @property
    def in_guest(self) -> bool: ...

    asked: bool
    """Whether it was kicked to pause."""


class Pause:
    """Has functions called while all vCPUs of a machine are stopped, and lets these run on.

    Whoever appends a function to ``calls`` then calls :meth:`kick`; neither takes a lock, since a
    signal handler may do it. A runner first says that it is ``in_guest`` and then looks at
    ``calls``, so that one of the two notices the other; if there is one it kicks itself. So its
    vCPU completes the instruction that made the last exit, whatever else that accesses, and then
    reports the kick: the runner comes to :meth:`wait`, and the last one there makes the calls.
    """

    def __init__(self, runners: Sequence[Runner], calls: deque[Call], ends: Sized) -> None:
        """``ends`` has something in it once the guest has ended: then no call is made any more."""
        self._runners = runners
        self._ends = ends
        self.calls = calls
        self._changed = Condition()
        """Held during the calls, too: so no runner can leave meanwhile."""
        self._out = 0
        """How many runners wait."""
        self._left: set[Runner] = set()
        self._rounds = 0

    def request(self, call: Call) -> None:
        """Have a function called once all vCPUs are stopped."""
        self.calls.append(call)
        self.kick()

    def cancel(self, call: Call) -> None:
        """Not have it called if it has not been yet; if it is being called wait for that."""
        with self._changed:
            with suppress(ValueError):
                self.calls.remove(call)
            self._changed.notify_all()

    def kick(self) -> None:
        """Make all vCPUs leave the guest."""
        for runner in self._runners:
            if runner.in_guest:
                runner.asked = True
                with suppress(ClosedError):  # its own thread reports that
                    runner.vcpu.kick()

    def wait(self, runner: Runner) -> None:
        """Wait, after a kick, until the calls have been made; make them if all others wait."""
        runner.asked = False
        with self._changed:
            self._out += 1
            try:
                rounds = self._rounds
                if not self._make_calls():
                    while self.calls and rounds == self._rounds:
                        self._changed.wait()
            finally:
                self._out -= 1

    def leave(self, runner: Runner) -> None:
        """Note that a runner never runs again; the others need not wait for it."""
        with self._changed:
            self._left.add(runner)
            if self._out:
                self._make_calls()

    def _make_calls(self) -> bool:
        """Make the calls, unless a vCPU is not stopped yet."""
        if self._out + len(self._left) < len(self._runners):
            return False
        try:
            while self.calls and not self._ends:
                self.calls.popleft()()
        finally:
            self._rounds += 1
            self._changed.notify_all()
        return True
