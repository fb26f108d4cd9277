"""What differs between two snapshots, beside their states: memory, devices, how they were made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from vmm_arch.memory import PAGE_SIZE, Region
from vmm_arch.snapshot.image import Extent, Layer

Change: TypeAlias = tuple[str, Any, Any]
"""The name of a value, and what it is in each of two; None where one does not have it."""


def changes(mine: Any, theirs: Any, name: str) -> Iterator[Change]:
    """Where values that JSON has differ, each with the way to it."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in dict.fromkeys((*mine, *theirs)):
            yield from changes(mine.get(key), theirs.get(key), f"{name}.{key}")
    elif isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        for index, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            yield from changes(one, other, f"{name}[{index}]")
    elif type(mine) is not type(theirs) or mine != theirs:
        yield name, mine, theirs


def changed_pages(mine: Layer, theirs: Layer, regions: Iterable[Region]) -> Iterator[Extent]:
    """Where two whole memories with the same regions differ.

    Yields guest-physical addresses of pages, in runs: the first, and the one after the last.
    """
    runs: list[Extent] = []
    for start, end in _union(mine.extents, theirs.extents):
        pairs = zip(mine.pieces([(start, end)]), theirs.pieces([(start, end)]), strict=True)
        for (at, one), (_, other) in pairs:
            if one == other:
                continue
            for page in range(0, len(one), PAGE_SIZE):
                if one[page : page + PAGE_SIZE] != other[page : page + PAGE_SIZE]:
                    runs.append((at + page, at + page + PAGE_SIZE))
    yield from _union(_addresses(runs, regions), [])


def _addresses(pages: Iterable[Extent], regions: Iterable[Region]) -> Iterator[Extent]:
    offset = 0
    given = iter(pages)
    page = next(given, None)
    for region in regions:
        while page is not None and page[0] < offset + region.size:
            address = region.address + page[0] - offset
            yield address, address + PAGE_SIZE
            page = next(given, None)
        offset += region.size


def _union(some: Iterable[Extent], more: Iterable[Extent]) -> Iterator[Extent]:
    """Extents as few as possible, ascending."""
    run: Extent | None = None
    for start, end in sorted([*some, *more]):
        if run is not None and start <= run[1]:
            run = run[0], max(run[1], end)
            continue
        if run is not None:
            yield run
        run = start, end
    if run is not None:
        yield run
