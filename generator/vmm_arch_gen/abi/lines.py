"""One line of an .abi file to what it says, whatever stands above it.

The targets of a family, and two versions of a target, share most of their lines: each is read once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias, cast

from vmm_arch_gen.abi.model import (
    BitFieldRules,
    Constant,
    DataModel,
    Direction,
    FunctionPrototype,
    Ioctl,
    IoctlRules,
    Member,
    Omission,
    String,
    Typedef,
)
from vmm_arch_gen.abi.text import unnamed_in, unquoted
from vmm_arch_gen.abi.types import Scalar
from vmm_arch_gen.abi.types import parse as parse_type


@dataclass(frozen=True)
class Target:
    name: str


@dataclass(frozen=True)
class Origin:
    text: str
    digest: str


@dataclass(frozen=True)
class Rules:
    ioctl_rules: IoctlRules


@dataclass(frozen=True)
class Header:
    name: str


@dataclass(frozen=True)
class Omissions:
    omissions: tuple[Omission, ...]


@dataclass(frozen=True)
class Macro:
    """A macro with arguments, its value as text: what that is depends on the model."""

    name: str
    parameters: tuple[str, ...]
    type: str
    value: str
    header: str


@dataclass(frozen=True)
class EnumHead:
    key: str
    underlying: Scalar
    header: str


@dataclass(frozen=True)
class Enumerator:
    name: str
    value: int


@dataclass(frozen=True)
class RecordHead:
    """What a record's first line says of all of it."""

    key: str
    kind: Literal["struct", "union"]
    size: int
    align: int
    packed: bool
    pack: int | None
    aligned: int | None
    header: str
    """Empty for one without a name, which has the header of the record that it is in."""


@dataclass(frozen=True)
class Members:
    """Neighbours of one type."""

    offset: int
    """Of the first, in bits."""
    members: tuple[Member, ...]
    defines: RecordHead | None
    """The record without a name that they are."""


Fact: TypeAlias = (
    Constant
    | DataModel
    | EnumHead
    | Enumerator
    | FunctionPrototype
    | Header
    | Ioctl
    | Macro
    | Members
    | Omissions
    | Origin
    | RecordHead
    | Rules
    | String
    | Target
    | Typedef
)


@cache
def parse(text: str, indented: bool) -> tuple[Fact, ...]:
    """What a line says, without its indentation; ValueError says why it is no fact."""
    fact, colon, only_member = text.partition(": @ ")
    facts = [_fact(fact, _MEMBERS if indented else _FACTS.get(fact.partition(" ")[0], ()))]
    if colon:
        facts.append(_fact(f"@ {only_member}", _MEMBERS))
    return tuple(facts)


_Make: TypeAlias = Callable[[re.Match[str]], Fact]
_Patterns: TypeAlias = Sequence[tuple[re.Pattern[str], _Make]]


def _fact(text: str, patterns: _Patterns) -> Fact:
    for pattern, make in patterns:
        if match := pattern.fullmatch(text):
            return make(match)
    raise ValueError("nothing of that form is known")


def _target(match: re.Match[str]) -> Target:
    return Target(match[1])


def _origin(match: re.Match[str]) -> Origin:
    return Origin(match[1], match[2])


def _model(match: re.Match[str]) -> DataModel:
    return DataModel(
        int(match["long"]),
        int(match["pointer"]),
        "big" if match["order"] == "big" else "little",
        match["char"] == "signed",
        cast(BitFieldRules, match["bits"]),  # the pattern allows no other
        int(match["wide"]),
        int(match["float"] or 16),
    )


def _rules(match: re.Match[str]) -> Rules:
    return Rules(cast(IoctlRules, match[1]))


def _header(match: re.Match[str]) -> Header:
    return Header(match[1])


def _constant(match: re.Match[str]) -> Constant:
    name, value, header = match.groups()
    return Constant(name, int(value, 0), 16 if "0x" in value else 10, header)


def _string(match: re.Match[str]) -> String:
    name, value, header = match.groups()
    return String(name, unquoted(value), header)


def _enum(match: re.Match[str]) -> EnumHead:
    underlying = _type(match["type"])
    if not isinstance(underlying, Scalar):
        raise ValueError(f"{match['type']} is not an integer type")
    return EnumHead(_key(match["enum"]), underlying, match["header"])


def _enumerator(match: re.Match[str]) -> Enumerator:
    return Enumerator(match["name"], int(match["value"]))


def _function(match: re.Match[str]) -> FunctionPrototype:
    return FunctionPrototype(match[1], parse_type(match[2]), match[3])


def _ioctl(match: re.Match[str]) -> Ioctl:
    name, value, direction, argument, header = match.groups()
    type = _type(argument) if argument else None
    return Ioctl(name, int(value, 16), cast(Direction, direction), type, header)


def _macro(match: re.Match[str]) -> Macro:
    name, listed, type, value, header = match.groups()
    return Macro(name, tuple(listed.split(", ")) if listed else (), type, value, header)


