"""One call for each target, on all processors."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")


def in_parallel(calls: Mapping[str, Callable[[], T]]) -> Iterator[tuple[str, Callable[[], T]]]:
    """Make calls that can be pickled, and yield them as they end.

    What is yielded with a call's name gives its result, or raises what the call raised.
    """
    workers = min(len(calls), os.cpu_count() or 1)
    if workers < 2:
        yield from calls.items()
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed

    # Ctrl-C reaches the whole process group; one process, this one, is to answer it.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(workers, initializer=signal.signal, initargs=ignore) as pool:
        names = {pool.submit(call): name for name, call in calls.items()}
        for future in as_completed(names):
            yield names[future], future.result
