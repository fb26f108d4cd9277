"""Expressions as the facts write them: C, with kernels' names for its types.

::

    1U << ((id & 0xf0000000000000) >> 52)
    (u32)vq * 16
    offsetof(struct kvm_regs, name) / 4

Operators of different kinds have parentheses, so that a reader need not know C's precedence. Sizes,
offsets and what the bits mean are in hexadecimal; what is counted is decimal.
"""

from __future__ import annotations

import re
from functools import cache

from vmm_arch_gen.abi.expressions import (
    BITWISE,
    COMPARISONS,
    LOGICAL,
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
    binary,
    cast,
    choice,
    unary,
)
from vmm_arch_gen.abi.integers import SUFFIXES, TYPES, IntType, literal_type

# -- writing ----------------------------------------------------------------------------------

_COUNTED = 4096
"""Below this a count or a factor is written in decimal."""
_DECIMAL = {"+": 256, "-": 256}
"""The same for what is added, which may be an address or a register's number."""


def spell(value: Expression) -> str:
    """The expression as :func:`parse` reads it."""
    match value:
        case Number():
            return spell_number(value, decimal=10)
        case Argument(name):
            return name
        case SizeOf(name):
            return f"sizeof({name})"
        case Offset(record, name):
            return f"offsetof({record}, {name})"
        case Unary(op, operand):
            return f"{op}{_operand(operand)}"
        case Cast(to, operand):
            return f"({to.name}){_operand(operand)}"
        case Choice(condition, yes, no):
            return " ".join((_branch(condition), "?", _branch(yes), ":", _branch(no)))
        case Binary(op, left, right):
            return f"{_beside(op, left, left=True)} {op} {_beside(op, right)}"


def spell_number(number: Number, *, decimal: int) -> str:
    """A number as C has it, with what suffix it needs; below ``decimal`` it is written in decimal."""
    value, type = number.value, number.type
    if type.size > 8 or (value < 0 and -value > type.maximum):
        return f"({type.name}){value & type.mask:#x}"
    if value < 0:
        return f"-{spell_number(Number(-value, type), decimal=decimal)}"
    plain = literal_type(value) == type
    suffix = "" if plain else next(s for s, least in SUFFIXES.items() if least == type)
    return (str(value) if value < decimal else hex(value)) + suffix


def decimal_below(op: str, *, left: bool) -> int:
    """Below this a number beside an operator is written in decimal."""
    if op in BITWISE or (op in SHIFTS and left):
        return 10
    return _DECIMAL.get(op, _COUNTED)


def _operand(value: Expression) -> str:
    """An operand of an operator that binds most tightly."""
    text = spell(value)
    closed = isinstance(value, Argument | SizeOf | Offset | Cast | Unary) or text[0].isdigit()
    return text if closed and not isinstance(value, Binary | Choice) else f"({text})"


def _branch(value: Expression) -> str:
    text = spell(value)
    return f"({text})" if isinstance(value, Choice) else text


def _beside(op: str, value: Expression, *, left: bool = False) -> str:
    """An operand of ``op``, in parentheses unless everybody knows what comes first."""
    if isinstance(value, Number):
        return spell_number(value, decimal=decimal_below(op, left=left))
    text = spell(value)
    if not isinstance(value, Binary | Choice):
        return text
    inner = value.op if isinstance(value, Binary) else "?"
    chained = left and (inner == op or {inner, op} == {"+", "-"}) and op not in COMPARISONS
    product = op in ("+", "-") and inner in ("*", "/")
    compared = op in COMPARISONS and inner in ("+", "-", "*", "/", "%")
    joined = op in LOGICAL and inner in COMPARISONS
    return text if chained or product or compared or joined else f"({text})"


# -- reading ----------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"\s*(?:(?P<cast>\([su](?:8|16|32|64|128)\))"
    r"|(?P<offset>offsetof\((?P<record>[\w .<>]+), (?P<member>\w+)\))"
    r"|(?P<size>sizeof\((?P<of>\w+)\))"
    r"|(?P<number>(?:0x[0-9a-f]+|\d+)(?P<suffix>U?(?:LL)?))"
    r"|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<op><<|>>|[<>=!]=|&&|\|\||[-+*/%&|^~<>?:()]))"
)
_BINDING = {
    op: strength
    for strength, operators in enumerate(
        (("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!="), ("<", "<=", ">", ">="),
         SHIFTS, ("+", "-"), ("*", "/", "%")),
        start=1,
    )
    for op in operators
}  # fmt: skip


def canonical(value: Expression, arguments: tuple[str, ...], size_type: IntType) -> Expression:
    """The expression as it is read again, which its text must not change any more."""
    while (again := parse(spell(value), arguments, size_type)) != value:
        value = again
    return value


@cache
def parse(text: str, arguments: tuple[str, ...], size_type: IntType) -> Expression:
    """Read what :func:`spell` wrote; ValueError if it is not that.

    ``arguments`` are the names that it may use, ``size_type`` is the target's ``size_t``.
    """
    reader = _Reader(text, arguments, size_type)
    value = reader.choice()
    if reader.token:
        raise ValueError(f"{reader.token[0]!r} follows the expression {text!r}")
    return value


class _Reader:
    def __init__(self, text: str, arguments: tuple[str, ...], size_type: IntType) -> None:
        self._text, self._at = text, 0
        self._arguments, self._size_type = arguments, size_type
        self.token: re.Match[str] | None = None
        self._next()

    def _next(self) -> None:
        self.token = None
        if self._at < len(self._text):
            self.token = _TOKEN.match(self._text, self._at)
            if self.token is None:
                raise ValueError(f"{self._text[self._at :]!r} is not part of an expression")
            self._at = self.token.end()

    def _operator(self) -> str:
        return (self.token["op"] or "") if self.token else ""

    def _expect(self, op: str) -> None:
        if self._operator() != op:
            raise ValueError(f"a {op!r} is missing in {self._text!r}")
        self._next()

    def choice(self) -> Expression:
        value = self._binary(1)
        if self._operator() != "?":
            return value
        self._next()
        yes = self.choice()
        self._expect(":")
        return choice(value, yes, self.choice())

    def _binary(self, strength: int) -> Expression:
        value = self._unary()
        while _BINDING.get(op := self._operator(), 0) >= strength:
            self._next()
            value = binary(op, value, self._binary(_BINDING[op] + 1))
        return value

    def _unary(self) -> Expression:
        token = self.token
        if token is None:
            raise ValueError(f"{self._text!r} ends too early")
        self._next()
        if token["op"] in ("-", "~"):
            return unary(token["op"], self._unary())
        if token["op"] == "(":
            value = self.choice()
            self._expect(")")
            return value
        if token["cast"]:
            return cast(TYPES[token["cast"][1:-1]], self._unary())
        if token["number"]:
            return _number(token["number"].removesuffix(token["suffix"]), token["suffix"])
        name = token["member"] or token["of"] or token["name"]
        if name not in self._arguments:
            raise ValueError(f"{name or token[0]!r} is not an argument")
        if token["offset"]:
            return Offset(token["record"], name, self._size_type)
        return SizeOf(name, self._size_type) if token["size"] else Argument(name)


def _number(digits: str, suffix: str) -> Number:
    value = int(digits, 0)
    if value >> 64:
        return Number(value, TYPES["u128"])
    type = literal_type(value, SUFFIXES[suffix])
    if type is None:
        raise ValueError(f"{digits}{suffix} fits no type")
    return Number(value, type)
