"""Detects a guest in which every vCPU has halted for good, where a halt is not an exit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event, Thread
from time import monotonic
from typing import Final, Protocol

from vmm_arch.activity import Activity
from vmm_arch.errors import ClosedError

PERIOD: Final = 0.5
"""Seconds without an exit after which the vCPUs are checked."""
_POLL: Final = 0.005
"""Seconds between two checks whether a vCPU is alive; the others are paused for that long."""
_PATIENCE: Final = 1.0
"""Seconds that vCPUs are paused at most while one does not leave the guest."""
_FOR_GOOD: Final = (Activity.HALTED_FOR_GOOD, Activity.NOT_STARTED)


class Vcpu(Protocol):
    def get_activity(self) -> Activity: ...
    def kick(self) -> None: ...


class Runner(Protocol):
    """A vCPU and its thread: what is needed here."""

    @property
    def vcpu(self) -> Vcpu: ...
    @property
    def in_guest(self) -> bool: ...
    @property
    def count(self) -> int: ...


class Standstill:
    """Checks all vCPUs together whenever none has made an exit for a while.

    Together, because while one is checked another one might send it an NMI, which wakes it. So all
    are kicked, and each waits in :meth:`pause` until all have been checked. If one is not in the
    guest, or makes another exit, the guest is alive and the others resume at once.
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
        """The runners that are to pause at their next Kicked, even if the check is over by then."""
        self.thread = Thread(target=self._watch, name="standstill", daemon=True)

    def stop(self) -> None:
        """Stop checking; the thread ends soon."""
        self._over.set()

    def pause(self, runner: Runner) -> bool:
        """Pause a vCPU that this kicked until it has been checked; False if others kicked it."""
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
                if counts == before and self._all_halted(counts):
                    self._found()
                    return
                before = counts
        except BaseException as error:
            self._failed(error)
        finally:
            self._resume.set()

    def _all_halted(self, counts: list[int]) -> bool:
        if not all(runner.in_guest for runner in self._runners):
            return False
        self._resume.clear()
        for event in self._paused.values():
            event.clear()
        end = monotonic() + _PATIENCE
        try:
            for runner in self._runners:
                self._kicked.add(runner)
                with suppress(ClosedError):  # its own thread reports that
                    runner.vcpu.kick()
            for runner, count in zip(self._runners, counts, strict=True):
                while not self._paused[runner].wait(_POLL):
                    late = monotonic() > end
                    if late or runner.count != count or self._over.is_set():
                        return False
            return all(runner.vcpu.get_activity() in _FOR_GOOD for runner in self._runners)
        finally:
            self._resume.set()
