"""WHP's counters: records of unsigned 64-bit numbers, some of them in records of their own."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Final

from vmm_arch.statistic import Statistic, StatisticKind, StatisticUnit

_TIME: Final = "100ns"
"""The end of the names of times, which says their unit."""


def counted(
    record: ctypes.Structure, kind: StatisticKind = StatisticKind.CUMULATIVE, prefix: str = ""
) -> Iterator[tuple[str, Statistic]]:
    """Yield the counters of a record by the header's names: ``HaltInstructions.Count``."""
    for name, *_ in type(record)._fields_:
        value = getattr(record, name)
        if isinstance(value, ctypes.Structure):
            yield from counted(value, kind, f"{prefix}{name}.")
        elif name.endswith(_TIME):
            yield prefix + name, Statistic((value,), kind, StatisticUnit.SECONDS, exponent=-7)
        else:
            yield prefix + name, Statistic((value,), kind)
