"""Ioctl numbers among the macros: which macros make one, and what it says of its argument."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vmm_arch_gen.abi.model import Direction
from vmm_arch_gen.diagnostics import Problem
from vmm_arch_gen.extract.expressions import UndefinedName
from vmm_arch_gen.extract.missing import MissingName
from vmm_arch_gen.extract.preprocess import IOCTL_DIRECTIONS, IOCTL_MAKERS, Macro
from vmm_arch_gen.extract.respell import split

_WORD = re.compile(r"\w+")
_CHARACTER = re.compile(r"'(?:[^'\\]|\\.)+'")
_CALL = re.compile(r"_IO(?P<direction>R|W|WR|C|)\s*\((?P<arguments>.*)\)")
_SIZEOF = re.compile(r"sizeof\s*\((?P<type>.*)\)")
_NAMES = 3
"""As many are named of those that are lost for one reason."""
_DIRECTIONS: dict[str, Direction] = {
    "": "none",
    "R": "read",
    "W": "write",
    "WR": "readwrite",
}
_READ = frozenset({"_IOC_READ", "IOC_OUT", "IOC_INOUT"})
_WRITE = frozenset({"_IOC_WRITE", "IOC_IN", "IOC_INOUT"})


@dataclass(frozen=True)
class IoctlCall:
    """How a header makes an ioctl number."""

    direction: Direction
    argument: str | None
    """The type whose size the number carries, as C text."""


def makes_ioctl(macros: Mapping[str, Macro]) -> list[str]:
    """The macros without parameters that make an ioctl number, be it through other macros."""
    words = {name: set(_WORD.findall(_plain(macro.body))) for name, macro in macros.items()}
    making, found = set(IOCTL_MAKERS), set[str]()
    while making:
        found |= making
        making = {name for name in words.keys() - found if words[name] & making}
    return sorted(name for name in found & macros.keys() if macros[name].parameters is None)


def ioctl_call(text: str) -> IoctlCall | None:
    """Take apart what a macro expands to; None if it is not one call of ``_IO`` or its like.

    With ``_IOC`` the size must be a type's, or 0.
    """
    text = _plain(text)
    while text.startswith("(") and text.endswith(")") and balanced(text[1:-1]):
        text = text[1:-1].strip()
    match = _CALL.fullmatch(text)
    if match is None or not balanced(match["arguments"]):
        return None
    arguments = [argument.strip() for argument in split(match["arguments"])]
    if match["direction"] == "C":
        return _given_size(arguments)
    direction = _DIRECTIONS[match["direction"]]
    return IoctlCall(direction, arguments[2] if len(arguments) > 2 else None)


def _given_size(arguments: Sequence[str]) -> IoctlCall | None:
    """``_IOC(direction, type, number, size)``; None if the size is not a type's."""
    directions = set(_WORD.findall(arguments[0]))
    if len(arguments) != 4 or not directions <= {*IOCTL_DIRECTIONS}:
        return None
    reads, writes = not directions.isdisjoint(_READ), not directions.isdisjoint(_WRITE)
    direction = _DIRECTIONS["W" * writes + "R" * reads]
    size = arguments[3]
    if size == "0":
        return IoctlCall(direction, None)
    match = _SIZEOF.fullmatch(size)
    return IoctlCall(direction, match["type"]) if match and balanced(match["type"]) else None


def lost(macros: Sequence[Macro], why: Exception) -> Problem:
    """The problem with a header's ioctl numbers that cannot be computed, for one common reason.

    They are never merely left out.
    """
    first = min(macros, key=lambda macro: macro.line)
    where = f"{first.header}:{first.line}"
    named = ", ".join(macro.name for macro in macros[:_NAMES])
    more = f" and {len(macros) - _NAMES} more" if len(macros) > _NAMES else ""
    plural = "s" * (len(macros) > 1)
    what = f"the ioctl number{plural} {named}{more} cannot be computed: {why}"
    remedy = (
        "have the target include the header that it needs before this one, define what is missing"
        " in the target's prelude, or correct the header"
    )
    if isinstance(why, UndefinedName):
        return MissingName(where, what, remedy, why.name)
    return Problem(where, what, remedy)


def balanced(text: str) -> bool:
    """Whether each parenthesis that closes has one before it that opens."""
    depth = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return False
    return depth == 0


def _plain(text: str) -> str:
    """C text with a number for each of its character constants, which may hold anything."""
    return _CHARACTER.sub("0", text)
