"""Ends a scenario that exceeds its time limit."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

from vmm_arch.errors import ClosedError, HypervisorUnavailableError

PERIOD = 0.05
"""Seconds between two kicks: the first may come while a vCPU is between two runs."""


class Kickable(Protocol):
    """What the watchdog needs of a vCPU."""

    def kick(self) -> None: ...


class Watchdog:
    """Kicks vCPUs out of the guest again and again, after the time limit or once :meth:`end` is called.

    Whoever runs a vCPU checks ``verdict`` after each exit and gives up if there is one.
    """

    def __init__(self, vcpus: Sequence[Kickable], seconds: float) -> None:
        self.verdict: str | None = None
        """Why the scenario has to end; empty while it need not."""
        self._vcpus = vcpus
        self._seconds = seconds
        self._called = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def end(self, why: str) -> None:
        """End the scenario now. The first reason given is the verdict."""
        self.verdict = self.verdict or why
        self._called.set()

    def _watch(self) -> None:
        if not self._called.wait(self._seconds):
            self.verdict = f"the scenario did not end within {self._seconds:g} s"
        while not self._over.wait(PERIOD):
            for vcpu in self._vcpus:
                try:
                    vcpu.kick()
                except ClosedError:  # by the scenario, which has gone on with another machine
                    return
                except HypervisorUnavailableError as error:
                    self.verdict = f"{self.verdict}; it cannot be ended: {error}"
                    return

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._called.set()
        self._thread.join()  # so that no closed vCPU is kicked
