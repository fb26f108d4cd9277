"""A record as a tree: its members by offset, those inside them, holes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from vmm_arch_gen.abi.layout import Layouts
from vmm_arch_gen.abi.model import Abi, Record
from vmm_arch_gen.abi.types import Array, Named, Type, spell


@dataclass(frozen=True)
class Node:
    """A member, a hole, or the whole record."""

    name: str
    """Empty for a hole, and for a member without a name."""
    type: str
    """As C spells it; ``struct`` or ``union`` for a type without a name, empty for a hole."""
    offset: int
    """In bits, from the start of the whole record."""
    size: int
    """In bits. Of a flexible array it is 0."""
    bit_field: bool = False
    union: bool = False
    """Whether what is inside overlaps."""
    inside: tuple[Node, ...] = field(default=())
    """Of an array's elements only the first is shown."""

    @property
    def hole(self) -> bool:
        return not self.type


def layout(abi: Abi, key: str, *, expand: bool = False) -> Node:
    """The layout of a record; with ``expand`` also of the records with names that are in it."""
    return _Tree(abi, expand).record(abi.records[key], key.rpartition(" ")[2], key, 0)


class _Tree:
    def __init__(self, abi: Abi, expand: bool) -> None:
        self._abi = abi
        self._layouts = Layouts.of_abi(abi)
        self._expand = expand

    def record(self, record: Record, name: str, spelt: str, base: int) -> Node:
        size = self._abi.layouts[record.key].size * 8
        inside = tuple(self._inside(record, base, size))
        return Node(name, spelt, base, size, union=record.kind == "union", inside=inside)

    def _inside(self, record: Record, base: int, size: int) -> Iterator[Node]:
        end = base
        for member, start in zip(
            record.members, self._abi.layouts[record.key].offsets, strict=True
        ):
            offset = base + start
            if member.bits is not None:
                if not member.name:
                    continue  # it is as good as a hole
                node = Node(member.name, spell(member.type), offset, member.bits, bit_field=True)
            else:
                node = self._member(member.name, member.type, offset)
            if record.kind == "struct":
                yield from _hole(end, offset)
                end = offset + node.size
            yield node
        if record.kind == "struct":
            yield from _hole(end, base + size)

    def _member(self, name: str, type: Type, offset: int) -> Node:
        size = self._layouts.of(type)[0] * 8
        dimensions, element = "", type
        while isinstance(element, Array):
            dimensions += f"[{'' if element.count is None else element.count}]"
            element = element.of
        record = self._abi.records.get(element.name) if isinstance(element, Named) else None
        if record is None or not (record.unnamed or self._expand):
            return Node(name, spell(type), offset, size)
        spelt = (record.kind if record.unnamed else record.key) + dimensions
        inner = self.record(record, name, spelt, offset)
        return Node(name, spelt, offset, size, union=inner.union, inside=inner.inside)


def _hole(end: int, start: int) -> Iterator[Node]:
    if start > end:
        yield Node("", "", end, start - end)
