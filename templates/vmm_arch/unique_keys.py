"""JSON objects in which each key may stand once: with duplicates, readers would differ."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def without_duplicates(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs, for ``object_pairs_hook``. Raises ValueError."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"duplicate key {key!r}")
        found[key] = value
    return found
