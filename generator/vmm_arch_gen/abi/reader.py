"""The text of an .abi file to a target's facts, which were proven when it was written."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from vmm_arch_gen.abi.expression_text import parse as parse_expression
from vmm_arch_gen.abi.integers import IntType
from vmm_arch_gen.abi.layout import LayoutError, Layouts
from vmm_arch_gen.abi.model import (
    Abi,
    BitFieldRules,
    Constant,
    DataModel,
    Direction,
    Enum,
    FunctionPrototype,
    Ioctl,
    Layout,
    MacroFunction,
    Member,
    Omission,
    Record,
    String,
    Typedef,
    VerifiedAbi,
)
from vmm_arch_gen.abi.text import FORMAT, MAGIC, digest, unnamed_in, unquoted
from vmm_arch_gen.abi.types import Scalar, parse
from vmm_arch_gen.abi.writer import write_abi
from vmm_arch_gen.diagnostics import InputError, Problem


def read_abi_file(path: Path, *, exact: bool = True) -> VerifiedAbi:
    """Read one target's facts, as :func:`read_abi` does; InputError says what is wrong with them."""
    regenerate = f"run: vmm-arch-gen extract --only {path.stem}"
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise InputError(Problem(str(path), "no such file", regenerate)) from None
    except OSError as error:
        raise InputError(
            Problem(str(path), f"cannot be read: {error.strerror}", "make it readable")
        ) from None
    except UnicodeDecodeError:
        raise InputError(Problem(str(path), "is not UTF-8 text", regenerate)) from None
    return read_abi(text, str(path), path.stem, exact=exact)


def read_abi(text: str, where: str, target: str, *, exact: bool = True) -> VerifiedAbi:
    """Read what :func:`write_abi` wrote, check its digest and lay out its records again.

    ``where`` is how errors name the text. With ``exact`` it must be in the very form that
    :func:`write_abi` gives it. What only tells of the facts can do without that, which takes long.
    """
    remedy = f"regenerate it, also after a merge conflict: vmm-arch-gen extract --only {target}"

    def refuse(what: str, line: int | None = None) -> InputError:
        place = where if line is None else f"{where}:{line}"
        return InputError(Problem(place, what, remedy))

    first = text.partition("\n")[0]
    match = re.fullmatch(rf"{MAGIC} (\d+)", first)
    if match is None:
        raise refuse(f"does not begin with '{MAGIC} {FORMAT}'", 1)
    if int(match[1]) > FORMAT:
        raise InputError(
            Problem(
                f"{where}:1",
                f"has format {match[1]}, newer than the {FORMAT} that this generator knows",
                "upgrade vmm-arch",
            )
        )
    if int(match[1]) < FORMAT:
        raise refuse(f"has the outdated format {match[1]}; this generator writes {FORMAT}", 1)
    body, end, stated = text.rpartition("end sha256 ")
    if not end or not re.fullmatch(r"[0-9a-f]{64}\n", stated):
        raise refuse("is cut short: its last line is not a digest")
    if stated.strip() != digest(body):
        raise refuse("has been changed since it was written: its digest does not match")

    reader = _Reader()
    for number, line in enumerate(body.splitlines()[1:], start=2):
        try:
            reader.read(line)
        except ValueError as error:
            raise refuse(f"{line!r} is not a fact: {error}", number) from None
    try:
        abi = reader.abi()
    except (LayoutError, ValueError) as error:
        raise refuse(f"contradicts itself: {error}") from None
    if abi.target != target:
        raise refuse(f"holds the facts of target {abi.target!r}, not of {target!r}", 2)
    if exact and write_abi(abi) != text:
        raise refuse("is not in the form that this generator writes")
    return abi


_Store: TypeAlias = "Callable[[_Reader, re.Match[str]], None]"
_Patterns: TypeAlias = "Sequence[tuple[re.Pattern[str], _Store]]"


