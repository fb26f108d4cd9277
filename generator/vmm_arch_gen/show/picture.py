"""Records drawn to scale, as SVG or as a page with one.

A row is eight bytes, and every byte is as wide as every other. What is longer than a few rows is
broken, with its size on it. A union is one block, and below stand its members, each drawn like a
record of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from html import escape

from vmm_arch_gen.abi.members import RESERVED
from vmm_arch_gen.diagnostics import InputError, Problem
from vmm_arch_gen.show.find import Found
from vmm_arch_gen.show.layout import Node, layout

_WIDTH = 1000
_GUTTER = 46
"""Left of the rows, for offsets."""
_ROW = 42
_HEADING = 30
_GAP = 16
_LETTER = 6.05
"""How wide a letter is at the size of labels."""
_LINE = 12
_TALLEST = 2
"""Rows of a member that is longer: it is broken."""

_STYLE = """
svg { color-scheme: light dark; --text: #1f2328; --faint: #59636e; --page: #ffffff;
  --number: #ddf4ff; --record: #dafbe1; --union: #fff8c5; --reserved: #eff2f5; --line: #8c959f; }
@media (prefers-color-scheme: dark) { svg { --text: #f0f6fc; --faint: #9198a1; --page: #0d1117;
  --number: #12314f; --record: #12381f; --union: #45360a; --reserved: #262c36; --line: #656c76; } }
text { font: 10px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: var(--text); }
.page { fill: var(--page); } .faint { fill: var(--faint); }
.heading { font-size: 13px; font-weight: bold; }
rect.box { stroke: var(--line); } .number { fill: var(--number); } .record { fill: var(--record); }
.union { fill: var(--union); } .reserved { fill: var(--reserved); } .hole { fill: url(#hole); }
.break { fill: none; stroke: var(--page); stroke-width: 5; }
"""
_HATCHING = (
    '<pattern id="hole" width="6" height="6" patternUnits="userSpaceOnUse"'
    ' patternTransform="rotate(45)"><rect width="6" height="6" class="page"/>'
    '<path d="M0 0V6" stroke="var(--line)" stroke-width="2"/></pattern>'
)


@dataclass(frozen=True)
class _Strip:
    """Rows of boxes with a heading: a record, or one member of a union."""

    heading: str
    boxes: tuple[Node, ...]
    begin: int
    """In bits, from the start of the whole record: where the first row begins."""


def picture(found: Iterable[Found], name: str, *, expand: bool, page: bool) -> str:
    """The records among what was found, as SVG or as an HTML page; InputError if there are none."""
    drawings: list[str] = []
    top = _GAP
    for things in found:
        for key in things.records:
            root = layout(things.abi, key, expand=expand)
            record = things.abi.records[key]
            said = f"{key}: {_bytes(root)} ({record.header}, {things.abi.target})"
            drawing, top = _record(root, said, top)
            drawings.append(drawing)
    if not drawings:
        what = "this is not a record, and only a record can be drawn"
        raise InputError(Problem(name, what, "leave --format away, or name a struct or union"))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}"'
        f' height="{top}" role="img" aria-label="{escape(name)}">\n<style>{_STYLE}</style>\n'
        f"<defs>{_HATCHING}</defs>\n"
        f'<rect class="page" width="{_WIDTH}" height="{top}"/>\n' + "".join(drawings) + "</svg>"
    )
    if not page:
        return svg
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(name)}</title>\n"
        "<style>body { margin: 1rem auto; max-width: 1000px } svg { width: 100%; height: auto }"
        f"</style>\n</head>\n<body>\n{svg}\n</body>\n</html>"
    )


def _record(root: Node, said: str, top: int) -> tuple[str, int]:
    """A record and, in two columns below it, what its unions hold; and where that ends."""
    unions = [(root, "")] if root.union else []
    boxes = (root,) if root.union else tuple(_boxes(root.inside, "", "", unions))
    text, top = _draw(_Strip(said, boxes, 0), 0, top, _WIDTH)
    columns = [top, top]
    for strip in _alternatives(unions):
        side = columns.index(min(columns))
        drawn, columns[side] = _draw(strip, side * _WIDTH // 2, columns[side], _WIDTH // 2)
        text += drawn
    return text, max(columns)


_Unions = list[tuple[Node, str]]
"""Unions that are blocks somewhere, each with the path to its members."""


def _boxes(nodes: Iterable[Node], above: str, path: str, unions: _Unions) -> Iterator[Node]:
    """What is drawn of a struct: what is in structs inside it stands for them.

    ``path`` is how its members are called here, behind ``above``, which the heading tells.
    """
    for node in nodes:
        deeper = f"{path}{node.name}." if node.name else path
        if node.union:
            unions.append((node, above + deeper))
            yield replace(node, name=(path + node.name).rstrip("."))
        elif node.inside and "[" not in node.type:
            yield from _boxes(node.inside, above, deeper, unions)
        else:
            yield replace(node, name=path + node.name)


def _alternatives(unions: _Unions) -> Iterator[_Strip]:
    """A strip for each member of each union; it finds more unions on the way."""
    for union, path in unions:  # which grows
        for node in union.inside:
            above = f"{path}{node.name}." if node.name else path
            inside = node.inside if node.inside and not node.union else [node]
            boxes = tuple(_boxes(inside, above if node.inside else "", "", unions))
            size = _bytes(node)
            name = (path + node.name).rstrip(".") or f"a {node.type} without a name"
            if not node.union:
                yield _Strip(f"{name}: {size} at {node.offset // 8}", boxes, node.offset)


def _draw(strip: _Strip, left: int, top: int, width: int) -> tuple[str, int]:
    """A strip, and where the next one may begin."""
    byte = (width - _GUTTER - _GAP) // 8
    left += _GUTTER
    out = [f'<text class="heading" x="{left - 40}" y="{top + 14}">{escape(strip.heading)}</text>\n']
    top += _HEADING
    unsaid = []
    row, y = strip.begin // 64, top
    for node in strip.boxes:
        first, last = node.offset // 64, max(node.offset, node.offset + node.size - 1) // 64
        if first > row:
            y += _ROW
        row = first
        if node.offset % 64 == 0 or node is strip.boxes[0]:
            offset = f"{node.offset // 8}"
            out.append(f'<text class="faint" x="{left - 40}" y="{y + 16}">{offset}</text>\n')
        tall = last - first + 1
        shown = min(tall, _TALLEST) if node.offset % 64 == 0 else tall
        out += _box(node, left, y, byte, shown, broken=tall > shown)
        if not node.hole and not _lines(node, _widest(node, byte), broken=tall > shown):
            unsaid.append(node)
        if last > first:  # what follows it in its last row
            y += (shown - 1) * _ROW
            row = last
    y += _ROW + (6 if unsaid else 0)
    for node in unsaid:
        y += _LINE
        out.append(f'<text x="{left}" y="{y}">{escape(_told(node))}</text>\n')
    return "".join(out), y + _GAP


def _box(node: Node, left: int, y: int, byte: int, rows: int, *, broken: bool) -> Iterator[str]:
    """A box, in as many parts as it has rows that it does not fill."""
    bit = byte / 8
    spans = _spans(node, rows)
    whole = rows == 1 or spans == [(0, 64)]
    yield f"<g><title>{escape(_told(node))}</title>\n"
    for number, (begin, stop) in enumerate(spans):
        height = _ROW * rows if whole else _ROW
        x, wide = left + begin * bit, max((stop - begin) * bit, 2)
        at = y + number * _ROW
        yield (
            f'<rect class="box {_colour(node)}" x="{x:g}" y="{at}" width="{wide:g}"'
            f' height="{height}"/>\n'
        )
        if number == max(range(len(spans)), key=lambda n: spans[n][1] - spans[n][0]):
            yield from _label(
                _lines(node, wide, broken=broken), node, x + wide / 2, at + height / 2
            )
    if broken:
        middle, right = y + _ROW * rows * 0.8, left + 8 * byte
        zigzag = " ".join(f"L{left + n * byte / 2:g} {middle + 4 * (-1) ** n:g}" for n in range(17))
        yield f'<path class="break" d="M{left} {middle + 4:g} {zigzag} L{right} {middle + 4:g}"/>\n'
    yield "</g>\n"


def _colour(node: Node) -> str:
    if node.hole:
        return "hole"
    if node.union:
        return "union"
    if RESERVED.fullmatch(node.name.rpartition(".")[2]):
        return "reserved"
    return "record" if node.type.startswith(("struct", "union")) or node.inside else "number"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _bytes(node: Node) -> str:
    return _count(node.size // 8, "byte")


def _told(node: Node) -> str:
    size = _count(node.size, "bit") if node.size % 8 or node.bit_field else _bytes(node)
    what = "a hole" if node.hole else f"{node.type} {node.name}".strip()
    bit = f", bit {node.offset % 8}" if node.bit_field else ""
    return f"{what}: {size} at {node.offset // 8}{bit}"


def _spans(node: Node, rows: int) -> list[tuple[int, int]]:
    """The bits of a row that a box takes, for each row; one row for all if it fills them."""
    start = node.offset % 64
    end = (node.offset + node.size - 1) % 64 + 1 if node.size else start
    if rows == 1 or (start, end) == (0, 64):
        return [(start, end)]
    return [(start, 64), *[(0, 64)] * (rows - 2), (0, end)]


def _widest(node: Node, byte: int) -> float:
    rows = max(node.offset, node.offset + node.size - 1) // 64 - node.offset // 64 + 1
    return max(end - start for start, end in _spans(node, rows)) * byte / 8


def _lines(node: Node, width: float, *, broken: bool) -> list[str]:
    """The text of a box: its name, its type if there is room, or nothing if there is none."""
    room = int(width / _LETTER)
    said = f"{node.type}, {_bytes(node)}" if broken or node.union else node.type
    lines = _wrapped(node.name, room) if node.name else [said]
    if node.hole or len(lines) * _LINE > _ROW or any(len(line) > room for line in lines):
        return []
    return [*lines, said] if node.name and len(said) <= room and len(lines) < 3 else lines


def _label(lines: list[str], node: Node, x: float, y: float) -> Iterator[str]:
    first = y - (len(lines) - 1) * _LINE / 2 + 3.5
    for number, line in enumerate(lines):
        faint = ' class="faint"' if number and line.startswith(node.type) else ""
        at = first + number * _LINE
        yield f'<text{faint} x="{x:g}" y="{at:g}" text-anchor="middle">{escape(line)}</text>\n'


def _wrapped(name: str, room: int) -> list[str]:
    """A name in lines, broken after underscores and dots."""
    lines = [""]
    for part in name.replace("_", "_\0").replace(".", ".\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part) > room:
            lines.append("")
        lines[-1] += part
    return lines
