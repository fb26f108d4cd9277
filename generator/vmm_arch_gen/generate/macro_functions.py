"""Macros with arguments as Python functions: the expressions, with masks only where C's types need them.

A function is C's on every Python integer: an argument means what C's conversion to ``unsigned long
long`` makes of it. That takes no mask where only low bits of the argument count, since Python's
integers have those of two's complement; so each expression is written for the bits that are asked for.
"""

from __future__ import annotations

import keyword
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field

from vmm_arch_gen.abi.expression_text import decimal_below
from vmm_arch_gen.abi.expressions import (
    COMPARISONS,
    LOGICAL,
    Argument,
    Binary,
    Cast,
    Choice,
    Expression,
    Number,
    Offset,
    SizeOf,
    Unary,
    uses,
)
from vmm_arch_gen.abi.integers import IntType
from vmm_arch_gen.abi.model import MacroFunction


@dataclass(frozen=True)
class Parameter:
    name: str
    annotation: str


@dataclass(frozen=True)
class PythonFunction:
    """A macro as the template prints it."""

    name: str
    parameters: tuple[Parameter, ...]
    documentation: str
    """Empty where the expression says it all."""
    statements: tuple[str, ...]
    header: str
    imports: frozenset[str]
    """From vmm_arch.abi.macros; and ``sizeof``, which is ctypes'."""


def python_function(
    macro: MacroFunction,
    records: Mapping[str, str],
    taken: Container[str],
    examples: Mapping[str, str],
) -> PythonFunction:
    """A macro as a function; ``taken`` are names that a parameter must not hide.

    ``records`` has the Python names of records, ``examples`` a path of a member of each.
    """
    names = {name: _parameter_name(name, taken) for name in macro.parameters}
    counting = _Writer(names, records)
    counting.exact(macro.value)
    often = {name for name, count in counting.converted.items() if count > 1}
    writer = _Writer(names, records, often)
    result = writer.exact(macro.value).text
    used = uses(macro.value)
    converted = sorted(often, key=macro.parameters.index)
    return PythonFunction(
        macro.name,
        tuple(Parameter(names[name], _annotation(used.get(name))) for name in macro.parameters),
        " ".join(_documentation(macro, names, writer, examples)),
        (*(f"{names[name]} &= {_ALL}" for name in converted), f"return {result}"),
        macro.header,
        frozenset(writer.imports | {"CType"} & {_annotation(use) for use in used.values()}),
    )


_ALL = "0xFFFFFFFFFFFFFFFF"


def _parameter_name(name: str, taken: Container[str]) -> str:
    return f"{name}_" if name in taken or keyword.iskeyword(name) else name


def _annotation(use: Expression | None) -> str:
    return {SizeOf: "CType", Offset: "str"}.get(type(use), "int")


def _documentation(
    macro: MacroFunction, names: Mapping[str, str], writer: _Writer, examples: Mapping[str, str]
) -> Iterator[str]:
    for name, use in uses(macro.value).items():
        if isinstance(use, Offset):
            record = writer.records[use.record]
            yield f"``{names[name]}`` is a member of {record}: ``{examples[use.record]}``."
        elif isinstance(use, SizeOf):
            yield f"``{names[name]}`` is a ctypes type."
    if writer.imports & {"shift_count", "in_range"}:
        yield "OverflowError where C leaves the value undefined."


@dataclass(frozen=True)
class _Text:
    """Python text, and its outermost operator; none for what needs no parentheses."""

    text: str
    op: str = ""


_PYTHON = {"&&": "and", "||": "or", "/": "//"}
_CHAINED = ("|", "^", "&", "+", "*", "and", "or")


def _joined(op: str, left: _Text, right: _Text) -> _Text:
    """Two operands, in parentheses unless everybody knows what comes first."""
    op = _PYTHON.get(op, op)
    return _Text(f"{_beside(op, left, left=True)} {op} {_beside(op, right)}", op)


def _signed(op: str, operand: _Text) -> _Text:
    """``-`` or ``~`` before an operand."""
    return _Text(f"{op}({operand.text})" if operand.op else f"{op}{operand.text}")


def _beside(op: str, operand: _Text, *, left: bool = False) -> str:
    inner = operand.op
    chained = left and ((inner == op and op in _CHAINED) or {inner, op} == {"+", "-"})
    product = op in ("+", "-") and inner in ("*", "//")
    compared = op in COMPARISONS and inner in ("+", "-", "*", "//", "%")
    joined = op in ("and", "or") and inner in COMPARISONS
    plain = not inner or chained or product or compared or joined
    return operand.text if plain else f"({operand.text})"


