"""Bit-fields, so that every ctypes has them in the same place.

ctypes lays them out by the rules of the machine that it runs on, in some versions wrongly. Where
all rules agree they are bit-fields of ctypes; elsewhere they are properties over bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

from vmm_arch_gen.abi.model import Member
from vmm_arch_gen.generate.ctypes_types import CType, Inexpressible, Types
from vmm_arch_gen.generate.names import member_name
from vmm_arch_gen.generate.record_fields import Field

Placed: TypeAlias = tuple[Member, int]
"""A member and where it begins, in bits."""


def in_units(run: Sequence[Placed], begin: int, limit: int, types: Types) -> list[Field]:
    """A run of neighbouring bit-fields of a struct, between the bits ``begin`` and ``limit``.

    Bit-fields that share a unit are given that unit's type; what is free in it is filled, so
    that every compiler's rules put them in the same place. Inexpressible if there are no such units.
    """
    run = [(member, start) for member, start in run if member.name]  # the rest is filled anyway
    units: list[tuple[int, int, list[Placed]]] = []
    for member, start in run:
        bits = member.bits or 0
        size = types.layouts.of(member.type)[0] * 8
        first = start // size * size
        if start + bits > first + size or first < begin or first + size > limit:
            size, first = _smallest_unit(member, start, bits, begin, limit)
        if units and first < units[-1][0] + units[-1][1]:  # of two units, one holds the other
            first, size = max(units[-1][:2], (first, size), key=lambda unit: unit[1])
            units[-1] = (first, size, [*units[-1][2], (member, start)])
        else:
            units.append((first, size, [(member, start)]))
    for (first, size, _), (following, _, _) in pairwise(units):
        if following < first + size:
            raise Inexpressible("units overlap")
    fields: list[Field] = []
    for index, (first, size, members) in enumerate(units):
        if index and size != units[index - 1][1]:
            # CPython 3.11 would let a larger unit begin where the smaller one began.
            fields.append(pad(f"_unit_{first}", first, 0))
        end = first
        for member, start in members:
            unit = types.unit(member.type, size // 8)
            if start > end:
                fields.append(_filler(end, start - end, unit))
            fields.append(Field(member_name(member), unit, "member", start, member.bits))
            end = start + (member.bits or 0)
        if end < first + size:
            fields.append(_filler(end, first + size - end, unit))
    return fields


def as_views(run: Sequence[Placed], begin: int, types: Types) -> list[Field]:
    """Bit-fields as properties, and before them the bytes that hold them, from ``begin`` on."""
    run = [(member, start) for member, start in run if member.name]
    end = max((start + (member.bits or 0) for member, start in run), default=begin)
    fields = [pad(f"_bytes_{begin // 8}", begin, -(-(end - begin) // 8))] if run else []
    for member, start in run:
        type = types.unit(member.type, 1)
        fields.append(Field(member_name(member), type, "member", start, member.bits, view=True))
    return fields


def _smallest_unit(
    member: Member, start: int, bits: int, begin: int, limit: int
) -> tuple[int, int]:
    """The size and the begin of the smallest integer that holds a bit-field, in bits."""
    for size in (8, 16, 32, 64):
        first = start // size * size
        if first >= begin and start + bits <= first + size <= limit:
            return size, first
    raise Inexpressible(f"the bit-field {member.name} shares bytes that ctypes cannot share")


def _filler(start: int, bits: int, unit: CType) -> Field:
    return Field(f"_bits_{start}", unit, "filler", start, bits)


def pad(name: str, start: int, size: int) -> Field:
    """``size`` bytes that no member has, from the bit ``start`` on."""
    return Field(name, CType("c_uint8", size, 1, (size,)), "filler", start)
