"""Detects a guest in which every vCPU has halted for good, where a halt is not an exit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event, Thread
from time import monotonic
from typing import Final, Protocol

from vmm_arch import pause
from vmm_arch.activity import Activity

PERIOD: Final = 0.5
"""Seconds without an exit after which the vCPUs are checked."""
_POLL: Final = 0.005
"""Seconds between two checks whether a vCPU is alive; the others are paused for that long."""
_PATIENCE: Final = 1.0
"""Seconds that vCPUs are paused at most while one does not leave the guest."""
_FOR_GOOD: Final = (Activity.HALTED_FOR_GOOD, Activity.NOT_STARTED)


class Vcpu(pause.Vcpu, Protocol):
    def get_activity(self) -> Activity: ...


class Runner(pause.Runner, Protocol):
    """A vCPU and its thread: what is needed here."""

    @property
    def vcpu(self) -> Vcpu: ...
    @property
    def count(self) -> int: ...


class Standstill:
    """Checks all vCPUs together whenever none has made an exit for a while.

    Together, because while one is checked another one might send it an NMI, which wakes it. If one
    is not in the guest, or makes another exit, the guest is alive and the others resume at once.
    """

    def __init__(
        self,
        runners: Sequence[Runner],
        pause: pause.Pause,
        found: Callable[[], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        self._runners = runners
        self._pause = pause
        self._found = found
        self._failed = failed
        self._over = Event()
        self.thread = Thread(target=self._watch, name="standstill", daemon=True)

    def stop(self) -> None:
        """Stop checking; the thread ends soon."""
        self._over.set()

    def _watch(self) -> None:
        before: list[int] = []
        try:
            while not self._over.wait(PERIOD):
                counts = [runner.count for runner in self._runners]
                if counts == before and all(runner.in_guest for runner in self._runners):
                    self._check(counts)
                before = counts
        except BaseException as error:
            self._failed(error)

    def _check(self, counts: list[int]) -> None:
        checked = Event()

        def check() -> None:
            try:
                if all(runner.vcpu.get_activity() in _FOR_GOOD for runner in self._runners):
                    self._found()
            except BaseException as error:
                self._failed(error)
            finally:
                checked.set()

        end = monotonic() + _PATIENCE
        self._pause.request(check)
        while not checked.wait(_POLL):
            alive = [runner.count for runner in self._runners] != counts
            if alive or monotonic() > end or self._over.is_set():
                self._pause.cancel(check)
                return