def _record(match: re.Match[str]) -> RecordHead:
    return _head(_key(match["record"]), match["record"], match, match["header"])


def _head(key: str, definition: str, match: re.Match[str], header: str) -> RecordHead:
    union = definition.removeprefix("typedef ").startswith("union ")
    return RecordHead(
        key,
        "union" if union else "struct",
        int(match["size"]),
        int(match["align"]),
        bool(match["packed"]),
        _optional(match["pack"]),
        _optional(match["aligned"]),
        header,
    )


def _members(match: re.Match[str]) -> Members:
    bits, aligned, packed = match["bits"], match["own"], bool(match["own_packed"])
    type = _type(match["type"])
    names = match["names"].replace("-", "").split(", ")
    defines = None
    if match["size"]:
        inner = unnamed_in(match["type"])
        if inner is None:
            raise ValueError("it defines a type that has a name of its own")
        defines = _head(inner, inner, match, "")
    return Members(
        int(match["byte"]) * 8 + int(match["bit"] or 0),
        tuple(Member(name, type, _optional(bits), _optional(aligned), packed) for name in names),
        defines,
    )


def _typedef(match: re.Match[str]) -> Typedef:
    name, type, aligned, header = match.groups()
    return Typedef(name, parse_type(type), _optional(aligned), header)


def _omission(match: re.Match[str]) -> Omissions:
    kind, names, header, reason = match.groups()
    return Omissions(tuple(Omission(kind, name, header, reason) for name in names.split(" ")))


_type = cache(parse_type)


def _optional(text: str | None) -> int | None:
    return None if text is None else int(text)


def _key(definition: str) -> str:
    """The key that :func:`vmm_arch_gen.abi.writer.write_abi` made its text from."""
    head, _, rest = definition.partition(" ")
    return rest.partition(" ")[2] if head == "typedef" else definition


_MEASURES = (
    r"(?P<size>\d+) bytes aligned (?P<align>\d+)(?P<packed> packed)?"
    r"(?: pack\((?P<pack>\d+)\))?(?: aligned\((?P<aligned>\d+)\))?"
)
_IN = r" in (?P<header>\S+)"

_RECORD = rf"(?P<record>(?:typedef )?(?:struct|union) \w+) is {_MEASURES}{_IN}"
_ENUM = rf"(?P<enum>(?:typedef )?enum [\w<>]+) is (?P<type>[\w ]+?){_IN}"


def _compiled(*facts: tuple[str, _Make]) -> _Patterns:
    return [(re.compile(pattern), make) for pattern, make in facts]


_FACTS = {
    "constant": _compiled((rf"constant (\w+) = (-?(?:0x[0-9a-f]+|\d+)){_IN}", _constant)),
    "string": _compiled((rf'string (\w+) = ("(?:[^"\\]|\\.)*"){_IN}', _string)),
    "struct": _compiled((_RECORD, _record)),
    "union": _compiled((_RECORD, _record)),
    "enum": _compiled((_ENUM, _enum)),
    "typedef": _compiled(
        (rf"typedef (\w+) is (.+?)(?: aligned\((\d+)\))?{_IN}", _typedef),
        (_RECORD, _record),
        (_ENUM, _enum),
    ),
    "ioctl": _compiled(
        (rf"ioctl (\w+) = (0x[0-9a-f]+) (none|readwrite|read|write)(?: (.+?))?{_IN}", _ioctl)
    ),
    "macro": _compiled((rf"macro (\w+)\(((?:\w+(?:, \w+)*)?)\) -> ([su]\d+) = (.+){_IN}", _macro)),
    "function": _compiled((rf"function (\w+) is (.+){_IN}", _function)),
    "omitted": _compiled((r"omitted (\w+) (\S+(?: \S+)*?) in (\S+): (.+)", _omission)),
    "target": _compiled((r"target (\w+)", _target)),
    "origin": _compiled((r"origin (.+), sha256 ([0-9a-f]{64})", _origin)),
    "ioctl_rules": _compiled((r"ioctl_rules (generic|bsd)", _rules)),
    "header": _compiled((r"header (\S+)", _header)),
    "model": _compiled(
        (
            r"model long (?P<long>\d+), pointer (?P<pointer>\d+), (?P<order>big|little) endian,"
            r" (?P<char>signed|unsigned) char, (?P<bits>sysv|aapcs|ms) bit-fields,"
            r" __int128 aligned (?P<wide>\d+)(?:, long double (?P<float>\d+))?",
            _model,
        )
    ),
}
"""What lines that begin with a word may look like, and what makes the fact."""

_MEMBERS = _compiled(
    (
        r"@ (?P<byte>\d+)(?:\.(?P<bit>\d):(?P<bits>\d+))? "
        r"(?P<names>[\w-]+(?:, \w+)*) (?P<type>.+?)"
        rf"(?P<own_packed> packed)?(?: aligned\((?P<own>\d+)\))?(?: is {_MEASURES})?",
        _members,
    ),
    (r"(?P<name>\w+) = (?P<value>-?\d+)", _enumerator),
)
"""The same for what is indented."""
