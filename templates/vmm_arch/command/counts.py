"""``vmm-arch run --stats``: what the hypervisor counted, and how the guest is doing meanwhile."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from threading import Event, Thread
from typing import Any, Final

from vmm_arch.command.report import History
from vmm_arch.errors import HypervisorError
from vmm_arch.statistic import Statistic, changed_statistics

SECONDS: Final = 1.0
"""Between two changes of the terminal's title."""
_TITLE: Final = "\x1b]2;{}\x07"
"""Setting a terminal's title leaves its screen as it is, which is the guest's (xterm, OSC 2)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument(
        "--stats",
        action="store_true",
        help="print what the hypervisor counted of the guest (exits, time, pages) at the end; on a"
        " terminal its title shows time, exits and CPU time meanwhile",
    )


class Counts:
    """What the hypervisor has counted of a machine since this was made."""

    def __init__(self, vm: Any) -> None:
        self._vm = vm
        self._before = self._read()

    def _read(self) -> list[dict[str, Statistic]]:
        """The machine's, then each vCPU's."""
        return [self._vm.statistics(), *(vcpu.statistics() for vcpu in self._vm.vcpus)]

    def lines(self) -> Iterator[str]:
        """One for each statistic that changed: its name, and the machine's or each vCPU's value."""
        machine, *vcpus = map(changed_statistics, self._before, self._read())
        numbers = range(len(vcpus))
        yield "what the hypervisor counted, vCPU by vCPU:"
        names = dict.fromkeys(name for vcpu in vcpus for name in vcpu)
        texts = [[str(vcpus[n].get(name, "")) for n in numbers] for name in names]
        yield from _columns(names, texts)
        yield "of the whole machine:"
        yield from _columns(machine, [[str(value)] for value in machine.values()])


def _columns(names: Any, rows: Sequence[Sequence[str]]) -> Iterator[str]:
    width = max(map(len, names), default=0)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, row in zip(names, rows, strict=True):
        cells = (f"{text:>{size}}" for text, size in zip(row, widths, strict=True))
        yield f"  {name:<{width}}  {'  '.join(cells)}".rstrip()


def count(options: argparse.Namespace, vm: Any, say: Callable[[str], object]) -> Counts | None:
    """Begin to count, if that is wanted; what prevents it is said."""
    if not options.stats:
        return None
    try:
        return Counts(vm)
    except (HypervisorError, OSError) as error:
        say(f"vmm-arch: no statistics: {error}")
        return None


class Title:
    """Shows in a terminal's title how a guest is doing; a context manager."""

    def __init__(self, history: History, write: Callable[[bytes], object] | None) -> None:
        """``write`` writes to the terminal; None if there is none."""
        self._history = history
        self._write = write
        self._ended = Event()
        self._thread = Thread(target=self._show, name="title", daemon=True)

    def __enter__(self) -> Title:
        if self._write is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._write is not None:
            self._thread.join()
            self._write(_TITLE.format("").encode())

    def _show(self) -> None:
        assert self._write is not None
        began = before = time.monotonic()
        exits, cpu = self._history.count, _cpu_time()
        while not self._ended.wait(SECONDS):
            now, exits_now, cpu_now = time.monotonic(), self._history.count, _cpu_time()
            passed = now - before
            text = (
                f"vmm-arch: {now - began:.0f} s, {(exits_now - exits) / passed:,.0f} exits/s,"
                f" {(cpu_now - cpu) / passed:.0%} CPU"
            )
            self._write(_TITLE.format(text).encode())
            before, exits, cpu = now, exits_now, cpu_now


def _cpu_time() -> float:
    """Seconds of all threads, in the guest and in the kernel."""
    times = os.times()
    return times.user + times.system
