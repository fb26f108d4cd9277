"""One call for each target, on all processors."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

INTERRUPTED = 2
"""The exit status of a process that was interrupted while it waited for others."""


def in_parallel(calls: Mapping[str, Callable[[], T]]) -> Iterator[tuple[str, Callable[[], T]]]:
    """Make calls that can be pickled, and yield them as they end.

    What is yielded with a call's name gives its result, or raises what the call raised. The calls
    must change nothing: an interrupt ends this process and those that it started, at once.
    """
    workers = min(len(calls), os.cpu_count() or 1)
    if workers < 2:
        yield from calls.items()
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed

    with _exit_on_interrupt(), ProcessPoolExecutor(workers, initializer=_leave_signals) as pool:
        names = {pool.submit(call): name for name, call in calls.items()}
        for future in as_completed(names):
            yield names[future], future.result


def _leave_signals() -> None:
    """In a worker: Ctrl-C reaches the whole process group, and the first process answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _exit_on_interrupt() -> Iterator[None]:
    """End everything on an interrupt. To raise an exception could find the pool's locks held."""
    parent = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == parent:  # and not a worker that has not yet set its own handlers
            import multiprocessing

            for worker in multiprocessing.active_children():
                worker.kill()
            os.write(2, b"error: vmm-arch-gen: interrupted; nothing was written; run it again\n")
        os._exit(INTERRUPTED)

    previous = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
