"""Comparisons as text for a terminal, as Markdown for a pull request, as JSON for a program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby

from vmm_arch_gen.compare.model import Change, Comparison, Facts, FieldChange, Kind

NOTHING, ADDITIVE, BREAKING = 0, 10, 11
"""Exit statuses: nothing changed, what there was is as it was, something is not."""

_SIGNS = {Kind.REMOVED: "-", Kind.ADDED: "+", Kind.RESTATED: "=", None: " "}
_COLOURS = {"-": "red", "+": "green", "!": "yellow"}
_HEADINGS = {Kind.RESTATED: "declared otherwise, with the same meaning"}
_WIDTH = 80
_NAMES = 44
"""Names are followed by what there is to say of them in a column no further right than this."""
_FOLDED = 40
"""Longer lists are folded in Markdown, and so are additions."""


def exit_status(comparisons: Sequence[Comparison]) -> int:
    if not any(c.breaking or c.compatible for c in comparisons):
        return NOTHING
    return BREAKING if any(c.breaking for c in comparisons) else ADDITIVE


def as_json(comparisons: Sequence[Comparison]) -> str:
    import json

    return json.dumps(
        {
            "status": exit_status(comparisons),
            "targets": [
                {
                    "target": c.target,
                    "old": c.old,
                    "new": c.new,
                    "breaking": c.breaking,
                    "compatible": c.compatible,
                    "changes": [
                        {k: v for k, v in asdict(change).items() if v not in (None, "", ())}
                        | {"breaking": change.kind.breaking}
                        for change in c.changes
                    ],
                }
                for c in comparisons
            ],
        },
        indent=2,
    )


def as_text(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, str | None]]:
    """Lines, each with its colour or None."""
    if not comparisons:
        yield "no changes", None
    for number, comparison in enumerate(comparisons):
        if number:
            yield "", None
        yield f"{comparison.target}: {_summary(comparison)}", "bold"
        for line in _versions(comparison):
            yield f"  {line}", None
        for heading, changes in _groups(comparison):
            yield "", None
            yield heading, "bold"
            for sign, line in _lines(changes):
                yield f"{sign} {line}".rstrip(), _COLOURS.get(sign)


def as_markdown(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Lines of GitHub's Markdown: a list for each kind, folded where it is long."""
    if not comparisons:
        yield "The ABI has not changed."
    for comparison in comparisons:
        yield f"### `{comparison.target}`: {_summary(comparison)}"
        yield ""
        if versions := " ".join(_versions(comparison)):
            yield versions
            yield ""
        for heading, changes in _groups(comparison):
            lines = [f"{sign} {line}".rstrip() for sign, line in _lines(changes)]
            unfolded = " open" if changes[0].kind.breaking and len(lines) <= _FOLDED else ""
            yield f"<details{unfolded}><summary>{heading}</summary>"
            yield from ("", "```diff", *lines, "```", "", "</details>", "")


def _groups(comparison: Comparison) -> Iterator[tuple[str, list[Change]]]:
    """The changes of one kind to things of one kind, with a heading: ``removed: 3 constants``."""
    for (kind, what, _), changes in groupby(comparison.changes, _group):
        listed = list(changes)
        count = f"{len(listed)} {what}{'s' * (len(listed) != 1)}"
        inside = "fields of " if _inside(listed[0]) else ""
        yield f"{_HEADINGS.get(kind, kind.value)}: {inside}{count}", listed


def _group(change: Change) -> tuple[Kind, str, bool]:
    what = "record" if change.what in ("struct", "union") else change.what
    return change.kind, what, _inside(change)


def _inside(change: Change) -> bool:
    """Whether only members of a record changed."""
    return bool(change.fields) and all(
        (facts or {}).get("size") == (change.new or {}).get("size")
        and change.kind in {field.kind for field in change.fields}
        for facts in (change.old, change.new)
    )


def _summary(comparison: Comparison) -> str:
    if comparison.old is None:
        return "a new target"
    if comparison.new is None:
        return "the target is gone"
    parts = []
    for count, what in ((comparison.breaking, "breaking"), (comparison.compatible, "compatible")):
        if count:
            parts.append(f"{count} {what} change{'s' * (count != 1)}")
    return " and ".join(parts) or "the facts say the same"


def _versions(comparison: Comparison) -> Iterator[str]:
    if comparison.old != comparison.new:
        if comparison.old is not None:
            yield f"from {comparison.old}"
        if comparison.new is not None:
            yield f"to {comparison.new}"