class _Reader:
    """Collects facts line by line."""

    def __init__(self) -> None:
        self._single: dict[str, Any] = {}
        self._headers: list[str] = []
        self._constants: list[Constant] = []
        self._strings: list[String] = []
        self._enums: dict[str, tuple[Scalar, str, list[tuple[str, int]]]] = {}
        self._functions: list[FunctionPrototype] = []
        self._ioctls: list[Ioctl] = []
        self._macros: list[MacroFunction] = []
        self._records: dict[
            str, tuple[re.Match[str], Literal["struct", "union"], str, list[Member]]
        ] = {}
        self._stated: dict[str, tuple[int, int, list[int | None]]] = {}
        """Size, alignment and offsets; None for members after the first one on a line."""
        self._typedefs: dict[str, Typedef] = {}
        self._omissions: list[Omission] = []
        self._open: list[str] = []
        """The enum or record that lines are indented below, and those inside it."""

    def read(self, line: str) -> None:
        text = line.lstrip(" ")
        depth, odd = divmod(len(line) - len(text), 2)
        if odd or depth > len(self._open):
            raise ValueError("it is indented below nothing")
        del self._open[depth:]
        fact, colon, only_member = text.partition(": @ ")
        self._read(fact, _MEMBERS if depth else _FACTS.get(fact.partition(" ")[0], ()))
        if colon:
            self._read(f"@ {only_member}", _MEMBERS)

    def _read(self, text: str, patterns: _Patterns) -> None:
        for pattern, store in patterns:
            if match := pattern.fullmatch(text):
                store(self, match)
                return
        raise ValueError("nothing of that form is known")

    def abi(self) -> VerifiedAbi:
        missing = {"target", "model", "origin", "ioctl_rules"} - self._single.keys()
        if missing:
            raise ValueError(f"no {', '.join(sorted(missing))} line")
        model: DataModel = self._single["model"]
        origin, digest = self._single["origin"]
        records = {
            key: Record(
                key,
                kind,
                tuple(members),
                bool(head["packed"]),
                _optional(head["aligned"]),
                header,
                _optional(head["pack"]),
            )
            for key, (head, kind, header, members) in self._records.items()
        }
        enums = {
            key: Enum(key, underlying, tuple(values), header)
            for key, (underlying, header, values) in self._enums.items()
        }
        layouts = Layouts(model, records, self._typedefs, enums)
        for key, (size, align, offsets) in self._stated.items():
            found = layouts.record(key)
            places = zip(offsets, found.offsets, strict=True)
            stated = Layout(size, align, tuple(f if s is None else s for s, f in places))
            if stated != found:
                raise ValueError(f"{key} is stated as {stated} but its members give {found}")
        return VerifiedAbi(
            Abi(
                self._single["target"],
                model,
                origin,
                digest,
                tuple(self._headers),
                tuple(self._constants),
                enums,
                tuple(self._functions),
                tuple(self._ioctls),
                records,
                self._typedefs,
                tuple(self._omissions),
                {key: layouts.record(key) for key in records},
                tuple(self._strings),
                self._single["ioctl_rules"],
                tuple(self._macros),
            )
        )

    def target(self, match: re.Match[str]) -> None:
        self._single["target"] = match[1]

    def origin(self, match: re.Match[str]) -> None:
        self._single["origin"] = match.groups()

    def model(self, match: re.Match[str]) -> None:
        self._single["model"] = DataModel(
            int(match["long"]),
            int(match["pointer"]),
            "big" if match["order"] == "big" else "little",
            match["char"] == "signed",
            cast(BitFieldRules, match["bits"]),  # the pattern allows no other
            int(match["wide"]),
            int(match["float"] or 16),
        )

    def ioctl_rules(self, match: re.Match[str]) -> None:
        self._single["ioctl_rules"] = match[1]

    def header(self, match: re.Match[str]) -> None:
        self._headers.append(match[1])

    def constant(self, match: re.Match[str]) -> None:
        name, value, header = match.groups()
        self._constants.append(Constant(name, int(value, 0), 16 if "0x" in value else 10, header))

    def string(self, match: re.Match[str]) -> None:
        name, value, header = match.groups()
        self._strings.append(String(name, unquoted(value), header))

    def enum(self, match: re.Match[str]) -> None:
        underlying = _type(match["type"])
        if not isinstance(underlying, Scalar):
            raise ValueError(f"{match['type']} is not an integer type")
        key = _key(match["enum"])
        self._enums[key] = (underlying, match["header"], [])
        self._open = [key]

    def enumerator(self, match: re.Match[str]) -> None:
        key = self._open[0]
        if len(self._open) > 1 or key not in self._enums:
            raise ValueError(f"{key} is not an enum")
        self._enums[key][2].append((match["name"], int(match["value"])))

    def function(self, match: re.Match[str]) -> None:
        self._functions.append(FunctionPrototype(match[1], parse(match[2]), match[3]))

    def ioctl(self, match: re.Match[str]) -> None:
        name, value, direction, argument, header = match.groups()
        type = _type(argument) if argument else None
        self._ioctls.append(Ioctl(name, int(value, 16), cast(Direction, direction), type, header))

    def macro(self, match: re.Match[str]) -> None:
        name, listed, type_name, text, header = match.groups()
        parameters = tuple(listed.split(", ")) if listed else ()
        if "model" not in self._single:
            raise ValueError("the model line has to stand above it")
        size_type = IntType(self._single["model"].pointer, signed=False)
        value = parse_expression(text, parameters, size_type)
        if value.type.name != type_name:
            raise ValueError(f"its value is of type {value.type.name}")
        self._macros.append(MacroFunction(name, parameters, value, header))

    def record(self, match: re.Match[str]) -> None:
        self._begin(_key(match["record"]), match["record"], match, match["header"])

    def _begin(self, key: str, definition: str, match: re.Match[str], header: str) -> None:
        union = definition.removeprefix("typedef ").startswith("union ")
        self._records[key] = (match, "union" if union else "struct", header, [])
        self._stated[key] = (int(match["size"]), int(match["align"]), [])
        self._open.append(key)

    def member(self, match: re.Match[str]) -> None:
        key = self._open[-1]
        if key not in self._records:
            raise ValueError(f"{key} is not a record")
        bits, aligned = _optional(match["bits"]), _optional(match["own"])
        type = _type(match["type"])
        names = match["names"].replace("-", "").split(", ")
        _, _, header, members = self._records[key]
        packed = bool(match["own_packed"])
        members += [Member(name, type, bits, aligned, packed) for name in names]
        offset = int(match["byte"]) * 8 + int(match["bit"] or 0)
        self._stated[key][2].extend([offset, *[None] * (len(names) - 1)])
        if match["size"]:
            inner = unnamed_in(match["type"])
            if inner is None:
                raise ValueError("it defines a type that has a name of its own")
            self._begin(inner, inner, match, header)

    def typedef(self, match: re.Match[str]) -> None:
        name, type, aligned, header = match.groups()
        self._typedefs[name] = Typedef(name, parse(type), _optional(aligned), header)

    def omission(self, match: re.Match[str]) -> None:
        kind, names, header, reason = match.groups()
        self._omissions += [Omission(kind, name, header, reason) for name in names.split(" ")]


