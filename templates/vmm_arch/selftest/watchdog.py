"""Ends a scenario that does not end by itself."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

PERIOD = 0.05
"""Seconds between two kicks: the first may meet a vCPU that is just between two runs."""


class Kickable(Protocol):
    """What the watchdog needs of a vCPU."""

    def kick(self) -> None: ...


class Watchdog:
    """After so many seconds, or once it is told to, kicks vCPUs out of the guest again and again.

    Whoever runs a vCPU looks at ``verdict`` after each exit and gives up if there is one.
    """

    def __init__(self, vcpus: Sequence[Kickable], seconds: float) -> None:
        self.verdict: str | None = None
        """Why the scenario has to end."""
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
                vcpu.kick()

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
        self._thread.join()  # no kick reaches a vCPU that is closed
