"""The value of a macro with arguments: an integer expression with C's types, in a canonical form.

The functions of this module make expressions, and bring them into that form as they do:

- what has no arguments in it is one number: nested macros, ``sizeof`` and enumerators are gone
- numbers in a chain of one operator are merged: ``A | x | B`` is ``C | x``
- no conversion is written that C makes by itself, no number has a suffix that changes nothing
- ``!x`` is ``x == 0``, and every condition is a comparison

So two spellings of one meaning are one expression, mostly; and a difference is one of values, mostly.
Nothing is rearranged that C would compute otherwise: signed sums stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vmm_arch_gen.abi.integers import (
    S32,
    U64,
    IntType,
    Undefined,
    common,
    literal_type,
    quotient,
)

BITWISE = ("&", "|", "^")
SHIFTS = ("<<", ">>")
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
LOGICAL = ("&&", "||")
ARITHMETIC = ("+", "-", "*", "/", "%", *BITWISE)


@dataclass(frozen=True, slots=True)
class Number:
    value: int
    type: IntType


@dataclass(frozen=True, slots=True)
class Argument:
    """The value of an argument."""

    name: str
    type: IntType = U64


@dataclass(frozen=True, slots=True)
class SizeOf:
    """The size of the type that is given as an argument."""

    name: str
    type: IntType


@dataclass(frozen=True, slots=True)
class Offset:
    """The offset in a record of the member that is given as an argument."""

    record: str
    """Its key."""
    name: str
    type: IntType


@dataclass(frozen=True, slots=True)
class Unary:
    op: str
    """``-`` or ``~``."""
    operand: Expression
    type: IntType


@dataclass(frozen=True, slots=True)
class Binary:
    op: str
    left: Expression
    right: Expression
    type: IntType

    @property
    def operands(self) -> IntType:
        """What both operands are converted to first; of a shift, the left one."""
        if self.op in COMPARISONS:
            return common(self.left.type, self.right.type)
        return self.type


@dataclass(frozen=True, slots=True)
class Choice:
    """``condition ? yes : no``."""

    condition: Expression
    yes: Expression
    no: Expression
    type: IntType


@dataclass(frozen=True, slots=True)
class Cast:
    to: IntType
    operand: Expression

    @property
    def type(self) -> IntType:
        return self.to.promoted


Parameter = Argument | SizeOf | Offset
Expression = Number | Parameter | Unary | Binary | Choice | Cast
Use = Literal["number", "type", "member"]


def parts(value: Expression) -> tuple[Expression, ...]:
    """What an expression is made of, one level down."""
    match value:
        case Unary(operand=operand) | Cast(operand=operand):
            return (operand,)
        case Binary(left=left, right=right):
            return left, right
        case Choice(condition, yes, no):
            return condition, yes, no
    return ()


def walk(value: Expression) -> Iterator[Expression]:
    """An expression and everything in it."""
    yield value
    for part in parts(value):
        yield from walk(part)


def uses(value: Expression) -> dict[str, Parameter]:
    """What each argument is used as; ValueError if one is used as two things."""
    found: dict[str, Parameter] = {}
    for part in walk(value):
        if (
            isinstance(part, Argument | SizeOf | Offset)
            and found.setdefault(part.name, part) != part
        ):
            raise ValueError(f"uses {part.name} as two things")
    return found


def renamed(value: Expression, names: Mapping[str, str]) -> Expression:
    """The expression with its arguments called otherwise."""
    match value:
        case Argument(name) | SizeOf(name) | Offset(name=name):
            return replace(value, name=names[name])
        case Unary(operand=operand) | Cast(operand=operand):
            return replace(value, operand=renamed(operand, names))
        case Binary(left=left, right=right):
            return replace(value, left=renamed(left, names), right=renamed(right, names))
        case Choice(condition, yes, no):
            test, yes, no = (renamed(part, names) for part in (condition, yes, no))
            return replace(value, condition=test, yes=yes, no=no)
    return value


# -- making expressions -----------------------------------------------------------------------


def cast(to: IntType, operand: Expression) -> Expression:
    if isinstance(operand, Number):
        return Number(to.wrap(operand.value), to.promoted)
    if to == operand.type:
        return operand
    if isinstance(operand, Cast) and operand.to.size >= to.size:
        return cast(to, operand.operand)
    return Cast(to, operand)


def unary(op: str, operand: Expression) -> Expression:
    match op:
        case "+":
            return operand
        case "!":
            return binary("==", operand, Number(0, S32))
        case "-" | "~" if isinstance(operand, Number):
            value = -operand.value if op == "-" else ~operand.value
            return Number(operand.type.result(value), operand.type)
        case "-" | "~":
            return Unary(op, operand, operand.type)
    raise ValueError(f"the operator {op} gives no integer")


def condition(value: Expression) -> Expression:
    """A value that is only asked whether it is zero."""
    if isinstance(value, Binary) and value.op in (*COMPARISONS, *LOGICAL):
        return value
    return binary("!=", value, Number(0, S32))


def choice(test: Expression, yes: Expression, no: Expression) -> Expression:
    type = common(yes.type, no.type)
    test = condition(test)
    if isinstance(test, Number):
        return cast(type, yes if test.value else no)
    yes = _least(yes, no.type, type)
    no = _least(no, yes.type, type)
    return Choice(test, yes, no, type)


def binary(op: str, left: Expression, right: Expression) -> Expression:
    if op in LOGICAL:
        return _logical(op, condition(left), condition(right))
    if isinstance(left, Number) and isinstance(right, Number):
        type = left.type if op in SHIFTS else common(left.type, right.type)
        result = S32 if op in COMPARISONS else type
        return Number(calculate(op, left.value, right.value, type), result)
    if op in SHIFTS:
        if isinstance(right, Number):
            _count(right.value, left.type)
            if right.value == 0:
                return left
            right = Number(right.value, S32)
        return Binary(op, left, right, left.type)
    type = common(left.type, right.type)
    left = _bare(left, right.type, type)
    right = _bare(right, left.type, type)
    left = _least(left, right.type, type)
    right = _least(right, left.type, type)
    if op in COMPARISONS:
        return _comparison(op, left, right)
    if op in BITWISE:
        return _chain(op, left, right, type)
    if op in ("+", "-", "*") and not type.signed:
        return (_chain if op == "*" else _sum)(op, left, right, type)
    if op not in ARITHMETIC:
        raise ValueError(f"the operator {op} gives no integer")
    if op in ("/", "%") and isinstance(right, Number) and right.value == 0:
        raise Undefined("it divides by zero")
    return Binary(op, left, right, type)


def calculate(op: str, a: int, b: int, type: IntType) -> int:
    """What an operator other than a logical one makes of values, in their common type.

    Of a shift ``type`` is the type of its left operand. Undefined says why there is no result.
    """
    if op in SHIFTS:
        _count(b, type)
        return type.result(a << b) if op == "<<" else a >> b
    a, b = type.wrap(a), type.wrap(b)
    match op:
        case "+":
            value = a + b
        case "-":
            value = a - b
        case "*":
            value = a * b
        case "/":
            value = quotient(a, b)
        case "%":
            value = a - type.result(quotient(a, b)) * b
        case "&":
            value = a & b
        case "|":
            value = a | b
        case "^":
            value = a ^ b
        case "==":
            return int(a == b)
        case "!=":
            return int(a != b)
        case "<":
            return int(a < b)
        case "<=":
            return int(a <= b)
        case ">":
            return int(a > b)
        case ">=":
            return int(a >= b)
        case _:
            raise ValueError(f"the operator {op} gives no integer")
    return type.result(value)


# -- the canonical form -----------------------------------------------------------------------


def _count(count: int, type: IntType) -> None:
    if not 0 <= count < type.bits:
        raise Undefined(f"it shifts {type.bits} bits by {count}")


def _bare(operand: Expression, other: IntType, type: IntType) -> Expression:
    """An operand without a cast that C makes by itself, since the other operand asks for it."""
    if isinstance(operand, Cast) and operand.to == type == common(operand.operand.type, other):
        return operand.operand
    return operand


def _least(operand: Expression, other: IntType, type: IntType) -> Expression:
    """A number with the least suffix that leaves the type of its operator as it is."""
    if not isinstance(operand, Number):
        return operand
    value = type.wrap(operand.value)
    plain = literal_type(value) if value >= 0 else operand.type
    if plain is not None and common(plain, other) == type:
        return Number(value, plain)
    return Number(value, type)


_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


def _comparison(op: str, left: Expression, right: Expression) -> Expression:
    if isinstance(left, Number):
        op, left, right = _MIRRORED.get(op, op), right, left
    if isinstance(left, Binary) and op in ("==", "!=") and right == Number(0, S32):
        if left.op in COMPARISONS:  # !(a < b), !!(a < b)
            inner = left.op if op == "!=" else _OPPOSITE[left.op]
            return Binary(inner, left.left, left.right, S32)
        if left.op in LOGICAL and op == "!=":
            return left
    return Binary(op, left, right, S32)


def _logical(op: str, left: Expression, right: Expression) -> Expression:
    if isinstance(left, Number):
        return right if bool(left.value) == (op == "&&") else Number(int(op == "||"), S32)
    if isinstance(right, Number) and bool(right.value) == (op == "&&"):
        return left
    return Binary(op, left, right, S32)


_NEUTRAL = {"|": 0, "^": 0, "*": 1, "&": -1}


def _chain(op: str, left: Expression, right: Expression, type: IntType) -> Expression:
    """``a | b | c``, with its numbers merged."""
    terms: list[tuple[str, Expression]] = []
    merged = _NEUTRAL[op]
    for term in (*_terms(op, left, type), *_terms(op, right, type)):
        if isinstance(term, Number):
            merged = calculate(op, merged, term.value, type)
        else:
            terms.append((op, term))
    merged = type.wrap(merged)
    if merged != type.wrap(_NEUTRAL[op]):
        terms.insert(_place(op, merged, terms, type), (op, Number(merged, type)))
    return _left_to_right(terms, type)


_BASE = 256
"""A number that is less is not what something is based on."""


def _place(op: str, number: int, terms: Sequence[tuple[str, Expression]], type: IntType) -> int:
    """Where the number of a chain stands: a factor or mask behind all else, a base before it."""
    if op in ("*", "&"):
        return len(terms)
    types = [term.type for _, term in terms[:2]]
    behind = number < _BASE and common(types[0], types[-1]) == type
    return len(terms) if behind else 0


def _terms(op: str, value: Expression, type: IntType) -> Iterator[Expression]:
    if isinstance(value, Binary) and value.op == op and value.type == type:
        yield from _terms(op, value.left, type)
        yield from _terms(op, value.right, type)
    else:
        yield value


def _sum(op: str, left: Expression, right: Expression, type: IntType) -> Expression:
    """A sum without a sign: ``a + 16 - b - 4`` is ``a - b + 12``, ``a * 2 + a`` is ``a * 3``."""
    total = 0
    factors: dict[Expression, int] = {}
    for sign, term in (*_addends(1, left, type), *_addends(1 if op == "+" else -1, right, type)):
        if isinstance(term, Number):
            total += sign * term.value
        else:
            factor, base = _factor(term, type)
            factors[base] = factors.get(base, 0) + sign * factor
    terms: list[tuple[str, Expression]] = []
    for base, factor in factors.items():
        factor = type.wrap(factor)
        minus = factor > type.maximum >> 1
        factor = type.wrap(-factor) if minus else factor
        if factor:
            term = _chain("*", base, Number(factor, type), type) if factor > 1 else base
            terms.append(("-" if minus else "+", term))
    total = type.wrap(total)
    if not total and terms and terms[0][0] == "-":  # begin with what is added, if anything is
        terms = sorted(terms, key=lambda term: term[0] == "-")
    if not terms or terms[0][0] == "-":
        terms.insert(0, ("+", Number(total, type)))
    elif total > type.maximum >> 1:  # a negative one
        terms.append(("-", Number(type.wrap(-total), type)))
    elif total:
        terms.insert(_place("+", total, terms, type), ("+", Number(total, type)))
    return _left_to_right(terms, type)


def _addends(sign: int, value: Expression, type: IntType) -> Iterator[tuple[int, Expression]]:
    if isinstance(value, Binary) and value.op in ("+", "-") and value.type == type:
        yield from _addends(sign, value.left, type)
        yield from _addends(-sign if value.op == "-" else sign, value.right, type)
    else:
        yield sign, value


def _factor(term: Expression, type: IntType) -> tuple[int, Expression]:
    """A term as a number times something else, where that has a value whatever the arguments."""
    if (
        isinstance(term, Binary)
        and (term.op, term.type) == ("*", type)
        and isinstance(term.right, Number)
        and all(isinstance(part, Argument | SizeOf | Offset | Cast) for part in walk(term.left))
    ):
        return term.right.value, cast(type, term.left) if term.left.type != type else term.left
    return 1, term


def _left_to_right(terms: Sequence[tuple[str, Expression]], type: IntType) -> Expression:
    """A chain of operators as C reads it, all of them of one type."""
    (_, value), *others = terms
    for at, (op, term) in enumerate(others):
        if at == 0:
            if isinstance(value, Number):
                value = _least(value, term.type, type)
            if common(value.type, term.type if not isinstance(term, Number) else type) != type:
                value = cast(type, value)
        value = Binary(op, value, _least(term, value.type, type), type)
    return value if value.type == type else cast(type, value)
