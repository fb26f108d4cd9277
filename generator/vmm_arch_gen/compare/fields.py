"""What changed inside a record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vmm_arch_gen.abi.members import RESERVED, members
from vmm_arch_gen.abi.model import Abi, Record
from vmm_arch_gen.abi.types import Type, spell
from vmm_arch_gen.compare.model import Facts, FieldChange, Kind
from vmm_arch_gen.compare.renames import renames
from vmm_arch_gen.compare.types import Meaning


@dataclass(frozen=True)
class Field:
    """A named member, and those of the unnamed type that it has."""

    name: str
    path: str
    offset: int
    """In bits, from the start of the record."""
    start: int
    """In bits, from the start of the named member around it."""
    bits: int | None
    size: int
    """In bytes."""
    type: Type
    meaning: str
    inside: tuple[Field, ...]

    @property
    def reserved(self) -> bool:
        return RESERVED.fullmatch(self.name) is not None

    def facts(self) -> Facts:
        byte, bit = divmod(self.offset, 8)
        facts: dict[str, str | int] = {"path": self.path, "type": spell(self.type), "offset": byte}
        if self.bits is not None:
            return facts | {"bit": bit, "bits": self.bits, "size": self.size}
        return facts | {"size": self.size}


def fields_of(record: Record, abi: Abi, meaning: Meaning) -> tuple[Field, ...]:
    """The fields of a record, in its order."""
    places = list(members(record, abi.records, meaning.layouts))

    def children(at: int, depth: int, base: int) -> Iterator[Field]:
        while at < len(places) and places[at].depth >= depth:
            place = places[at]
            at += 1
            if place.depth > depth:
                continue  # it was yielded inside the one before
            member = place.member
            yield Field(
                member.name,
                place.path.replace("[0]", "[]"),
                place.offset,
                place.offset - base,
                member.bits,
                meaning.layouts.of(member.type)[0],
                member.type,
                meaning.of(member.type),
                tuple(children(at, depth + 1, place.offset)),
            )

    return tuple(children(0, 0, 0))


def shape(fields: Sequence[Field]) -> tuple[object, ...]:
    """What a record still has when only its name and those of its types change."""
    return tuple((f.name, f.offset, f.bits, f.size, shape(f.inside)) for f in fields)


def compare_fields(old: Sequence[Field], new: Sequence[Field]) -> Iterator[FieldChange]:
    """The fields that changed and those that did not, in the order of the offsets."""
    before = {field.name: field for field in old}
    after = {field.name: field for field in new}
    renamed = renames(
        {name: _same_but_for_its_name(f) for name, f in before.items() if name not in after},
        {name: _same_but_for_its_name(f) for name, f in after.items() if name not in before},
        alike=0,
    )
    changes: list[tuple[int, list[FieldChange]]] = []
    for field in old:
        successor = after.get(renamed.get(field.name, field.name))
        if successor is None:
            kind = Kind.RESTATED if field.reserved else Kind.REMOVED
            change = [FieldChange(kind, field.path, field.facts(), None)]
        else:
            kind_or_none = Kind.RENAMED if field.name in renamed else _kind(field, successor)
            itself = FieldChange(kind_or_none, successor.path, field.facts(), successor.facts())
            change = [itself, *compare_fields(field.inside, successor.inside)]
        changes.append(((successor or field).offset, change))
    for field in new:
        if field.name not in before and field.name not in renamed.values():
            added = FieldChange(Kind.ADDED, field.path, None, field.facts())
            changes.append((field.offset, [added, *compare_fields((), field.inside)]))
    for _, group in sorted(changes, key=lambda item: item[0]):
        yield from group


def _same_but_for_its_name(field: Field) -> tuple[object, ...]:
    # Space that is kept for later and gets a name is no renamed field.
    return field.start, field.bits, field.meaning, shape(field.inside), field.reserved


def _kind(old: Field, new: Field) -> Kind | None:
    if (old.bits or old.size) != (new.bits or new.size):
        kind = Kind.RESIZED
    elif old.meaning != new.meaning or (old.bits is None) != (new.bits is None):
        kind = Kind.RETYPED
    elif old.start != new.start:
        kind = Kind.MOVED
    else:
        return None if spell(old.type) == spell(new.type) or old.inside else Kind.RESTATED
    return Kind.RESTATED if old.reserved else kind
