"""The members of a record as C reaches them: through types without a name as if they were not there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vmm_arch_gen.abi.layout import Layouts
from vmm_arch_gen.abi.model import Member, Record
from vmm_arch_gen.abi.types import Array, Named, Type

RESERVED = re.compile(r"_*(pad(ding)?|reserved|rsvd|resv|unused|spare|dummy)_?\d*", re.IGNORECASE)
"""What members are called that keep space for later: to use that space is no breaking change."""


@dataclass(frozen=True)
class Place:
    """A member that C can name, from a record that it can name."""

    path: str
    """``io.direction``; of the elements of an array the first: ``entries[0].index``."""
    offset: int
    """In bits, from the start of the record."""
    member: Member
    depth: int
    """How many named members it is inside of."""


def members(record: Record, records: Mapping[str, Record], layouts: Layouts) -> Iterator[Place]:
    """The named members of a record, each before those of the unnamed type that it has."""
    yield from _members(record, records, layouts, "", 0, 0)


def _members(
    record: Record,
    records: Mapping[str, Record],
    layouts: Layouts,
    path: str,
    base: int,
    depth: int,
) -> Iterator[Place]:
    for member, offset in zip(record.members, layouts.record(record.key).offsets, strict=True):
        here = path + member.name
        if member.name:
            yield Place(here, base + offset, member, depth)
        inner, elements = unnamed_record(member.type, records)
        if inner is not None:
            deeper = f"{here}{'[0]' * elements}." if member.name else path
            yield from _members(
                inner, records, layouts, deeper, base + offset, depth + bool(member.name)
            )


def unnamed_record(type: Type, records: Mapping[str, Record]) -> tuple[Record | None, int]:
    """The unnamed record that a type is, and of how many dimensions of array it is an element."""
    elements = 0
    while isinstance(type, Array):
        type, elements = type.of, elements + 1
    record = records.get(type.name) if isinstance(type, Named) else None
    return (record, elements) if record is not None and record.unnamed else (None, 0)
