"""Takes and prints figures: each is measured in turn with what it is compared with."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping


def alternate(runs: int, contestants: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Run the contestants in turn, so that the machine's moods hit them alike."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(runs):
        for name, contest in contestants.items():
            times[name].append(contest())
    return times


def report(what: str, times: list[float], promise: str, unit: float = 1.0, name: str = "s") -> None:
    middle, least = statistics.median(times) / unit, min(times) / unit
    print(f"{what:52} {middle:8.2f} {least:8.2f} {name:3} promised: {promise}")


def ratio(what: str, ours: list[float], theirs: list[float], promise: str) -> None:
    middle = statistics.median(ours) / statistics.median(theirs)
    print(f"{what:52} {middle:8.2f} {min(ours) / min(theirs):8.2f} x   promised: {promise}")


def difference(what: str, ours: list[float], theirs: list[float], promise: str) -> None:
    """Print how much longer ours take, of nanoseconds, in microseconds."""
    figures = [statistic(ours) - statistic(theirs) for statistic in (statistics.median, min)]
    print(f"{what:52} {figures[0] / 1e3:8.2f} {figures[1] / 1e3:8.2f} us  promised: {promise}")
