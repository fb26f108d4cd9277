"""Records drawn to scale, as SVG or as a page with one.

A row is eight bytes, and every byte is as wide as every other. What is longer than a few rows is
broken, with its size on it. A union is one block, and below stand its members, each drawn like a
record of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from html import escape

from vmm_arch_gen.compare.fields import RESERVED
from vmm_arch_gen.diagnostics import InputError, Problem
from vmm_arch_gen.show.find import Found
from vmm_arch_gen.show.layout import Node, layout

_WIDTH = 1000
_GUTTER = 52
"""Left of the rows, for offsets."""
_ROW = 42
_HEADING = 30
_GAP = 22
_LETTER = 6.1
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
    drawings, top = [], _GAP
    for things in found:
        for key in things.records:
            root = layout(things.abi, key, expand=expand)
            record = things.abi.records[key]
            said = f"{key}: {root.size // 8} bytes ({record.header}, {things.abi.target})"
            drawing, top = _record(root, said, top)
            drawings.append(drawing)
    if not drawings:
        what = "this is no record, and only a record can be drawn"
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
    unions: list[Node] = [root] if root.union else []
    strip = _Strip(said, (root,) if root.union else tuple(_boxes(root.inside, "", unions)), 0)
    text, top = _draw(strip, 0, top, _WIDTH)
    columns = [top, top]
    for strip in _alternatives(unions):
        side = columns.index(min(columns))
        drawn, columns[side] = _draw(strip, side * _WIDTH // 2, columns[side], _WIDTH // 2)
        text += drawn
    return text, max(columns)


def _boxes(nodes: Iterable[Node], path: str, unions: list[Node]) -> Iterator[Node]:
    """What is drawn of a struct: what is in structs inside it stands for them."""
    for node in nodes:
        here = replace(node, name=path + node.name)
        if node.union:
            unions.append(here)
            yield here
        elif node.inside and "[" not in node.type:
            deeper = f"{here.name}." if node.name else path
            yield from _boxes(node.inside, deeper, unions)
        else:
            yield here


def _alternatives(unions: list[Node]) -> Iterator[_Strip]:
    """A strip for each member of each union; it finds more unions on the way."""
    for union in unions:  # which grows
        for node in union.inside:
            path = f"{union.name}." if union.name and union is not unions[0] else ""
            boxes = tuple(_boxes([node], path, unions)) if node.inside else (node,)
            offset = node.offset // 8
            size = f"{node.size // 8} byte{'s' * (node.size != 8)}"
            name = path + node.name or f"one of the {node.type}s"
            if [box.union for box in boxes] != [True]:
                yield _Strip(f"{name}: {size} at {offset}", boxes, node.offset)


def _draw(strip: _Strip, left: int, top: int, width: int) -> tuple[str, int]:
    """A strip, and where the next one may begin."""
    byte = (width - _GUTTER - _GAP) // 8
    left += _GUTTER
    out = [f'<text class="heading" x="{left - 40}" y="{top + 14}">{escape(strip.heading)}</text>\n']
    top += _HEADING
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
        if last > first:  # what follows it in its last row
            y += (shown - 1) * _ROW
            row = last
    return "".join(out), y + _ROW + _GAP


def _box(node: Node, left: int, y: int, byte: int, rows: int, *, broken: bool) -> Iterator[str]:
    """A box, in as many parts as it has rows that it does not fill."""
    bit = byte / 8
    start = node.offset % 64
    end = (node.offset + node.size - 1) % 64 + 1 if node.size else start
    whole = start == 0 and (rows == 1 or end == 64)
    spans = [(start, end)] if rows == 1 else [(start, 64), *[(0, 64)] * (rows - 2), (0, end)]
    if whole and rows > 1:
        spans = [(0, 64)]
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
            yield from _label(node, x + wide / 2, at + height / 2, wide, broken)
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


def _told(node: Node) -> str:
    size = f"{node.size} bits" if node.size % 8 or node.bit_field else f"{node.size // 8} bytes"
    what = "a hole" if node.hole else f"{node.type} {node.name}".strip()
    return f"{what}: {size} at {node.offset // 8}"


def _label(node: Node, x: float, y: float, width: float, broken: bool) -> Iterator[str]:
    """Name and type, as far as there is room; what is pointed at tells the rest."""
    room = int((width - 4) / _LETTER)
    lines = _wrapped(node.name or node.type, room)
    fits = len(lines) * _LINE <= _ROW and all(len(line) <= room for line in lines)
    if node.hole or not fits:
        return
    said = f"{node.type}, {node.size // 8} bytes" if broken or node.union else node.type
    if node.name and len(said) <= room and len(lines) < 3:
        lines.append(said)
    first = y - (len(lines) - 1) * _LINE / 2 + 3.5
    for number, line in enumerate(lines):
        faint = ' class="faint"' if line == said and node.name else ""
        at = first + number * _LINE
        yield f'<text{faint} x="{x:g}" y="{at:g}" text-anchor="middle">{escape(line)}</text>\n'


def _wrapped(name: str, room: int) -> list[str]:
    """A name in lines, broken behind underscores and dots."""
    lines = [""]
    for part in name.replace("_", "_\0").replace(".", ".\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part) > room:
            lines.append("")
        lines[-1] += part
    return lines
