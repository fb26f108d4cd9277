"""The table of targets, as text and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from textwrap import wrap

from vmm_arch_gen.targets import Target, TargetTable

_WIDTH = 80

Line = tuple[str, str | None]
"""A line, and its colour."""


def families(table: TargetTable) -> Iterator[tuple[str, list[Target]]]:
    """Each family and its targets, in the table's order."""
    for name, targets in groupby(table.targets.values(), key=lambda target: target.family):
        yield name, list(targets)


def as_text(table: TargetTable) -> Iterator[Line]:
    for number, (name, targets) in enumerate(families(table)):
        if number:
            yield "", None
        yield f"{name}: {targets[0].about or targets[0].system}", "bold"
        names = ", ".join(t.name + " (backend)" * t.backend for t in targets)
        yield from ((line, None) for line in _indented(names))
        headers = dict.fromkeys(header for target in targets for header in target.headers)
        yield from ((line, None) for line in _indented(", ".join(headers)))


def _indented(text: str) -> list[str]:
    return wrap(
        text,
        _WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def as_json(table: TargetTable) -> str:
    listed = [
        {
            "target": target.name,
            "family": target.family,
            "cpu": target.cpu,
            "system": target.system,
            "about": target.about,
            "headers": list(target.headers),
            "backend": target.backend,
        }
        for target in table.targets.values()
    ]
    return json.dumps(listed, indent=2)
