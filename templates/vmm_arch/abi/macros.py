"""What C's operators do and Python's do not: for the macros with arguments of the raw ABIs."""

from __future__ import annotations

import ctypes
import re
from typing import Any, TypeAlias

CType: TypeAlias = type[Any]
"""A ctypes type: a record of the module, a typedef, ``ctypes.c_uint64`` …"""

_STEP = r"(\w+)((?:\[\d+\])*)"  # compiled when it is first needed: modules import quicker


def shift_count(count: int, bits: int) -> int:
    """The count of a shift of so many bits; OverflowError where C leaves the result undefined."""
    if 0 <= count < bits:
        return count
    raise OverflowError(f"{bits} bits are shifted by {count}, which C leaves undefined")


def in_range(value: int, bits: int) -> int:
    """The result of arithmetic in a signed type; OverflowError where C leaves it undefined."""
    if -(1 << bits - 1) <= value < 1 << bits - 1:
        return value
    raise OverflowError(f"{value} is not an integer of {bits} bits; C leaves the result undefined")


def as_signed(value: int, bits: int) -> int:
    """A value converted to a signed type of so many bits."""
    sign = 1 << bits - 1
    return (value & (sign << 1) - 1 ^ sign) - sign


def quotient(a: int, b: int) -> int:
    """``a / b`` rounded towards zero."""
    return a // b if (a < 0) == (b < 0) else -(-a // b)


def remainder(a: int, b: int) -> int:
    """``a % b`` with the sign of ``a``."""
    return a - quotient(a, b) * b


def offset_of(record: CType, member: str) -> int:
    """The offset in bytes of a member of a record, by its path in C: ``regs.pc``, ``spsr[2]``.

    ValueError says which part of the path there is not.
    """
    inside: Any = record
    offset = 0
    for step in member.split("."):
        match = re.fullmatch(_STEP, step)
        if match is None:
            raise ValueError(f"{member!r} is not a path of members such as regs.pc or spsr[2]")
        name = (
            match[1] if hasattr(inside, match[1]) else f"{match[1]}_"
        )  # one that Python has taken
        found = _member(inside, name)
        if found is None:
            raise ValueError(f"{inside.__name__} has no member {match[1]} that has an offset")
        offset += getattr(inside, name).offset
        inside = found
        for index in map(int, re.findall(r"\d+", match[2])):
            if not issubclass(inside, ctypes.Array):
                raise ValueError(f"{match[1]} in {member!r} is not an array of so many dimensions")
            inside = inside._type_
            offset += index * ctypes.sizeof(inside)
    return offset


def _member(record: CType, name: str) -> CType | None:
    """The type of a member, which may lie in an unnamed one; None if it has no offset of its own."""
    for field in getattr(record, "_fields_", ()):
        if field[0] == name:
            return None if len(field) > 2 else field[1]
    for inner in getattr(record, "_anonymous_", ()):
        if found := _member(dict(f[:2] for f in record._fields_)[inner], name):
            return found
    return None
