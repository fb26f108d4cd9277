"""Notices a guest in which no vCPU will ever run again, where the hypervisor does not tell of HLT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event, Thread
from time import monotonic
from typing import Final, Protocol

from vmm_arch.activity import Activity
from vmm_arch.errors import ClosedError

PERIOD: Final = 0.5
"""Seconds after which a guest that made no exit is looked at."""
_POLL: Final = 0.005
"""Seconds that vCPUs stand still at most because one of them turned out to be busy."""
_PATIENCE: Final = 1.0
"""Seconds that they stand still at most because one does not come out of the guest."""
_FOR_GOOD: Final = (Activity.HALTED_FOR_GOOD, Activity.NOT_STARTED)


class Vcpu(Protocol):
    def get_activity(self) -> Activity: ...
    def kick(self) -> None: ...


class Runner(Protocol):
    """A vCPU that a thread runs, as far as is needed here."""

    @property
    def vcpu(self) -> Vcpu: ...
    @property
    def in_guest(self) -> bool: ...
    @property
    def count(self) -> int: ...


class Standstill:
    """Looks at all vCPUs together, whenever none has made an exit for a while.

    Only together: while one is looked at, another one might send it an NMI, which wakes it. So all
    are kicked, and each stops in :meth:`pause` until all have been looked at. If one is not in the
    guest, or makes another exit, the guest is alive and none waits any longer.
    """

    def __init__(
        self,
        runners: Sequence[Runner],
        found: Callable[[], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        self._runners = runners
        self._found = found
        self._failed = failed
        self._over = Event()
        self._resume = Event()
        self._paused = {runner: Event() for runner in runners}
        self._kicked: set[Runner] = set()
        """Who is to pause at its next kick, though it may turn out to have been in vain."""
        self.thread = Thread(target=self._watch, name="standstill", daemon=True)

    def stop(self) -> None:
        """Look no more; the thread ends soon."""
        self._over.set()

    def pause(self, runner: Runner) -> bool:
        """Let a vCPU that was kicked be looked at; False if somebody else kicked it."""
        if runner not in self._kicked:
            return False
        self._kicked.discard(runner)
        self._paused[runner].set()
        self._resume.wait()
        return True

    def _watch(self) -> None:
        before: list[int] = []
        try:
            while not self._over.wait(PERIOD):
                counts = [runner.count for runner in self._runners]
                if counts == before and self._stands_still(counts):
                    self._found()
                    return
                before = counts
        except BaseException as error:
            self._failed(error)
        finally:
            self._resume.set()

    def _stands_still(self, counts: list[int]) -> bool:
        if not all(runner.in_guest for runner in self._runners):
            return False
        self._resume.clear()
        for event in self._paused.values():
            event.clear()
        end = monotonic() + _PATIENCE
        try:
            for runner in self._runners:
                self._kicked.add(runner)
                with suppress(ClosedError):  # which its own thread says
                    runner.vcpu.kick()
            for runner, count in zip(self._runners, counts, strict=True):
                while not self._paused[runner].wait(_POLL):
                    late = monotonic() > end
                    if late or runner.count != count or self._over.is_set():
                        return False
            return all(runner.vcpu.get_activity() in _FOR_GOOD for runner in self._runners)
        finally:
            self._resume.set()
