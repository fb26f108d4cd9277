"""Calls of macros with arguments: ``ARM64_SYS_REG(3, 0, 1, 0, 0)``, and which call gives a number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property

from vmm_arch_gen.abi.evaluate import function
from vmm_arch_gen.abi.expression_text import parse as parse_expression
from vmm_arch_gen.abi.expressions import Argument, Offset, SizeOf, uses
from vmm_arch_gen.abi.integers import U64, IntType, Undefined
from vmm_arch_gen.abi.layout import LayoutError, Layouts
from vmm_arch_gen.abi.members import Place, members
from vmm_arch_gen.abi.model import Abi, MacroFunction
from vmm_arch_gen.abi.paths import steps
from vmm_arch_gen.abi.types import Array, Named, Type, parse
from vmm_arch_gen.diagnostics import InputError, Problem

CALL = re.compile(r"(\w+)\s*\((.*)\)", re.DOTALL)
_NUMBER = re.compile(r"(-?)(0[xX][0-9a-fA-F_]+|0[bB][01_]+|[0-9][0-9_]*)[uUlL]*")


class Wrong(ValueError):
    """A call has no value; the message says why."""


class Calls:
    """Evaluates calls with one target's macros, constants and records."""

    def __init__(self, abi: Abi) -> None:
        self._abi = abi
        self._macros = {macro.name: macro for macro in abi.macros}

    @cached_property
    def _layouts(self) -> Layouts:
        return Layouts.of_abi(self._abi)

    @cached_property
    def _constants(self) -> dict[str, int]:
        known = {c.name: c.value for c in self._abi.constants}
        known |= {ioctl.name: ioctl.value for ioctl in self._abi.ioctls}
        for enum in self._abi.enums.values():
            known |= dict(enum.enumerators)
        return known

    def value(self, text: str) -> tuple[int, IntType]:
        """The value of a call, and its type; Wrong says why there is none."""
        match = CALL.fullmatch(text.strip())
        macro = self._macros.get(match[1]) if match else None
        if match is None or macro is None:
            raise Wrong(f"{match[1] if match else text} is not a macro that takes arguments")
        given = list(_split(match[2]))
        if len(given) != len(macro.parameters):
            raise Wrong(
                f"{macro.name} takes {len(macro.parameters)} arguments"
                f" ({', '.join(macro.parameters)}), and here are {len(given)}"
            )
        used = uses(macro.value)
        values = [
            self._argument(name, used.get(name, Argument(name)), argument)
            for name, argument in zip(macro.parameters, given, strict=True)
        ]
        try:
            return function(macro.value, macro.parameters)(values), macro.value.type
        except Undefined as error:
            raise Wrong(f"C leaves this undefined: {error}") from None

    def _argument(self, name: str, use: object, text: str) -> int:
        if isinstance(use, Offset):
            return self._offset(use.record, text)
        if isinstance(use, SizeOf):
            try:
                return self._layouts.of(parse(re.sub(r"\s*([*\[\]])\s*", r"\1", text)))[0]
            except (LayoutError, ValueError) as error:
                raise Wrong(
                    f"the argument {name} is a type, which {text} is not: {error}"
                ) from None
        if match := _NUMBER.fullmatch(text):
            digits = match[2].replace("_", "")
            number = int(digits, 8 if re.fullmatch("0[0-7]+", digits) else 0)
            return U64.wrap(-number if match[1] else number)
        if text in self._constants:
            return U64.wrap(self._constants[text])
        if CALL.fullmatch(text):
            return U64.wrap(self.value(text)[0])
        raise Wrong(f"the argument {name} is a number, which {text} is not, nor the name of one")

    def _offset(self, record: str, path: str) -> int:
        """The offset of a member in bytes."""
        walked = steps(path)
        if walked is None:
            raise Wrong(f"{path} is not a path of members such as regs.pc or spsr[2]")
        found: Type = Named(record)
        offset = 0
        for step in walked:
            found = self._layouts.resolve(found)
            place = self._member(found, step.name)
            if place is None:
                raise Wrong(f"{record} has no member {path} that has an offset")
            found, offset = place.member.type, offset + place.offset // 8
            for index in step.indices:
                found = self._layouts.resolve(found)
                if not isinstance(found, Array) or not index.isdecimal():
                    raise Wrong(f"{step.name} in {path} is not an array with an element {index}")
                found = found.of
                offset += int(index) * self._layouts.of(found)[0]
        return offset

    def _member(self, outer: Type, name: str) -> Place | None:
        """A member that C can name and that has an offset."""
        records = self._abi.records
        if not isinstance(outer, Named) or outer.name not in records:
            return None
        for place in members(records[outer.name], records, self._layouts):
            if place.path == name and place.member.bits is None:
                return place
        return None


def call_value(abi: Abi, text: str) -> tuple[int, IntType]:
    """The value of a call and its type; InputError says why there is none."""
    try:
        return Calls(abi).value(text)
    except Wrong as error:
        remedy = f"show {text.partition('(')[0].strip()} says what it takes"
        raise InputError(Problem(text, str(error), remedy)) from None


def _split(text: str) -> Iterator[str]:
    """The arguments of a call."""
    depth = begin = 0
    for at, character in enumerate(text):
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            yield text[begin:at].strip()
            begin = at + 1
    if text[begin:].strip() or begin:
        yield text[begin:].strip()


# -- from a number to the call -------------------------------------------------------------------

_LEAST = 1 << 32
"""Smaller numbers would be found everywhere, and larger arguments are whole numbers of this kind."""
_LINE = re.compile(
    r"^macro (\w+)\(((?:\w+(?:, \w+)*)?)\) -> u64 = ((?:0x\w+) \| .+) in (\S+)$", re.M
)


def calls_of(text: str, number: int) -> Iterator[str]:
    """The calls in an .abi file's text that give a number, whose fields are its arguments.

    Of macros that put their arguments into fields of a number of their own, as those do that name a
    register for ``KVM_GET_ONE_REG``.
    """
    if not _LEAST <= number <= U64.mask:
        return
    for name, listed, expression, header in _LINE.findall(text):
        base = int(expression.split(" ")[0], 16)
        if base < _LEAST or base & ~number:
            continue
        parameters = tuple(listed.split(", "))
        macro = MacroFunction(
            name, parameters, parse_expression(expression, parameters, U64), header
        )
        if found := _arguments(macro, number):
            yield f"{name}({', '.join(found)})"


def _arguments(macro: MacroFunction, number: int) -> list[str]:
    """The arguments for which a macro gives a number, each bit of which is a bit of one of them."""
    if any(not isinstance(use, Argument) for use in uses(macro.value).values()):
        return []
    compute = function(macro.value, macro.parameters)
    count = len(macro.parameters)

    def at(arguments: Iterable[int]) -> int | None:
        try:
            return compute(tuple(arguments))
        except Undefined:
            return None

    base = at([0] * count)
    if base is None or base & ~number:
        return []
    found = [0] * count
    sources: dict[int, tuple[int, int]] = {}
    for which in range(count):
        for bit in range(64):
            result = at(1 << bit if n == which else 0 for n in range(count))
            if result is None or (changed := result ^ base).bit_count() > 1:
                return []
            if changed and changed not in sources:
                sources[changed] = which, bit
    rest = number ^ base
    while rest:
        lowest = rest & -rest
        if lowest not in sources:
            return []
        which, bit = sources[lowest]
        found[which] |= 1 << bit
        rest ^= lowest
    if at(found) != number or max(found, default=0) >= _LEAST:
        return []
    return list(map(_shown, found))


def _shown(number: int) -> str:
    return str(number) if number < 256 else hex(number)
