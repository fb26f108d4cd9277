"""The arguments at which macros are proven and compared: edges, and others by chance with a fixed seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from vmm_arch_gen.abi.evaluate import function
from vmm_arch_gen.abi.expressions import (
    COMPARISONS,
    Binary,
    Expression,
    Number,
    Offset,
    SizeOf,
    uses,
    walk,
)
from vmm_arch_gen.abi.integers import U64, Undefined
from vmm_arch_gen.abi.layout import LayoutError, Layouts
from vmm_arch_gen.abi.model import MacroFunction
from vmm_arch_gen.abi.types import Array, Named, Scalar, Type

COUNT = 256
"""At how many tuples of arguments a macro is proven, unless C defines it at fewer."""
_TRIES = 16 * COUNT
_SMALL = 80
"""Numbers below this are register numbers, shift counts and the like."""
_ALL = 128
"""All numbers below this are tried, where there is one argument only."""
_FEW = 40
"""How many elements of an array stand for all of them."""

_EDGES = sorted(
    {edge & U64.mask for bit in range(65) for edge in ((1 << bit) - 1, 1 << bit, (1 << bit) + 1)}
)


@dataclass(frozen=True)
class Sample:
    """One call of a macro."""

    texts: tuple[str, ...]
    """Its arguments in C."""
    values: tuple[int, ...]
    """What they are to the expression: numbers, offsets, sizes."""
    result: int


Choices = Sequence[tuple[str, int]]
"""What may be given as an argument: C's text, and its value."""


class Sampler:
    """Makes samples of one target's macros."""

    def __init__(self, layouts: Layouts) -> None:
        self._layouts = layouts

    def samples(self, macro: MacroFunction, count: int = COUNT) -> tuple[Sequence[Sample], int]:
        """At most ``count`` samples, and how many more were tried that C gives no result for."""
        choices: dict[str, Choices] = {}
        for name, use in uses(macro.value).items():
            if isinstance(use, SizeOf):
                choices[name] = self._types
            elif isinstance(use, Offset):
                choices[name] = sorted(set(self.members(use.record)))
        return _samples(macro, count, choices) if choices else _samples_of_numbers(macro, count)

    @cached_property
    def _types(self) -> Choices:
        names = [*_C_TYPES, *self._layouts.records, *self._layouts.typedefs]
        found = [(f"char[{size}]", size) for size in _LARGE]
        for name in names:
            c_type: Type = Scalar(name) if name in _C_TYPES else Named(name)
            if "." in name or "<" in name:
                continue
            try:
                found.append((name, self._layouts.of(c_type)[0]))
            except LayoutError:  # it has no size
                continue
        return found

    def members(self, key: str) -> Iterator[tuple[str, int]]:
        """The paths of a record's members, those inside them included, with their offsets in bytes."""
        yield from self._inside(Named(key), "", 0)

    def _inside(self, c_type: Type, path: str, base: int) -> Iterator[tuple[str, int]]:
        c_type = self._layouts.resolve(c_type)
        match c_type:
            case Array(of, count):
                size = self._layouts.of(of)[0]
                indices = range(count or 0)
                for at in indices if len(indices) <= _FEW else (*indices[: _FEW - 1], indices[-1]):
                    yield f"{path}[{at}]", base + at * size
                    yield from self._inside(of, f"{path}[{at}]", base + at * size)
            case Named(key) if key in self._layouts.records:
                record = self._layouts.records[key]
                offsets = self._layouts.record(key).offsets
                for member, offset in zip(record.members, offsets, strict=True):
                    if member.bits is not None:
                        continue  # it has no offset in C
                    here = f"{path}.{member.name}".lstrip(".") if member.name else path
                    if member.name:
                        yield here, base + offset // 8
                    yield from self._inside(member.type, here, base + offset // 8)


@cache
def _samples_of_numbers(macro: MacroFunction, count: int) -> tuple[Sequence[Sample], int]:
    """The same for all targets that have the macro, which many have."""
    return _samples(macro, count, {})


def _samples(
    macro: MacroFunction, count: int, choices: Mapping[str, Choices]
) -> tuple[Sequence[Sample], int]:
    compute = function(macro.value, macro.parameters)
    found: list[Sample] = []
    undefined = 0
    for arguments in _candidates(macro, choices):
        values = tuple(value for _, value in arguments)
        try:
            result = compute(values)
        except Undefined:
            undefined += 1
            continue
        found.append(Sample(tuple(text for text, _ in arguments), values, result))
        if len(found) == count:
            break
    return tuple(found), undefined


_C_TYPES = ("char", "short", "int", "unsigned int", "long", "unsigned long", "long long")
_LARGE = 0x12345, 0x7654321
"""Bytes in arrays that stand for large types."""


def _candidates(
    macro: MacroFunction, choices: Mapping[str, Choices]
) -> Iterator[tuple[tuple[str, int], ...]]:
    chance = random.Random(macro.name)
    numbers = tuples(macro.value, len(macro.parameters), chance)
    only = [choices[name] for name in macro.parameters if name in choices]
    if len(macro.parameters) == len(only) == 1:  # all that there are
        yield from ((choice,) for choice in only[0])
        return
    for values in numbers:
        yield tuple(
            chance.choice(choices[name]) if name in choices else (f"{value:#x}ULL", value)
            for name, value in zip(macro.parameters, values, strict=True)
        )


def tuples(value: Expression, count: int, chance: random.Random) -> Iterator[tuple[int, ...]]:
    """Different tuples of numbers for an expression with so many arguments, small ones first."""
    if count == 0:
        yield ()
        return
    own = {part.value for part in walk(value) if isinstance(part, Number)}
    near = {v + d & U64.mask for v in own for d in (-1, 0, 1)} | {~v & U64.mask for v in own}
    edges = sorted(near) + _EDGES
    compared = sorted({v & U64.mask for v in _compared(value)} | {0})
    seen: set[tuple[int, ...]] = set()
    if count == 1:
        seen = {(number,) for number in range(_ALL)}
        yield from sorted(seen)

    def below(limit: int) -> int:
        return int(chance.random() * limit)  # five times as fast as what there is for it

    def wide() -> int:
        return chance.getrandbits(1 + below(64))

    for number in range(_TRIES if count > 1 else _TRIES // 4):
        match number % (5 if len(compared) > 1 else 4):
            case 4:
                found = tuple(compared[below(len(compared))] for _ in range(count))
            case 0:
                found = tuple(below(_SMALL) for _ in range(count))
            case 1:
                found = tuple(edges[below(len(edges))] for _ in range(count))
            case 2:
                found = tuple(wide() for _ in range(count))
            case 3:  # one of them alone
                at = below(count)
                found = tuple(wide() if n == at else below(_SMALL) for n in range(count))
        if found not in seen:
            seen.add(found)
            yield found


def _compared(value: Expression) -> Iterator[int]:
    """The numbers that parts of an expression are compared with."""
    for part in walk(value):
        if isinstance(part, Binary) and part.op in COMPARISONS and isinstance(part.right, Number):
            yield part.right.value
