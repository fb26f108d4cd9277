"""What was found, as text for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from textwrap import wrap
from typing import Any

from vmm_arch_gen.abi.expression_text import spell as spell_expression
from vmm_arch_gen.abi.ioctls import ioctl_parts
from vmm_arch_gen.abi.layout import Layouts
from vmm_arch_gen.abi.model import Abi, FunctionPrototype, Ioctl, MacroFunction
from vmm_arch_gen.abi.text import quoted
from vmm_arch_gen.abi.types import Array, Function, Named, Type, declare, spell
from vmm_arch_gen.show.find import Call, Found
from vmm_arch_gen.show.layout import Node, layout

Line = tuple[str, str | None]
"""With its colour, or "bold", or None."""

_WIDTH = 80
_NAMES = 36
"""Names are followed by what there is to say of them in a column no further right than this."""


def as_text(found: Iterable[Found], others: Iterable[str], *, expand: bool) -> Iterator[Line]:
    for number, things in enumerate(found):
        if number:
            yield "", None
        yield f"{things.abi.target}: {things.abi.origin}", "bold"
        for part in _parts(things, expand):
            yield "", None
            yield from part
    if listed := ", ".join(others):
        yield "", None
        for line in wrap(f"also in {listed}: --target shows it there", _WIDTH):
            yield line, None


def _parts(found: Found, expand: bool) -> Iterator[list[Line]]:
    abi = found.abi
    for key in found.records:
        yield list(_record(abi, key, expand))
    if found.ioctls:
        wanted = set(found.ioctls)
        yield list(_columns(_ioctl(abi, i) for i in abi.ioctls if i.name in wanted))
    for key in found.enums:
        enum = abi.enums[key]
        values = (("  " + name, str(value), "") for name, value in enum.enumerators)
        head = f"{key}: {enum.underlying.name}"
        yield [*_fitted(head, f", in {enum.header}", "bold"), *_columns(values)]
    inside = {n for key in found.enums for n, _ in abi.enums[key].enumerators}
    if constants := [name for name in found.constants if name not in inside]:
        known, flags = integers(abi), {c.name for c in abi.constants if c.radix == 16}
        yield list(
            _columns((n, _value(known[n][0], n in flags), f", in {known[n][1]}") for n in constants)
        )
    if found.strings:
        texts = (s for s in abi.strings if s.name in found.strings)
        yield list(_columns((s.name, quoted(s.value), f", in {s.header}") for s in texts))
    for macro in abi.macros:
        if macro.name in found.macros:
            yield list(_macro(macro))
    if found.calls:
        yield list(_columns((c.text, f"= {_result(c)}", "") for c in found.calls))
    for name in found.typedefs:
        typedef = abi.typedefs[name]
        text = f"typedef {declare(typedef.type, name)}, in {typedef.header}"
        lines = wrap(text, _WIDTH, subsequent_indent="    ", break_on_hyphens=False)
        yield [(line, None) for line in lines]
    for function in abi.functions:
        if function.name in found.functions:
            yield list(_prototype(function))


def _macro(macro: MacroFunction) -> Iterator[Line]:
    """What a macro takes and gives, and the expression of its value."""
    head = f"{macro.name}({', '.join(macro.parameters)}) -> {macro.value.type.name}"
    yield from _fitted(head, f", in {macro.header}", "bold")
    for line in wrap(
        spell_expression(macro.value),
        _WIDTH,
        initial_indent="    ",
        subsequent_indent="        ",
        break_long_words=False,
    ):
        yield line, None


def _result(call: Call) -> str:
    value = hex(call.value) if call.value > 9 else str(call.value)
    return f"{value}, {call.type.name}"


def _prototype(function: FunctionPrototype) -> Iterator[Line]:
    assert isinstance(function.type, Function)
    yield f"{function.name}, in {function.header}", "bold"
    yield f"{declare(function.type.result)} {function.name}(", None
    for name, type in function.type.parameters:
        yield f"    {declare(type, name)},", None
    yield ");", None


def integers(abi: Abi) -> dict[str, tuple[int, str]]:
    """Every constant's and enumerator's value, and where it is from."""
    known = {c.name: (c.value, c.header) for c in abi.constants}
    for key, enum in abi.enums.items():
        known |= {name: (v, key if "<" not in key else enum.header) for name, v in enum.enumerators}
    return known


def _value(value: int, flags: bool) -> str:
    """A value, and where the header writes it like flags the bits that it has."""
    text = f"{value:#x}" if flags else f"{value} = {value:#x}" if value > 9 else str(value)
    if flags and value > 0:
        low, high = (value & -value).bit_length() - 1, value.bit_length() - 1
        if value == (2 << high) - (1 << low):  # without a gap
            text += f" = bit {low}" if low == high else f" = bits {low} to {high}"
    return text


def _columns(rows: Iterable[tuple[str, str, str]]) -> Iterator[Line]:
    """Names, and what there is to say of each; the last of it below where it does not fit."""
    listed = list(rows)
    width = min(_NAMES, max((len(name) for name, _, _ in listed), default=0))
    for name, text, rest in listed:
        yield from _fitted(f"{name:{width}}  {text}", rest)


def _fitted(line: str, rest: str, colour: str | None = None) -> Iterator[Line]:
    if len(line + rest) <= _WIDTH:
        yield line + rest, colour
    else:
        yield line, colour
        yield f"    {rest.lstrip(', ')}", None


def _ioctl(abi: Abi, ioctl: Ioctl) -> tuple[str, str, str]:
    parts = ioctl_parts(abi, ioctl)
    size = f", {parts.size} bytes" if parts.size else ""
    argument = f": {spell(ioctl.argument)}" if ioctl.argument else ""
    text = f"{ioctl.value:#x} = {parts.direction} {parts.type:#x}/{parts.number:#x}"
    return ioctl.name, f"{text}{size}", argument


# -- records ----------------------------------------------------------------------------------


def _record(abi: Abi, key: str, expand: bool) -> Iterator[Line]:
    record, root = abi.records[key], layout(abi, key, expand=expand)
    placed = abi.layouts[key]
    packed = ", packed" if record.packed else ""
    packed += f", pack({record.pack})" if record.pack else ""
    head = f"{key}: {placed.size} bytes, aligned {placed.align}{packed}"
    yield from _fitted(head, f", in {record.header}", "bold")
    rows = list(_rows(root.inside, 0))
    offsets = max([len("offset"), *(len(row[0]) for row in rows)])
    sizes = max([len("size"), *(len(row[1]) for row in rows)])
    if rows:
        yield f"{'offset':>{offsets}}  {'size':>{sizes}}", None
    for offset, size, text, hole in rows:
        line = f"{offset:>{offsets}}  {size:>{sizes}}  {text}".rstrip()
        yield line, "yellow" if hole else None
    holes = sum(node.size for node in _all(root) if node.hole)
    if holes:
        count = sum(node.hole for node in _all(root))
        yield f"{count} hole{'s' * (count != 1)}, {_amount(holes)}", "yellow"
    if users := [i for i in abi.ioctls if _is_of(i.argument, key)]:
        yield from _columns(_ioctl(abi, ioctl) for ioctl in users)


def _is_of(type: Type | None, key: str) -> bool:
    while isinstance(type, Array):
        type = type.of
    return type == Named(key)


def _all(node: Node) -> Iterator[Node]:
    for inner in node.inside:
        yield inner
        yield from _all(inner)


def _rows(nodes: Iterable[Node], depth: int) -> Iterator[tuple[str, str, str, bool]]:
    """Offset, size and C text of each line; whether it is a hole."""
    indent = "  " * depth
    for node in nodes:
        byte, bit = divmod(node.offset, 8)
        offset = f"{byte}.{bit}" if node.bit_field or bit else str(byte)
        if node.hole:
            yield offset, _short(node), f"{indent}/* hole */", True
        elif node.inside:
            head, _, dimensions = node.type.partition("[")
            name = f" {node.name}" * bool(node.name) + f"[{dimensions}" * bool(dimensions)
            yield offset, _short(node), f"{indent}{head} {{", False
            yield from _rows(node.inside, depth + 1)
            yield "", "", f"{indent}}}{name};", False
        else:
            width = f" : {node.size}" if node.bit_field else ""
            yield offset, _short(node), f"{indent}{_declared(node)}{width};", False


def _declared(node: Node) -> str:
    head, bracket, dimensions = node.type.partition("[")
    if "(" in node.type or "*" in dimensions:  # a pointer to a function or to an array
        return f"{node.type} {node.name}"
    return f"{head} {node.name}{bracket}{dimensions}"


def _short(node: Node) -> str:
    return f"{node.size} bit" if node.bit_field or node.size % 8 else str(node.size // 8)


def _amount(bits: int) -> str:
    parts = [(bits // 8, "byte"), (bits % 8, "bit")]
    return " and ".join(f"{n} {what}{'s' * (n != 1)}" for n, what in parts if n)


# -- JSON -------------------------------------------------------------------------------------


def as_json(found: Iterable[Found], *, expand: bool) -> str:
    import json

    return json.dumps([_things(things, expand) for things in found], indent=2)


def _things(found: Found, expand: bool) -> Mapping[str, Any]:
    abi = found.abi
    values = integers(abi)
    layouts = Layouts.of_abi(abi)
    return {
        "target": abi.target,
        "origin": abi.origin,
        "records": [
            {
                "align": layouts.record(key).align,
                "header": abi.records[key].header,
                "packed": abi.records[key].packed,
                **_node(layout(abi, key, expand=expand)),
            }
            for key in found.records
        ],
        "ioctls": [
            {
                "name": ioctl.name,
                "value": ioctl.value,
                **vars(ioctl_parts(abi, ioctl)),
                "argument": spell(ioctl.argument) if ioctl.argument else None,
                "header": ioctl.header,
            }
            for ioctl in abi.ioctls
            if ioctl.name in found.ioctls
        ],
        "constants": [
            {"name": name, "value": values[name][0], "source": values[name][1]}
            for name in found.constants
        ],
        "strings": [
            # A char for each byte.
            {"name": s.name, "value": s.value.decode("latin-1"), "source": s.header}
            for s in abi.strings
            if s.name in found.strings
        ],
        "macros": [
            {
                "name": m.name,
                "arguments": list(m.parameters),
                "type": m.value.type.name,
                "expression": spell_expression(m.value),
                "header": m.header,
            }
            for m in abi.macros
            if m.name in found.macros
        ],
        "calls": [{"call": c.text, "value": c.value, "type": c.type.name} for c in found.calls],
        "enums": [
            {
                "name": key,
                "type": abi.enums[key].underlying.name,
                "values": dict(abi.enums[key].enumerators),
            }
            for key in found.enums
        ],
        "typedefs": [{"name": n, "type": spell(abi.typedefs[n].type)} for n in found.typedefs],
        "functions": [
            {"name": f.name, "type": spell(f.type), "header": f.header}
            for f in abi.functions
            if f.name in found.functions
        ],
    }


def _node(node: Node) -> dict[str, Any]:
    """Offsets and sizes are bytes; of bit-fields and holes in them, ``bit`` and ``bits`` say more."""
    facts: dict[str, Any] = {"name": node.name, "type": node.type, "offset": node.offset // 8}
    if node.bit_field or node.size % 8:
        facts |= {"bit": node.offset % 8, "bits": node.size}
    else:
        facts["size"] = node.size // 8
    if node.hole:
        facts = {"hole": True, **{k: v for k, v in facts.items() if k not in ("name", "type")}}
    if node.inside:
        facts["members"] = [_node(inner) for inner in node.inside]
    return facts
