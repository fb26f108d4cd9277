"""Comparisons as text for a terminal, as Markdown for a pull request, as JSON for a program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from textwrap import wrap

from vmm_arch_gen.compare.model import Change, Comparison, Facts, FieldChange, Kind

NOTHING, ADDITIVE, BREAKING = 0, 10, 11
"""Exit statuses: nothing changed, what there was is as it was, something is not."""

_SIGNS = {Kind.REMOVED: "-", Kind.ADDED: "+", Kind.RESTATED: "=", None: " "}
_COLOURS = {"-": "red", "+": "green", "!": "yellow"}
_HEADINGS = {Kind.RESTATED: "declared otherwise, with the same meaning"}
_WHOLE = ("typedef", "enum", "function", "string")
"""Of these the first thing that is said is a type or a text, whose words belong together."""
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
    groups: dict[tuple[str, str], list[Change]] = {}
    for change in comparison.changes:
        groups.setdefault(_group(change), []).append(change)
    for (heading, what), changes in groups.items():
        yield f"{heading} {len(changes)} {what}{'s' * (len(changes) != 1)}", changes


def _group(change: Change) -> tuple[str, str]:
    """What happened, and to what."""
    what = "record" if change.what in ("struct", "union") else change.what
    heading = _HEADINGS.get(change.kind, change.kind.value)
    if change.what == "omission":
        return "now left out:", "declaration"
    if change.kind is Kind.RESIZED and _only_aligned_otherwise(change):
        heading = "aligned otherwise"
    return f"{heading}: fields of" if _inside(change) else f"{heading}:", what


def _inside(change: Change) -> bool:
    """Whether what a record is listed for are its members."""
    if change.kind not in {field.kind for field in change.fields} or change.renamed_to:
        return False
    return change.kind is Kind.REMOVED or _same(change, "size")


def _only_aligned_otherwise(change: Change) -> bool:
    resized = any(field.kind is Kind.RESIZED for field in change.fields)
    return not resized and _same(change, "size") and not _same(change, "align")


def _same(change: Change, fact: str) -> bool:
    return (change.old or {}).get(fact) == (change.new or {}).get(fact)


def _summary(comparison: Comparison) -> str:
    if comparison.old is None:
        return "a new target"
    if comparison.new is None:
        return "the target was removed"
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
        line, more = f"{_title(change):{width}}  {_detail(change)}", []
        if len(line) > _WIDTH - len("- "):
            line, more = _title(change), _versions_of(change)
        asides = [aside for aside in (_argument(change), change.note) if aside]
        if asides and not more and len(f"- {line} ({asides[0]})") <= _WIDTH:
            line += f" ({asides.pop(0)})"
        more += asides
        yield _sign(change), line
        for text in more:
            for part in _wrapped(text, "    "):
                yield " ", part
        yield from _fields(change.fields)


def _sign(change: Change) -> str:
    if _inside(change):  # the members have signs of their own
        return " " if _same(change, "size") else "!"
    return _SIGNS.get(change.kind, "!")


def _wrapped(text: str, indent: str) -> list[str]:
    """A long text in lines below what it is about; names are never broken."""
    return wrap(
        text,
        _WIDTH - len("- "),
        initial_indent=indent,
        subsequent_indent=f"{indent}    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _versions_of(change: Change) -> list[str]:
    """What there is to say of a change, before and after apart if it does not fit together."""
    detail = _detail(change)
    if len(detail) + len("-     ") <= _WIDTH or change.old is None or change.new is None:
        return [detail]
    before, after = (", ".join(_said(change.what, facts)) for facts in (change.old, change.new))
    return [detail] if before == after else [before, f"-> {after}"]


def _title(change: Change) -> str:
    return f"{change.name} -> {change.renamed_to}" if change.renamed_to else change.name


def _argument(change: Change) -> str:
    """The argument's type of an ioctl, before and after."""
    if change.what != "ioctl":
        return ""
    versions = (str(facts.get("argument", "")) for facts in (change.old, change.new) if facts)
    said = list(dict.fromkeys(versions))
    return " -> ".join(argument or "no argument" for argument in said) if any(said) else ""


