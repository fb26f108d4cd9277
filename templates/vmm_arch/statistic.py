"""What a hypervisor counts of a machine and of its vCPUs: values with units, and histograms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum


class StatisticKind(StrEnum):
    """How a value changes."""

    CUMULATIVE = "cumulative"
    INSTANT = "instant"
    """It can become smaller again."""
    PEAK = "peak"
    LINEAR_HISTOGRAM = "linear histogram"
    LOGARITHMIC_HISTOGRAM = "logarithmic histogram"
    OTHER = "other"
    """A kind that is newer than this package."""


class StatisticUnit(StrEnum):
    """What a value counts."""

    NONE = ""
    BYTES = "bytes"
    SECONDS = "s"
    CYCLES = "cycles"
    BOOLEAN = "boolean"
    OTHER = "?"
    """A unit that is newer than this package."""


_HISTOGRAMS = (StatisticKind.LINEAR_HISTOGRAM, StatisticKind.LOGARITHMIC_HISTOGRAM)


@dataclass(frozen=True, slots=True)
class Statistic:
    """A value, or a histogram, as the hypervisor reports it.

    ``values`` are unsigned 64-bit integers, one if it is no histogram. ``base ** exponent`` scales
    them to ``unit``: nanoseconds are seconds with 10 and -9.
    """

    values: tuple[int, ...]
    kind: StatisticKind = StatisticKind.CUMULATIVE
    unit: StatisticUnit = StatisticUnit.NONE
    base: int = 10
    exponent: int = 0
    bucket_size: int = 0
    """Of a linear histogram, in the values' own scale."""

    @property
    def value(self) -> int | float:
        """The value in its unit; of a histogram, how many samples it has."""
        if self.kind in _HISTOGRAMS:
            return sum(self.values)
        return self._scaled(self.values[0])

    def buckets(self) -> Iterator[tuple[int | float, int | float | None, int]]:
        """Yield the buckets of a histogram: from, below (the last one has no end), samples.

        Raises ValueError if it is none.
        """
        if self.kind not in _HISTOGRAMS:
            raise ValueError(f"a {self.kind} statistic has no buckets, only its value")
        last = len(self.values) - 1
        for number, samples in enumerate(self.values):
            end = None if number == last else self._scaled(self._start(number + 1))
            yield self._scaled(self._start(number)), end, samples

    def since(self, earlier: Statistic) -> Statistic:
        """What was added after an earlier reading; what does not only grow stays as it is."""
        if self.kind in (StatisticKind.CUMULATIVE, *_HISTOGRAMS):
            pairs = zip(self.values, earlier.values, strict=True)
            return replace(self, values=tuple((now - before) % (1 << 64) for now, before in pairs))
        return self

    def __str__(self) -> str:
        if self.kind in _HISTOGRAMS:
            return f"{self.value:,}{self._median()}"
        if self.unit is StatisticUnit.BOOLEAN:
            return "yes" if self.values[0] else "no"
        number = f"{self.value:,}" if isinstance(self.value, int) else f"{self.value:.6g}"
        return f"{number} {self.unit}".rstrip()

    def _median(self) -> str:
        seen = 0
        for _, end, samples in self.buckets():
            seen += samples
            if samples and 2 * seen >= self.value and end is not None:
                return f" (half of them below {end:.3g} {self.unit})".replace(" )", ")")
        return ""

    def _start(self, number: int) -> int:
        """Where a bucket begins: the first one at 0."""
        if self.kind is StatisticKind.LINEAR_HISTOGRAM:
            return number * self.bucket_size
        return 1 << number >> 1

    def _scaled(self, value: int) -> int | float:
        scale: int = self.base ** abs(self.exponent)
        return value * scale if self.exponent >= 0 else value / scale


def changed_statistics(
    before: Mapping[str, Statistic], after: Mapping[str, Statistic]
) -> dict[str, Statistic]:
    """What changed between two readings: what was added, or the new value if it does not only grow."""
    return {
        name: now.since(before[name]) if name in before else now
        for name, now in after.items()
        if name not in before or now.values != before[name].values
    }