@dataclass
class _Writer:
    """Writes the expression of one macro."""

    names: Mapping[str, str]
    records: Mapping[str, str]
    often: Container[str] = ()
    """The arguments that a statement before has converted already."""
    converted: Counter[str] = field(default_factory=Counter)
    """How often the whole of an argument is wanted."""
    imports: set[str] = field(default_factory=set)

    def exact(self, value: Expression, decimal: int = 10) -> _Text:
        """Text for the value itself; a number below ``decimal`` is written in decimal."""
        match value:
            case Number(number):
                return _number(number, decimal)
            case Argument(name):
                self.converted[name] += 1
                if name in self.often:
                    return _Text(self.names[name])
                return _Text(f"{self.names[name]} & {_ALL}", "&")
            case SizeOf(name):
                self.imports.add("sizeof")
                return _Text(f"sizeof({self.names[name]})")
            case Offset(record, name):
                self.imports.add("offset_of")
                return _Text(f"offset_of({self.records[record]}, {self.names[name]})")
            case Cast(to, operand):
                return self._converted(operand, to, decimal)
            case Unary(op, operand, type):
                if not type.signed:
                    return _masked(self.low(value, type.bits), type)
                text = _signed(op, self.exact(operand))
                return text if op == "~" else self._in_range(text, value)
            case Choice(condition, yes, no, type):
                parts = (self._converted(part, type) for part in (yes, no))
                return _choice(self.test(condition), *parts)
            case Binary(op) if op in (*COMPARISONS, *LOGICAL):
                return _Text(f"int({self.test(value).text})")
            case Binary():
                return self._binary(value)
        raise AssertionError(value)

    def test(self, value: Expression) -> _Text:
        """Text for a condition, which may be a bool."""
        match value:
            case Binary(op, left, right) if op in LOGICAL:
                return _joined(op, self.test(left), self.test(right))
            case Binary(op) if op in COMPARISONS:
                return _joined(op, *self._operands(value))
        return self.exact(value)

    def low(self, value: Expression, bits: int, decimal: int = 10) -> _Text:
        """Text for something that has so many low bits in common with the value."""
        if bits > value.type.bits:
            return self.exact(value, decimal)
        match value:
            case Number(number) if number < 0:
                return _number(number & (1 << bits) - 1, decimal)
            case Argument(name):
                return _Text(self.names[name])
            case Cast(to, operand) if bits <= to.bits:
                return self.low(operand, bits, decimal)
            case Unary(op, operand, type) if not type.signed or op == "~":
                return _signed(op, self.low(operand, bits))
            case Choice(condition, yes, no):
                return _choice(self.test(condition), self.low(yes, bits), self.low(no, bits))
            case Binary("&", left, Number(mask)) if mask >= 0:
                few = max(1, min(bits, mask.bit_length()))
                return _joined("&", self.low(left, few), _number(mask, 10))
            case Binary("&" | "|" | "^") | Binary("+" | "-" | "*", type=IntType(signed=False)):
                before, after = _decimals(value.op)
                first = self.low(value.left, bits, before)
                return _joined(value.op, first, self.low(value.right, bits, after))
            case Binary("<<", left, right, IntType(signed=False)):
                known = right.value if isinstance(right, Number) else 0
                shifted = self.low(left, max(1, bits - known), _decimals("<<")[0])
                return _joined("<<", shifted, self._count(right, left.type))
            case Binary(">>", left, Number(count), type) if bits + count <= type.bits:
                return _joined(">>", self.low(left, bits + count), _number(count, _COUNTED))
        return self.exact(value, decimal)

    # -- parts ---------------------------------------------------------------------------------

    def _converted(self, value: Expression, to: IntType, decimal: int = 10) -> _Text:
        """The value converted to a type."""
        low, high = bounds(value)
        if to.holds(low) and to.holds(high):
            return self.exact(value, decimal)
        if isinstance(value, Number):
            return _number(to.wrap(value.value), decimal)
        if not to.signed:
            return _masked(self.low(value, to.bits), to)
        self.imports.add("as_signed")
        return _Text(f"as_signed({self.low(value, to.bits).text}, {to.bits})")

    def _operands(self, value: Binary) -> tuple[_Text, _Text]:
        """Both operands, in their common type."""
        before, after = _decimals(value.op)
        return (
            self._converted(value.left, value.operands, before),
            self._converted(value.right, value.operands, after),
        )

    def _shorter(self, *ways: Callable[[], _Text]) -> _Text:
        """The shortest of texts for one thing."""
        before = self.converted.copy(), set(self.imports)
        tried = []
        for way in ways:
            self.converted, self.imports = before[0].copy(), set(before[1])
            tried.append((way(), self.converted, self.imports))
        text, self.converted, self.imports = min(tried, key=lambda one: len(one[0].text))
        return text

    def _in_range(self, text: _Text, value: Expression) -> _Text:
        """The result of arithmetic in a signed type, which must not leave it."""
        low, high = _interval(value)
        if value.type.holds(low) and value.type.holds(high):
            return text
        self.imports.add("in_range")
        return _Text(f"in_range({text.text}, {value.type.bits})")

    def _count(self, count: Expression, type: IntType) -> _Text:
        """The count of a shift."""
        low, high = bounds(count)
        if low >= 0 and high < type.bits:
            return self.exact(count, _COUNTED)
        self.imports.add("shift_count")
        return _Text(f"shift_count({self.exact(count).text}, {type.bits})")

    def _binary(self, value: Binary) -> _Text:
        op, left, right, type = value.op, value.left, value.right, value.type
        positive = not type.signed or min(bounds(left)[0], bounds(right)[0]) >= 0
        match op:
            case "&" if isinstance(right, Number) and right.value >= 0:
                return self.low(value, max(1, right.value.bit_length()))
            case "%" if not type.signed and isinstance(right, Number) and _power(right.value):
                few = self.low(left, max(1, right.value.bit_length() - 1))
                return _joined(op, few, _number(right.value, _COUNTED))
            case "/" | "%" if not positive:
                called = "quotient" if op == "/" else "remainder"
                self.imports.add(called)
                one, other = self._operands(value)
                return self._in_range(_Text(f"{called}({one.text}, {other.text})"), value)
            case "&" | "|" | "^" if not type.signed:
                return self._shorter(
                    lambda: _masked(self.low(value, type.bits), type),
                    lambda: _joined(op, *self._operands(value)),
                )
            case "&" | "|" | "^" | "/" | "%":
                return _joined(op, *self._operands(value))
            case ">>":
                return _joined(op, self.exact(left), self._count(right, type))
        low, high = _interval(value)
        if not type.signed and not (type.holds(low) and type.holds(high)):
            return _masked(self.low(value, type.bits), type)
        if op != "<<":
            return self._in_range(_joined(op, *self._operands(value)), value)
        shifted = self.exact(left, _decimals(op)[0])
        return self._in_range(_joined(op, shifted, self._count(right, type)), value)


