"""Ranges of guest-physical addresses: finds RAM, and room in it.

All addresses are guest-physical, all sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vmm_arch.memory import PAGE_SIZE, GuestMemory


@dataclass(frozen=True, slots=True)
class Segment:
    """Part of an image that is loaded to an address, and zero-filled up to `size`."""

    address: int
    offset: int
    file_size: int
    size: int

    @property
    def end(self) -> int:
        return self.address + self.size


def runs_of(memory: GuestMemory, *, writable: bool) -> list[range]:
    """The ranges of contiguous memory in ascending order: all of it, or only writable RAM."""
    runs: list[range] = []
    for region in memory.regions:
        if writable and region.read_only:
            continue
        if runs and runs[-1].stop == region.address:
            runs[-1] = range(runs[-1].start, region.end)
        else:
            runs.append(range(region.address, region.end))
    return runs


def holds(runs: Iterable[range], wanted: range) -> bool:
    """Whether one of the runs contains all of the addresses."""
    return any(run.start <= wanted.start and wanted.stop <= run.stop for run in runs)


def clipped(runs: Iterable[range], start: int, stop: int) -> list[range]:
    """The intersections of the runs with [start, stop)."""
    parts = (range(max(run.start, start), min(run.stop, stop)) for run in runs)
    return [part for part in parts if part.start < part.stop]


def without(runs: Sequence[range], taken: range) -> list[range]:
    """The parts of the runs that are outside an interval."""
    end = runs[-1].stop if runs else 0
    return sorted(
        [*clipped(runs, 0, taken.start), *clipped(runs, taken.stop, end)],
        key=lambda part: part.start,
    )


def lowest(runs: Iterable[range], size: int, start: int, alignment: int) -> int | None:
    """The lowest multiple of `alignment` from `start` on where `size` bytes fit."""
    for run in runs:
        address = aligned(max(run.start, start), alignment)
        if address + size <= run.stop:
            return address
    return None


def highest(runs: Sequence[range], size: int) -> int | None:
    """The highest page-aligned address where `size` bytes, rounded up to whole pages, fit."""
    for run in reversed(runs):
        address = run.stop // PAGE_SIZE * PAGE_SIZE - aligned(size, PAGE_SIZE)
        if address >= aligned(run.start, PAGE_SIZE):
            return address
    return None


def aligned(value: int, alignment: int) -> int:
    """A value rounded up to a multiple of an alignment."""
    return -(-value // alignment) * alignment


def listing(runs: Iterable[range]) -> str:
    return ", ".join(f"[{run.start:#x}, {run.stop:#x})" for run in runs) or "nowhere"
