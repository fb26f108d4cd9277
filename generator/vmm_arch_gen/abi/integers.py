"""C's integer types: ranges, promotions, conversions, and the types of literals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


class Undefined(ValueError):
    """C gives no result; the message says what would have to be done: ``it divides by zero``."""


@dataclass(frozen=True)
class IntType:
    """An integer type.

    Which of two types of one size it is (long, long long) cannot change a value.
    """

    size: int
    """In bytes."""
    signed: bool

    @cached_property
    def bits(self) -> int:
        return self.size * 8

    @cached_property
    def mask(self) -> int:
        return (1 << self.bits) - 1

    @cached_property
    def minimum(self) -> int:
        return -(1 << self.bits - 1) if self.signed else 0

    @cached_property
    def maximum(self) -> int:
        return self.mask >> self.signed

    @property
    def name(self) -> str:
        """As kernels call it: ``u64``, ``s32``."""
        return f"{'s' if self.signed else 'u'}{self.bits}"

    def holds(self, value: int) -> bool:
        return self.minimum <= value <= self.maximum

    def wrap(self, value: int) -> int:
        """Convert a value to this type, as two's complement does."""
        value &= self.mask
        return value - self.mask - 1 if value > self.maximum else value

    def result(self, value: int) -> int:
        """What arithmetic in this type gives: unsigned it wraps, signed it must not overflow."""
        if self.signed and not self.holds(value):
            raise Undefined("it overflows")
        return self.wrap(value)

    @property
    def promoted(self) -> IntType:
        """The type that an operator sees: int, for what is smaller."""
        return self if self.size >= 4 else S32


S32, U32, S64, U64 = (IntType(size, signed) for size in (4, 8) for signed in (True, False))
TYPES = {
    type.name: type
    for size in (1, 2, 4, 8, 16)
    for type in (IntType(size, True), IntType(size, False))
}
"""By name."""
SUFFIXES = {"": S32, "U": U32, "LL": S64, "ULL": U64}
"""The type that a literal has at least, by its suffix."""


def common(left: IntType, right: IntType) -> IntType:
    """C's usual arithmetic conversions, for promoted types."""
    size = max(left.size, right.size)
    return IntType(size, all(type.signed for type in (left, right) if type.size == size))


def literal_type(value: int, least: IntType = S32) -> IntType | None:
    """The type of a hexadecimal literal with the suffix for ``least``; None if no type holds it."""
    for type in (S32, U32, S64, U64):
        if type.size >= least.size and (type.signed <= least.signed) and type.holds(value):
            return type
    return None


def quotient(a: int, b: int) -> int:
    """``a / b``: C rounds towards zero, Python towards minus infinity."""
    if b == 0:
        raise Undefined("it divides by zero")
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