def _power(value: int) -> bool:
    return value.bit_count() == 1


def _decimals(op: str) -> tuple[int, int]:
    """Below what numbers on either side of an operator are written in decimal."""
    return decimal_below(op, left=True), decimal_below(op, left=False)


_COUNTED = decimal_below("<<", left=False)


def _choice(test: _Text, yes: _Text, no: _Text) -> _Text:
    before = f"({yes.text})" if yes.op == "if" else yes.text
    asked = f"({test.text})" if test.op == "if" else test.text
    return _Text(f"{before} if {asked} else {no.text}", "if")


def _masked(text: _Text, type: IntType) -> _Text:
    return _joined("&", text, _Text(f"0x{type.mask:X}"))


def _number(value: int, decimal: int) -> _Text:
    digits = str(abs(value)) if abs(value) < decimal else f"0x{abs(value):X}"
    return _Text(f"-{digits}" if value < 0 else digits)


# -- between what a value can be ------------------------------------------------------------------


def bounds(value: Expression) -> tuple[int, int]:
    """The least and the greatest value that an expression may have, or values beyond them."""
    low, high = _interval(value)
    if value.type.holds(low) and value.type.holds(high):
        return low, high
    return value.type.minimum, value.type.maximum


def _interval(value: Expression) -> tuple[int, int]:
    """The same, were the types of the operators without end."""
    match value:
        case Number(number):
            return number, number
        case Cast(to, operand):
            low, high = bounds(operand)
            return (low, high) if to.holds(low) and to.holds(high) else (to.minimum, to.maximum)
        case Unary(op, operand):
            low, high = bounds(operand)
            return (-high, -low) if op == "-" else (~high, ~low)
        case Choice(_, yes, no, type):
            ends = [*_as(yes, type), *_as(no, type)]
            return min(ends), max(ends)
        case Binary(op) if op in (*COMPARISONS, *LOGICAL):
            return 0, 1
        case Binary(op, left, right, type):
            shift = op in ("<<", ">>")
            first = bounds(left) if shift else _as(left, type)
            second = bounds(right) if shift else _as(right, type)
            return _result(op, first, second, type)
    return value.type.minimum, value.type.maximum


def _as(value: Expression, type: IntType) -> tuple[int, int]:
    low, high = bounds(value)
    return (low, high) if type.holds(low) and type.holds(high) else (type.minimum, type.maximum)


def _result(
    op: str, left: tuple[int, int], right: tuple[int, int], type: IntType
) -> tuple[int, int]:
    everything = type.minimum, type.maximum
    positive = left[0] >= 0 and right[0] >= 0
    match op:
        case "+":
            return left[0] + right[0], left[1] + right[1]
        case "-":
            return left[0] - right[1], left[1] - right[0]
        case "*":
            products = [a * b for a in left for b in right]
            return min(products), max(products)
        case "&" if right[0] >= 0 or left[0] >= 0:
            return 0, min(end for start, end in (left, right) if start >= 0)
        case "|" | "^" if positive:
            return 0, (1 << max(left[1], right[1]).bit_length()) - 1
        case "<<":
            most = min(max(right[1], 0), type.bits - 1)
            return min(left[0] << most, left[0]), max(left[1] << most, left[1])
        case ">>":
            least = max(min(right[0], type.bits - 1), 0)
            return min(left[0] >> least, left[0]) if left[0] < 0 else 0, max(left[1] >> least, -1)
        case "/" if positive and right[0] > 0:
            return left[0] // right[1], left[1] // right[0]
        case "%" if positive:
            return 0, min(left[1], max(right[1] - 1, 0))
    return everything