_type = cache(parse)


def _optional(text: str | None) -> int | None:
    return None if text is None else int(text)


def _key(definition: str) -> str:
    """The key that :func:`_definition` made its text from."""
    head, _, rest = definition.partition(" ")
    return rest.partition(" ")[2] if head == "typedef" else definition


_MEASURES = (
    r"(?P<size>\d+) bytes aligned (?P<align>\d+)(?P<packed> packed)?"
    r"(?: pack\((?P<pack>\d+)\))?(?: aligned\((?P<aligned>\d+)\))?"
)
_IN = r" in (?P<header>\S+)"

_RECORD = rf"(?P<record>(?:typedef )?(?:struct|union) \w+) is {_MEASURES}{_IN}"
_ENUM = rf"(?P<enum>(?:typedef )?enum [\w<>]+) is (?P<type>[\w ]+?){_IN}"


def _compiled(*facts: tuple[str, _Store]) -> _Patterns:
    return [(re.compile(pattern), store) for pattern, store in facts]


_FACTS = {
    "constant": _compiled((rf"constant (\w+) = (-?(?:0x[0-9a-f]+|\d+)){_IN}", _Reader.constant)),
    "string": _compiled((rf'string (\w+) = ("(?:[^"\\]|\\.)*"){_IN}', _Reader.string)),
    "struct": _compiled((_RECORD, _Reader.record)),
    "union": _compiled((_RECORD, _Reader.record)),
    "enum": _compiled((_ENUM, _Reader.enum)),
    "typedef": _compiled(
        (rf"typedef (\w+) is (.+?)(?: aligned\((\d+)\))?{_IN}", _Reader.typedef),
        (_RECORD, _Reader.record),
        (_ENUM, _Reader.enum),
    ),
    "ioctl": _compiled(
        (rf"ioctl (\w+) = (0x[0-9a-f]+) (none|readwrite|read|write)(?: (.+?))?{_IN}", _Reader.ioctl)
    ),
    "macro": _compiled(
        (rf"macro (\w+)\(((?:\w+(?:, \w+)*)?)\) -> ([su]\d+) = (.+){_IN}", _Reader.macro)
    ),
    "function": _compiled((rf"function (\w+) is (.+){_IN}", _Reader.function)),
    "omitted": _compiled((r"omitted (\w+) (\S+(?: \S+)*?) in (\S+): (.+)", _Reader.omission)),
    "target": _compiled((r"target (\w+)", _Reader.target)),
    "origin": _compiled((r"origin (.+), sha256 ([0-9a-f]{64})", _Reader.origin)),
    "ioctl_rules": _compiled((r"ioctl_rules (generic|bsd)", _Reader.ioctl_rules)),
    "header": _compiled((r"header (\S+)", _Reader.header)),
    "model": _compiled(
        (
            r"model long (?P<long>\d+), pointer (?P<pointer>\d+), (?P<order>big|little) endian,"
            r" (?P<char>signed|unsigned) char, (?P<bits>sysv|aapcs|ms) bit-fields,"
            r" __int128 aligned (?P<wide>\d+)(?:, long double (?P<float>\d+))?",
            _Reader.model,
        )
    ),
}
"""What lines that begin with a word may look like, and what stores them."""

_MEMBERS = _compiled(
    (
        r"@ (?P<byte>\d+)(?:\.(?P<bit>\d):(?P<bits>\d+))? "
        r"(?P<names>[\w-]+(?:, \w+)*) (?P<type>.+?)"
        rf"(?P<own_packed> packed)?(?: aligned\((?P<own>\d+)\))?(?: is {_MEASURES})?",
        _Reader.member,
    ),
    (r"(?P<name>\w+) = (?P<value>-?\d+)", _Reader.enumerator),
)
"""The same for what is indented."""
