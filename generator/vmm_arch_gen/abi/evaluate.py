"""The value of an expression at given arguments, by C's rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from vmm_arch_gen.abi.expressions import (
    ARITHMETIC,
    COMPARISONS,
    SHIFTS,
    Argument,
    Binary,
    Cast,
    Choice,
    Expression,
    Number,
    Offset,
    SizeOf,
    Unary,
    calculate,
)
from vmm_arch_gen.abi.integers import IntType

Function = Callable[[Sequence[int]], int]
"""Takes an expression's arguments in order: numbers as C's conversions leave them, sizes, offsets.

Raises Undefined where C gives no result."""


def function(value: Expression, arguments: Sequence[str]) -> Function:
    """The expression as a function, which is much faster than to walk it for each value."""
    return _function(value, {name: at for at, name in enumerate(arguments)})


def _function(value: Expression, places: Mapping[str, int]) -> Function:
    match value:
        case Number(number):
            return lambda _: number
        case Argument(name) | SizeOf(name) | Offset(name=name):
            at = places[name]
            return lambda arguments: arguments[at]
        case Cast(to, operand):
            return _converted(operand, to, places)
        case Unary(op, operand, type):
            inner = _function(operand, places)
            if op == "-":
                return lambda arguments: type.result(-inner(arguments))
            return lambda arguments: type.result(~inner(arguments))
        case Choice(condition, yes, no, type):
            test = _function(condition, places)
            first, second = _converted(yes, type, places), _converted(no, type, places)
            return lambda a: first(a) if test(a) else second(a)
        case Binary(op, left, right) if op in SHIFTS:
            shifted, count, type = _function(left, places), _function(right, places), left.type
            return lambda a: calculate(op, shifted(a), count(a), type)
        case Binary(op, left, right) if op in (*ARITHMETIC, *COMPARISONS):
            one, other, type = _function(left, places), _function(right, places), value.operands
            if op in _SIMPLE and left.type == right.type == type:
                return _SIMPLE[op](one, other)
            return lambda a: calculate(op, one(a), other(a), type)
        case Binary(op, left, right):
            one, other = _function(left, places), _function(right, places)
            if op == "&&":
                return lambda a: int(bool(one(a) and other(a)))
            return lambda a: int(bool(one(a) or other(a)))
    raise AssertionError(value)


_SIMPLE: Mapping[str, Callable[[Function, Function], Function]] = {
    "&": lambda one, other: lambda a: one(a) & other(a),
    "|": lambda one, other: lambda a: one(a) | other(a),
    "^": lambda one, other: lambda a: one(a) ^ other(a),
}
"""What cannot leave the type of its operands."""


def _converted(value: Expression, type: IntType, places: Mapping[str, int]) -> Function:
    inner = _function(value, places)
    if value.type == type:
        return inner
    return lambda arguments: type.wrap(inner(arguments))
