"""What two states do not have alike, told with the names of bits and the places of bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from vmm_arch.state_forms import Part

_LONG: Final = 128
"""Bits of the longest value that is printed whole."""


class Difference:
    """An element that two states do not have alike; None where a state does not have it."""

    __slots__ = ("bits", "label", "mine", "name", "theirs")

    def __init__(
        self,
        name: str,
        mine: int | None,
        theirs: int | None,
        bits: Mapping[str, int],
        label: str = "",
    ) -> None:
        self.name = name
        self.label = label or name
        """The name, and what else it is known by."""
        self.mine = mine
        self.theirs = theirs
        self.bits = bits
        """The numbers of the value's bits, by their names, as far as they have names."""

    def __str__(self) -> str:
        text = f"{self.label}: {shown(self.mine)} -> {shown(self.theirs)}"
        if self.mine is not None and self.theirs is not None:
            if named := ", ".join(self.changed_bits(self.mine, self.theirs)):
                text += f" ({named})"
            elif max(self.mine, self.theirs).bit_length() > _LONG:
                text += f" ({', '.join(_changed_bytes(self.mine, self.theirs))})"
        return text

    def changed_bits(self, mine: int, theirs: int) -> Iterator[str]:
        """The names of bits that one does not have, ``-``, and of those that it has more, ``+``."""
        for name, number in self.bits.items():
            if (mine ^ theirs) >> number & 1:
                yield f"{'+' if theirs >> number & 1 else '-'}{name}"

    def __repr__(self) -> str:
        return f"<Difference {self}>"


def split_parts(value: int, parts: Mapping[str, Part]) -> tuple[dict[str, int], int]:
    """The parts of a long value by their names, and the value without them."""
    found: dict[str, int] = {}
    rest = value
    for name, (first, size) in parts.items():
        found[name] = value >> 8 * first & (1 << 8 * size) - 1
        rest &= ~(found[name] << 8 * first)
    return found, rest


def differences_of_parts(
    name: str, mine: int, theirs: int, parts: Mapping[str, Part]
) -> Iterator[Difference]:
    """What differs in a long element, by its parts; in the rest of it as bytes."""
    (left, rest), (right, other_rest) = split_parts(mine, parts), split_parts(theirs, parts)
    for part in parts:
        if left[part] != right[part]:
            yield Difference(part, left[part], right[part], {})
    if rest != other_rest:
        yield Difference(name, rest, other_rest, {})


class Diff(tuple[Difference, ...]):
    """The differences of two states; empty, and so false, if there are none."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "no differences"


def shown(value: int | None) -> str:
    """An element's value for people; a long one is only measured."""
    if value is None:
        return "nothing"
    if value.bit_length() <= _LONG:
        return hex(value)
    return f"{-(-value.bit_length() // 8)} bytes"


def _changed_bytes(mine: int, theirs: int) -> Iterator[str]:
    """Where two long values differ, as ranges of bytes; at most three of them."""
    differ = mine ^ theirs
    found = 0
    at = 0
    while differ:
        if found == 3:
            yield "…"
            return
        skip = ((differ & -differ).bit_length() - 1) // 8
        differ >>= 8 * skip
        at += skip
        length = 0
        while differ & 0xFF:
            differ >>= 8
            length += 1
        yield f"bytes {at} to {at + length - 1}" if length > 1 else f"byte {at}"
        at += length
        found += 1