def _lines(changes: Sequence[Change]) -> Iterator[tuple[str, str]]:
    """What changed, one thing a line, with a sign; below a record the fields that changed."""
    width = min(_NAMES, max(len(_title(change)) for change in changes))
    for change in changes:
        line = f"{_title(change):{width}}  {_detail(change)}"
        aside = change.note or _argument(change)
        if aside and len(line) + len(aside) + len("-  ()") <= _WIDTH:
            line += f" ({aside})"
        yield " " if _inside(change) else _SIGNS.get(change.kind, "!"), line
        yield from _fields(change.fields)


def _title(change: Change) -> str:
    return f"{change.name} -> {change.renamed_to}" if change.renamed_to else change.name


def _argument(change: Change) -> str:
    """The argument's type of an ioctl."""
    facts = change.new or change.old or {}
    return str(facts.get("argument", ""))


def _detail(change: Change) -> str:
    match change.old, change.new:
        case None, facts if facts is not None:
            return _said(change.what, facts)
        case facts, None if facts is not None:
            return _said(change.what, facts)
        case old, new if old is not None and new is not None:
            before, after = _said(change.what, old), _said(change.what, new)
            if before == after and old["header"] != new["header"]:
                return f"{after}, {_arrow(str(old['header']), str(new['header']))}"
            return _arrow(before, after)
    raise AssertionError("a change without either version")


def _arrow(before: str, after: str) -> str:
    """``write 0xae/0x82, 24 -> 32 bytes``: words that are the same at both ends are said once."""
    parts, new_parts = before.split(", "), after.split(", ")
    if len(parts) == len(new_parts) > 1:
        return ", ".join(map(_arrow, parts, new_parts))
    if before == after:
        return before
    old, new = before.split(" "), after.split(" ")
    shorter = min(len(old), len(new)) - 1  # a word of each is left at least
    head = 0
    while head < shorter and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < shorter - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    middle = (" ".join(words[head : len(words) - tail]) for words in (old, new))
    return " ".join([*old[:head], " -> ".join(middle), *old[len(old) - tail :]])


def _said(what: str, facts: Facts) -> str:
    """What there is to say of one version of something."""
    match what:
        case "ioctl":
            size = f", {_bytes(facts['size'])}" if facts["size"] else ""
            type_, number = facts["type"], facts["number"]
            return f"{facts['direction']} {type_:#04x}/{number:#04x}{size}"
        case "struct" | "union":
            return f"{_bytes(facts['size'])}, aligned {facts['align']}"
        case "constant" | "enumerator":
            return str(facts.get("hex", facts["value"]))
        case "typedef" | "enum":
            size = f", {_bytes(facts['size'])}" if "size" in facts else ""
            return f"{facts['type']}{size}"
    return str(facts["type"])


def _bytes(size: str | int) -> str:
    return f"{size} byte{'s' * (size != 1)}"


def _fields(fields: Sequence[FieldChange]) -> Iterator[tuple[str, str]]:
    """The fields that changed, each between its neighbours."""
    if not fields:
        return
    shown = {
        near
        for at, field in enumerate(fields)
        if field.kind is not None
        for near in (at - 1, at, at + 1)
    }
    rows = [
        (_SIGNS.get(f.kind, "!"), *_field(f)) if at in shown else None
        for at, f in enumerate(fields)
    ]
    offsets = max(len(row[1]) for row in rows if row)
    names = min(_NAMES - 8, max(len(row[2]) for row in rows if row))
    for left_out, group in groupby(rows, key=lambda row: row is None):
        if left_out:
            yield " ", f"    {'':{offsets}}  ..."
        for row in group:
            if row is not None:
                sign, offset, name, kind = row
                yield sign, f"    {offset:>{offsets}}  {name:{names}}  {kind}"


def _field(change: FieldChange) -> tuple[str, str, str]:
    """Offset, name and type of a field, each with an arrow where it changed."""
    old, new = change.old or change.new, change.new or change.old
    assert old is not None
    assert new is not None
    if change.kind is Kind.RESTATED:
        old = new
    columns = (
        (_place(old), _place(new)),
        (str(old["path"]), str(new["path"])),
        (_kind(old, change.kind), _kind(new, change.kind)),
    )
    offset, name, kind = (_arrow(a, b) for a, b in columns)
    return offset, name, kind


def _place(facts: Facts) -> str:
    if "bits" in facts:
        return f"{facts['offset']}.{facts['bit']}:{facts['bits']}"
    return str(facts["offset"])


def _kind(facts: Facts, change: Kind | None) -> str:
    """The type; and the size, where that is what changed."""
    kind = str(facts["type"])
    if "." in kind:  # a path, for want of a name
        kind = kind.partition(" ")[0]
    resized = change is Kind.RESIZED and "bits" not in facts
    return f"{kind}, {_bytes(facts['size'])}" if resized else kind
