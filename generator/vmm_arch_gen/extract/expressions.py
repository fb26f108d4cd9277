"""C's integer constant expressions, evaluated with C's types, ranges and conversions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pycparser import c_ast

from vmm_arch_gen.abi.model import DataModel

NUMBER = "__number_{}__"
"""What an expression calls a number that is given apart from it."""


class NotConstant(ValueError):
    """The expression is not an integer constant; the message says why."""


class UndefinedName(NotConstant):
    """The expression names something that is not declared."""

    def __init__(self, name: str) -> None:
        super().__init__(f"names {name}, which the headers do not define")
        self.name = name


@dataclass(frozen=True)
class Integer:
    """A value of an integer type that no longer promotes: int or wider.

    Which of two types of one size it is (long, long long) cannot change a value.
    """

    value: int
    size: int
    """In bytes."""
    signed: bool


def fits_int(value: int) -> bool:
    return -(1 << 31) <= value < 1 << 31


_ESCAPES = dict(zip("abfnrtv'\"?\\", "\a\b\f\n\r\t\v'\"?\\", strict=True))
_CHARACTER = re.compile(r"'(?:([^\\'])|\\([abfnrtv'\"?\\])|\\([0-7]{1,3})|\\x([0-9a-fA-F]{1,2}))'")


class Types(Protocol):
    """What the evaluator asks about the types that an expression names."""

    def sizeof(self, node: c_ast.Typename) -> int:
        """In bytes."""

    def alignof(self, node: c_ast.Typename) -> int:
        """In bytes."""

    def offsetof(self, node: c_ast.Typename, path: c_ast.Node) -> int:
        """Of a member, in bytes."""

    def sizeof_member(self, node: c_ast.Node) -> int:
        """Of an expression such as ``((struct s *)0)->member``, in bytes."""

    def cast(self, node: c_ast.Typename) -> tuple[int, bool]:
        """Of an integer type, the bytes and the signedness."""


class Evaluator:
    """Evaluates expressions over enumerators and types."""

    def __init__(
        self,
        model: DataModel,
        enumerators: Mapping[str, Integer],
        types: Types,
    ) -> None:
        self._sizes = {"int": 4, "long": model.long, "long long": 8}
        self._pointer = model.pointer
        self._signed_char = model.signed_char
        self._enumerators = enumerators
        self._types = types
        self._numbers: dict[str, str] = {}

    def value(self, node: c_ast.Node, numbers: Sequence[str] | None = None) -> int:
        """The value of an integer constant expression; NotConstant if it is none.

        ``numbers`` are C's spellings of the numbers that the expression calls by :data:`NUMBER`.
        """
        if numbers is None:  # also for the dimensions of an array in an expression with numbers
            return self._evaluate(node).value
        self._numbers = {NUMBER.format(at): number for at, number in enumerate(numbers)}
        try:
            return self._evaluate(node).value
        finally:
            self._numbers = {}

    def _make(self, value: int, size: int, signed: bool) -> Integer:
        """Wrap a result to its type, as two's complement does."""
        value &= (1 << size * 8) - 1
        if signed and value >> size * 8 - 1:
            value -= 1 << size * 8
        return Integer(value, size, signed)

    def _checked(self, value: int, size: int, signed: bool) -> Integer:
        """The result of arithmetic: unsigned it wraps, signed it must not overflow."""
        result = self._make(value, size, signed)
        if signed and result.value != value:
            raise NotConstant("it overflows")
        return result

    def _evaluate(self, node: c_ast.Node) -> Integer:
        match node:
            case c_ast.Constant(type=sort, value=text):
                return self.constant(sort, text)
            case c_ast.ID(name=name):
                if name in self._numbers:
                    return self.constant("int", self._numbers[name])
                if name in self._enumerators:
                    return self._enumerators[name]
                raise UndefinedName(name)
            case c_ast.UnaryOp(op="sizeof", expr=operand):
                return Integer(self._sizeof(operand), self._pointer, signed=False)
            case c_ast.UnaryOp(op="_Alignof", expr=c_ast.Typename() as operand):
                return Integer(self._types.alignof(operand), self._pointer, signed=False)
            case c_ast.FuncCall(
                name=c_ast.ID(name="offsetof"),
                args=c_ast.ExprList(exprs=[c_ast.Typename() as record, path]),
            ):
                offset = self._types.offsetof(record, path)
                return Integer(offset, self._pointer, signed=False)
            case c_ast.UnaryOp(op=op, expr=operand):
                return self._unary(op, self._evaluate(operand))
            case c_ast.BinaryOp(op=op, left=left, right=right):
                return self._binary(op, left, right)
            case c_ast.TernaryOp(cond=condition, iftrue=yes, iffalse=no):
                first, second = self._evaluate(yes), self._evaluate(no)
                chosen = first if self._evaluate(condition).value else second
                return self._make(chosen.value, *self._common(first, second))
            case c_ast.Cast(to_type=wanted, expr=operand):
                size, signed = self._types.cast(wanted)
                result = self._make(self._evaluate(operand).value, size, signed)
                return result if size >= 4 else Integer(result.value, 4, signed=True)
        raise NotConstant(f"a {type(node).__name__} is not part of an integer constant")

    def _sizeof(self, operand: c_ast.Node) -> int:
        match operand:
            case c_ast.Typename():
                return self._types.sizeof(operand)
            case c_ast.StructRef() | c_ast.ArrayRef():
                return self._types.sizeof_member(operand)
        return self._evaluate(operand).size

    def constant(self, sort: str, text: str) -> Integer:
        """A number or character, as C spells it."""
        if sort == "char":
            if match := _CHARACTER.fullmatch(text):
                plain, escaped, octal, hexadecimal = match.groups()
                if plain or escaped:
                    value = ord(plain or _ESCAPES[escaped])
                else:
                    value = int(octal or hexadecimal, 8 if octal else 16)
                return Integer(self._make(value, 1, self._signed_char).value, 4, signed=True)
            raise NotConstant(f"the character {text} is of an unknown form")
        match = re.fullmatch(r"(0[xX][0-9a-fA-F']+|0[bB][01']+|[0-9][0-9']*)([uUlL]*)", text)
        if match is None:
            raise NotConstant(f"{text} is not an integer")
        digits, suffix = match[1].replace("'", ""), match[2].lower()
        octal_digits = len(digits) > 1 and digits.isdigit() and digits[0] == "0"
        value = int(digits, 8) if octal_digits else int(digits, 0)
        unsigned = "u" in suffix
        names = ["long long"] if "ll" in suffix else ["long", "long long"]
        if "l" not in suffix:
            names.insert(0, "int")
        for name in names:  # the first type that holds it
            bits = self._sizes[name] * 8
            if not unsigned and value < 1 << bits - 1:
                return Integer(value, bits // 8, signed=True)
            if (unsigned or not digits.isdigit() or octal_digits) and value < 1 << bits:
                return Integer(value, bits // 8, signed=False)
        raise NotConstant(f"{text} fits no integer type")

    def _unary(self, op: str, operand: Integer) -> Integer:
        match op:
            case "+":
                value = operand.value
            case "-":
                value = -operand.value
            case "~":
                value = ~operand.value
            case "!":
                return Integer(int(not operand.value), 4, signed=True)
            case _:
                raise NotConstant(f"the operator {op} gives no integer constant")
        return self._checked(value, operand.size, operand.signed)

    def _common(self, left: Integer, right: Integer) -> tuple[int, bool]:
        """C's usual arithmetic conversions, as size and signedness."""
        size = max(left.size, right.size)
        return size, all(i.signed for i in (left, right) if i.size == size)

    def _binary(self, op: str, left_node: c_ast.Node, right_node: c_ast.Node) -> Integer:
        left = self._evaluate(left_node)
        if op in ("&&", "||") and bool(left.value) == (op == "||"):
            return Integer(int(op == "||"), 4, signed=True)
        right = self._evaluate(right_node)
        if op in ("&&", "||"):
            return Integer(int(bool(right.value)), 4, signed=True)
        if op in ("<<", ">>"):
            if not 0 <= right.value < left.size * 8:
                raise NotConstant(f"it shifts {left.size * 8} bits by {right.value}")
            shifted = left.value << right.value if op == "<<" else left.value >> right.value
            return self._make(shifted, left.size, left.signed)
        size, signed = self._common(left, right)
        a = self._make(left.value, size, signed).value
        b = self._make(right.value, size, signed).value
        if op in _COMPARISONS:
            return Integer(int(_COMPARISONS[op](a, b)), 4, signed=True)
        if op in ("/", "%") and b == 0:
            raise NotConstant("it divides by zero")
        if op not in _ARITHMETIC:
            raise NotConstant(f"the operator {op} gives no integer constant")
        return self._checked(_ARITHMETIC[op](a, b), size, signed)


def _quotient(a: int, b: int) -> int:
    """C rounds towards zero, Python towards minus infinity."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}

_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _quotient,
    "%": lambda a, b: a - _quotient(a, b) * b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
}
