"""Changes made on purpose to macros with arguments, and what ``diff`` has to say about them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from mutations import Mutated, fresh_name, instead, mutation, pick, without
from string_mutations import MUTATIONS as MUTATIONS
from vmm_arch_gen.abi import expressions as e
from vmm_arch_gen.abi.evaluate import function
from vmm_arch_gen.abi.expressions import (
    Argument,
    Binary,
    Cast,
    Choice,
    Expression,
    Number,
    Offset,
    SizeOf,
    Unary,
)
from vmm_arch_gen.abi.integers import TYPES, Undefined
from vmm_arch_gen.abi.layout import Layouts
from vmm_arch_gen.abi.model import Abi, MacroFunction, Omission
from vmm_arch_gen.abi.samples import Sampler
from vmm_arch_gen.compare.model import Kind

_OTHER = {
    **{op: tuple(o for o in e.BITWISE if o != op) for op in e.BITWISE},
    "<<": (">>",), ">>": ("<<",), "+": ("-", "|"), "-": ("+",), "*": ("+", "<<"), "/": ("*", "%"), "%": ("/", "&"),
    "==": ("!=",), "!=": ("==",), "<": ("<=", ">"), "<=": ("<", ">="), ">": (">=", "<"), ">=": (">", "<="),
    "&&": ("||",), "||": ("&&",),
}  # fmt: skip


def mutate(macro: MacroFunction, chance: random.Random, layouts: Layouts) -> Expression | None:
    """The value with one thing in it changed, so that it is another one; None if that fails."""
    places = range(len(list(e.walk(macro.value))))
    for _ in range(20):
        change = chance.choice((_operator, _number, _cast, _argument))
        at = chance.choice(places)
        try:
            value = _rebuilt(
                macro.value, iter(places), at, partial(change, macro=macro, chance=chance)
            )
        except (Undefined, ValueError):
            continue
        if value != macro.value and not same(macro.value, value, macro.parameters, layouts):
            return value
    return None


def same(one: Expression, other: Expression, parameters: tuple[str, ...], layouts: Layouts) -> bool:
    """Whether two values are the same at many arguments, chosen otherwise than the generator does.

    Where C defines only one of them they count as the same: a compiler cannot be asked there.
    """
    chance = random.Random(2)
    numbers = sorted(
        {v.value + d & (1 << 64) - 1 for x in (one, other) for v in e.walk(x) if isinstance(v, Number) for d in (-1, 0, 1)}
    ) or [0]  # fmt: skip
    offsets = {
        name: [offset for _, offset in Sampler(layouts).members(use.record)]
        for name, use in e.uses(one).items()
        if isinstance(use, Offset)
    }
    functions = [function(value, parameters) for value in (one, other)]
    for _ in range(1000):
        arguments = tuple(
            chance.choice(
                offsets.get(name)
                or [
                    chance.getrandbits(chance.choice((3, 6, 8, 16, 32, 64))),
                    chance.choice(numbers),
                ]
            )
            for name in parameters
        )
        results: list[int | None] = []
        for compute in functions:
            try:
                results.append(compute(arguments))
            except Undefined:
                results.append(None)
        if None not in results and results[0] != results[1]:
            return False
    return one.type == other.type


def _rebuilt(
    value: Expression,
    numbers: Iterator[int],
    at: int,
    change: Callable[[Expression], Expression],
) -> Expression:
    """The value with the part of a number, as ``walk`` counts them, changed."""
    here = next(numbers) == at
    parts = [_rebuilt(part, numbers, at, change) for part in e.parts(value)]
    match value:
        case Unary(op=op):
            value = e.unary(op, *parts)
        case Cast(to=to):
            value = e.cast(to, *parts)
        case Binary(op=op):
            value = e.binary(op, *parts)
        case Choice():
            value = e.choice(*parts)
    return change(value) if here else value


def _operator(part: Expression, macro: MacroFunction, chance: random.Random) -> Expression:
    match part:
        case Binary(op, left, right):
            return e.binary(chance.choice(_OTHER[op]), left, right)
        case Unary(op, operand):
            return e.unary({"-": "~", "~": "-"}[op], operand)
        case Choice(test, yes, no):
            return e.choice(test, no, yes)
    return part


def _number(part: Expression, macro: MacroFunction, chance: random.Random) -> Expression:
    if isinstance(part, Number):
        bit = chance.randrange(max(1, min(part.value.bit_length() + 1, part.type.bits - 1)))
        return Number(part.value ^ 1 << bit, part.type)
    return part


def _cast(part: Expression, macro: MacroFunction, chance: random.Random) -> Expression:
    if isinstance(part, Cast):
        return part.operand
    return e.cast(TYPES[chance.choice(("u8", "s16", "u32", "s32"))], part)


def _argument(part: Expression, macro: MacroFunction, chance: random.Random) -> Expression:
    names = [
        name
        for name, use in e.uses(macro.value).items()
        if type(use) is type(part) and isinstance(use, Argument)
    ]
    match part:
        case Argument(name) if len(names) > 1:
            return Argument(chance.choice([other for other in names if other != name]))
        case SizeOf() | Offset():
            return e.binary("*", part, Number(2, part.type))
    return part


# -- what diff has to say ------------------------------------------------------------------------


def some_macro(abi: Abi, chance: random.Random) -> MacroFunction | None:
    taken = {o.name for o in abi.omissions}
    return pick(chance, (m for m in abi.macros if m.name not in taken))


def replaced(abi: Abi, old: MacroFunction, new: MacroFunction, kind: Kind) -> Mutated:
    return replace(abi, macros=instead(abi.macros, old, new)), {(kind, old.name)}


@mutation
def macro_removed(abi: Abi, chance: random.Random) -> Mutated | None:
    if (m := some_macro(abi, chance)) is None:
        return None
    return replace(abi, macros=without(abi.macros, m)), {(Kind.REMOVED, m.name)}


@mutation
def macro_left_out(abi: Abi, chance: random.Random) -> Mutated | None:
    if (m := some_macro(abi, chance)) is None:
        return None
    omission = Omission("macro", m.name, m.header, "has a side effect: ++")
    changed = replace(abi, macros=without(abi.macros, m), omissions=(omission,))
    return changed, {(Kind.REMOVED, m.name)}


@mutation
def macro_renamed(abi: Abi, chance: random.Random) -> Mutated | None:
    if (m := some_macro(abi, chance)) is None:
        return None
    return replaced(abi, m, replace(m, name=fresh_name(m.name)), Kind.RENAMED)


@mutation
def macro_added(abi: Abi, chance: random.Random) -> Mutated | None:
    new = MacroFunction("VMM_ARCH_NEW_MACRO", ("x",), Argument("x"), "new.h")
    return replace(abi, macros=(*abi.macros, new)), {(Kind.ADDED, new.name)}


@mutation
def macro_in_another_header(abi: Abi, chance: random.Random) -> Mutated | None:
    if (m := some_macro(abi, chance)) is None:
        return None
    return replaced(abi, m, replace(m, header="another.h"), Kind.RESTATED)


@mutation
def macro_with_other_names(abi: Abi, chance: random.Random) -> Mutated | None:
    m = pick(chance, (m for m in abi.macros if m.parameters))
    if m is None:
        return None
    names = {name: f"{name}_other" for name in m.parameters}
    new = replace(m, parameters=tuple(names.values()), value=e.renamed(m.value, names))
    return replaced(abi, m, new, Kind.RESTATED)


@mutation
def macro_takes_one_more(abi: Abi, chance: random.Random) -> Mutated | None:
    if (m := some_macro(abi, chance)) is None:
        return None
    return replaced(abi, m, replace(m, parameters=(*m.parameters, "more")), Kind.RETYPED)


@mutation
def macro_of_another_type(abi: Abi, chance: random.Random) -> Mutated | None:
    m = pick(chance, (m for m in abi.macros if m.value.type.size == 8))
    if m is None:
        return None
    return replaced(abi, m, replace(m, value=e.cast(TYPES["u32"], m.value)), Kind.RETYPED)


@mutation
def macro_of_another_value(abi: Abi, chance: random.Random) -> Mutated | None:
    if (m := some_macro(abi, chance)) is None:
        return None
    value = mutate(m, chance, Layouts.of_abi(abi))
    if value is None:
        return None
    kind = Kind.CHANGED if value.type == m.value.type else Kind.RETYPED
    if e.uses(value).keys() != e.uses(m.value).keys():
        return None  # an argument that is not used any more may have been a type
    return replaced(abi, m, replace(m, value=value), kind)


@mutation
def macro_written_otherwise(abi: Abi, chance: random.Random) -> Mutated | None:
    """With the same value: masked before it is shifted, or once more."""
    masked = (m for m in abi.macros if m.value.type == TYPES["u64"])
    m = pick(chance, (m for m in masked if isinstance(m.value, Binary) and m.value.op != "&"))
    if m is None:
        return None
    again = Binary("|", m.value, e.binary("&", m.value, Number(0xFF00, TYPES["u64"])), m.value.type)
    return replaced(abi, m, replace(m, value=again), Kind.RESTATED)
