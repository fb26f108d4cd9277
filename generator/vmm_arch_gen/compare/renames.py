"""Which removed names continue under which new ones."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping
from functools import cache

ALIKE = 0.65
"""How alike, of 1, the names of one thing are: ``KVM_CAP_ONE`` and ``KVM_CAP_TWO`` are 0.67."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def renames(
    gone: Mapping[str, Hashable], fresh: Mapping[str, Hashable], *, alike: float
) -> dict[str, str]:
    """Pair removed names with new ones for what is the same except for its name.

    The values are what has to be the same. ``alike`` is how alike two names have to be, from 0
    where sameness alone is proof enough, to 1. The most alike are paired first.
    """
    by_value: dict[Hashable, list[str]] = {}
    for name, value in fresh.items():
        by_value.setdefault(value, []).append(name)
    candidates = sorted(
        (-likeness, old, new)
        for old, value in gone.items()
        for new in by_value.get(value, ())
        if (likeness := _likeness(old, new)) >= alike
    )
    pairs: dict[str, str] = {}
    taken: set[str] = set()
    for _, old, new in candidates:
        if old not in pairs and new not in taken:
            pairs[old] = new
            taken.add(new)
    return pairs


def _likeness(old: str, new: str) -> float:
    """How many of their words two names share."""
    ours, theirs = _words(old), _words(new)
    return 2 * (ours & theirs).total() / max(1, ours.total() + theirs.total())


@cache
def _words(name: str) -> Counter[str]:
    return Counter(word.lower() for word in _WORD.findall(name))
