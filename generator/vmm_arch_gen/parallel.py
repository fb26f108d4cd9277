"""One call for each target, on several processors."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

from vmm_arch_gen.diagnostics import FAILED, InputError, Problem
from vmm_arch_gen.signals import ENDING_SIGNALS, answered_by, held

T = TypeVar("T")


def in_parallel(
    calls: Mapping[str, Callable[[], T]], most: int | None = None
) -> Iterator[tuple[str, Callable[[], T]]]:
    """Make calls that can be pickled, in at most so many processes, and yield them as they end.

    What is yielded with a call's name gives its result, or raises what the call raised. The calls
    must change nothing but temporary files: an interrupt ends this process and those that it
    started, at once, and removes their temporary files.
    """
    workers = min(len(calls), os.cpu_count() or 1, most or len(calls))
    if workers < 2:
        yield from calls.items()
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    with (
        tempfile.TemporaryDirectory(prefix="vmm-arch-") as folder,
        _exit_on_interrupt(folder),
        ProcessPoolExecutor(workers, initializer=_begin, initargs=(folder,)) as pool,
    ):
        with held():  # what starts a process must be able to note that it did
            names = {pool.submit(call): name for name, call in calls.items()}
        for future in as_completed(names):
            if isinstance(future.exception(), BrokenProcessPool):
                what = "the process that worked on it was killed, perhaps for lack of memory"
                raise InputError(Problem(names[future], what, "run it again"))
            yield names[future], future.result


def _begin(folder: str) -> None:
    """In a worker: be a process group, with the compilers that it starts, and leave signals."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C no longer reaches it; the first process answers
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
    tempfile.tempdir = folder


@contextmanager
def _exit_on_interrupt(folder: str) -> Iterator[None]:
    """End everything on an interrupt. To raise an exception could find the pool's locks held."""
    parent = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == parent:  # and not a worker that has not yet begun
            import multiprocessing

            for worker in multiprocessing.active_children():
                if worker.pid is not None and hasattr(os, "killpg"):
                    with suppress(ProcessLookupError):  # it is not yet a group
                        os.killpg(worker.pid, signal.SIGKILL)
                worker.kill()
            shutil.rmtree(folder, ignore_errors=True)
            os.write(2, b"error: vmm-arch-gen: interrupted; nothing was written; run it again\n")
        os._exit(FAILED)

    with answered_by(stop):
        yield