def _detail(change: Change) -> str:
    match change.old, change.new:
        case None, facts if facts is not None:
            return ", ".join(_said(change.what, facts))
        case facts, None if facts is not None:
            return ", ".join(_said(change.what, facts))
        case old, new if old is not None and new is not None:
            before, after = _said(change.what, old), _said(change.what, new)
            if before == after and old["header"] != new["header"]:
                return f"{', '.join(after)}, {_from_to(str(old['header']), str(new['header']))}"
            if change.what == "model":  # of which most is the same
                pairs = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
                before, after = [a for a, _ in pairs], [b for _, b in pairs]
            if change.what == "macro":
                return _of_macro(old, new)
            return _arrows(before, after, whole=change.what in _WHOLE)
    raise AssertionError("a change without either version")


def _of_macro(old: Facts, new: Facts) -> str:
    """Two versions of a macro with arguments; what it takes and gives is said once if it is the same."""
    before, after = (_said("macro", facts)[0] for facts in (old, new))
    if before == after:
        return after
    same = all(old[fact] == new[fact] for fact in ("arguments", "type"))
    return f"{before} -> {new['expression'] if same else after}"


def _arrows(before: Sequence[str], after: Sequence[str], *, whole: bool) -> str:
    """Two versions of what there is to say; if ``whole``, the words of the first belong together."""
    if len(before) != len(after):
        return _from_to(", ".join(before), ", ".join(after))
    how = [_from_to if whole else _measure, *[_measure] * len(after)]
    return ", ".join(say(a, b) for say, a, b in zip(how, before, after, strict=False))


def _from_to(before: str, after: str) -> str:
    return before if before == after else f"{before} -> {after}"


def _measure(before: str, after: str) -> str:
    """``24 -> 32 bytes``: words that are the same at both ends are said once.

    Not for types: ``unsigned int -> short`` is no ``unsigned int -> unsigned short``.
    """
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


def _said(what: str, facts: Facts) -> list[str]:
    """What there is to say of one version of something."""
    match what:
        case "ioctl":
            type_, number = facts["type"], facts["number"]
            size = [_bytes(facts["size"])] if facts["size"] else []
            return [f"{facts['direction']} {type_:#04x}/{number:#04x}", *size]
        case "struct" | "union":
            return [_bytes(facts["size"]), f"aligned {facts['align']}"]
        case "constant" | "enumerator" | "string":
            return [str(facts.get("hex", facts["value"]))]
        case "omission":
            return [str(facts["reason"])]
        case "model":
            return [
                f"long {facts['long']}",
                f"pointer {facts['pointer']}",
                f"{facts['byte_order']} endian",
                f"{'signed' if facts['signed_char'] else 'unsigned'} char",
                f"{facts['bit_fields']} bit-fields",
                f"__int128 aligned {facts['int128_align']}",
                f"long double {facts['long_double']}",
            ]
        case "macro":
            return [f"({facts['arguments']}) -> {facts['type']} = {facts['expression']}"]
        case "typedef" | "enum":
            return [str(facts["type"]), *([_bytes(facts["size"])] if "size" in facts else [])]
    return [str(facts["type"])]


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
                sign, offset, name, type = row
                place = f"    {offset:>{offsets}}  {name:{names}}"
                if len(f"- {place}  {type}") <= _WIDTH:
                    yield sign, f"{place}  {type}"
                    continue
                yield sign, place
                for part in _wrapped(type, f"    {'':{offsets}}      "):
                    yield " ", part


def _field(change: FieldChange) -> tuple[str, str, str]:
    """Offset, name and type of a field, each with an arrow where it changed."""
    old, new = change.old or change.new, change.new or change.old
    assert old is not None
    assert new is not None
    if change.kind is Kind.RESTATED:
        old = new
    offset = _from_to(_place(old), _place(new))
    name = _from_to(str(old["path"]), str(new["path"]))
    types = (_type(old, change.kind), _type(new, change.kind))
    return offset, name, _arrows(*types, whole=True)


def _place(facts: Facts) -> str:
    if "bits" in facts:
        return f"{facts['offset']}.{facts['bit']}:{facts['bits']}"
    return str(facts["offset"])


def _type(facts: Facts, kind: Kind | None) -> list[str]:
    """The type; and the size, where that is what changed."""
    type = str(facts["type"])
    if "." in type:  # a path, for want of a name
        type = type.partition(" ")[0]
    resized = kind is Kind.RESIZED and "bits" not in facts
    return [type, *([_bytes(facts["size"])] if resized else [])]
