"""The .abi file: a target's facts as sorted text, made to be read in a diff.

::

    struct kvm_segment is 24 bytes aligned 8 in asm/kvm.h
      @ 0 base __u64
      @ 8 limit __u32
      @ 12 selector __u16
      @ 14 type, present, dpl, db, s, l, g, avl, unusable, padding __u8
    typedef union WHV_UINT128 is 16 bytes aligned 16 aligned(16) in winhvplatformdefs.h
      @ 0 - struct WHV_UINT128.<struct> is 16 bytes aligned 8: @ 0 Low64, High64 UINT64
      @ 0 Dword UINT32[4]

A line is a fact, but neighbours of one type share a line, as C has it. ``@`` gives an offset in the
record that the line belongs to: bytes, or for a bit-field ``byte.bit:width``. A type without a name
stands where it is first used. What belongs to a line is indented, so that a diff's ``@@`` lines
name the record. The last line is a digest of all lines before it, so that a cut, edited or wrongly
merged file is noticed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

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
    Member,
    Omission,
    Record,
    Typedef,
    VerifiedAbi,
)
from vmm_arch_gen.abi.types import Scalar, parse, spell
from vmm_arch_gen.diagnostics import InputError, Problem

FORMAT = 2
MAGIC = "vmm-arch abi"
_NAMES = 80
"""How many characters the names of members on one line may take."""


def write_abi(abi: VerifiedAbi) -> str:
    """The text of a target's .abi file."""
    named = (record for record in abi.records.values() if not record.unnamed)
    records = _Records(abi)
    lines = [
        f"{MAGIC} {FORMAT}",
        f"target {abi.target}",
        f"model long {abi.model.long}, pointer {abi.model.pointer}, {abi.model.byte_order} endian,"
        f" {'signed' if abi.model.signed_char else 'unsigned'} char,"
        f" {abi.model.bit_fields} bit-fields, __int128 aligned {abi.model.int128_align}",
        f"origin {abi.origin}, sha256 {abi.headers_digest}",
        *(f"header {name}" for name in abi.headers),
        *(f"constant {c.name} = {_number(c)} in {c.header}" for c in abi.constants),
        *(line for key in sorted(abi.enums) for line in _enum_lines(abi.enums[key])),
        *(f"function {f.name} is {spell(f.type)} in {f.header}" for f in abi.functions),
        *(_ioctl_line(ioctl) for ioctl in abi.ioctls),
        *(line for record in sorted(named, key=_without_kind) for line in records.lines(record)),
        *(_typedef_line(abi.typedefs[name]) for name in sorted(abi.typedefs)),
        *_omission_lines(abi.omissions),
    ]
    text = "".join(f"{line}\n" for line in lines)
    return f"{text}end sha256 {_digest(text)}\n"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _number(constant: Constant) -> str:
    return hex(constant.value) if constant.radix == 16 else str(constant.value)


def _enum_lines(enum: Enum) -> Iterator[str]:
    yield f"{_definition('enum', enum.key)} is {enum.underlying.name} in {enum.header}"
    for name, value in enum.enumerators:
        yield f"  {name} = {value}"


def _ioctl_line(ioctl: Ioctl) -> str:
    argument = f" {spell(ioctl.argument)}" if ioctl.argument else ""
    return f"ioctl {ioctl.name} = {ioctl.value:#x} {ioctl.direction}{argument} in {ioctl.header}"


def _typedef_line(typedef: Typedef) -> str:
    aligned = _aligned(typedef.aligned)
    return f"typedef {typedef.name} is {spell(typedef.type)}{aligned} in {typedef.header}"


def _definition(kind: str, key: str) -> str:
    """How C defines a type: ``struct X``, or ``typedef struct X`` where only a typedef names it."""
    return key if key.startswith(f"{kind} ") else f"typedef {kind} {key}"


def _without_kind(record: Record) -> tuple[str, str]:
    return record.key.removeprefix(f"{record.kind} "), record.key


def _aligned(alignment: int | None) -> str:
    return f" aligned({alignment})" if alignment else ""


def _omission_lines(omissions: Iterable[Omission]) -> Iterator[str]:
    """Those for one reason share a line."""
    for (kind, header, reason), group in groupby(omissions, lambda o: (o.kind, o.header, o.reason)):
        yield f"omitted {kind} {' '.join(o.name for o in group)} in {header}: {reason}"


class _Records:
    """The lines of a target's records."""

    def __init__(self, abi: Abi) -> None:
        self._abi = abi
        self._layouts = Layouts.of_abi(abi)
        self._written: set[str] = set()
        """The records without a name that stand somewhere already."""

    def lines(self, record: Record) -> Iterator[str]:
        head = f"{_definition(record.kind, record.key)} is {self._measures(record)}"
        yield from self._with_members(f"{head} in {record.header}", record, "  ")

    def _measures(self, record: Record) -> str:
        layout = self._abi.layouts[record.key]
        packed = " packed" if record.packed else ""
        return f"{layout.size} bytes aligned {layout.align}{packed}{_aligned(record.aligned)}"

    def _with_members(self, head: str, record: Record, indent: str) -> Iterator[str]:
        """A record's line, and those of its members: on the same line if there is only one."""
        members = list(self._members(record, indent))
        if len(members) == 1 and ": @ " not in members[0]:
            yield f"{head}: {members[0].lstrip()}"
        else:
            yield head
            yield from members

    def _members(self, record: Record, indent: str) -> Iterator[str]:
        for members, offset in self._runs(record):
            member, names = members[0], ", ".join(member.name or "-" for member in members)
            at = str(offset // 8)
            if member.bits is not None:
                at += f".{offset % 8}:{member.bits}"
            line = f"{indent}@ {at} {names} {spell(member.type)}{_aligned(member.aligned)}"
            inner = _unnamed_in(spell(member.type))
            if inner is None or inner in self._written:
                yield line
            else:
                self._written.add(inner)
                kind = self._abi.records[inner]
                head = f"{line} is {self._measures(kind)}"
                yield from self._with_members(head, kind, f"{indent}  ")

    def _runs(self, record: Record) -> Iterator[tuple[list[Member], int]]:
        """The members by line, with the offset in bits of the first one on it."""
        run: list[Member] = []
        begin = following = 0
        for member, offset in zip(
            record.members, self._abi.layouts[record.key].offsets, strict=True
        ):
            alone = member.bits is not None or member.aligned or not member.name
            full = sum(len(neighbour.name) + 2 for neighbour in run) + len(member.name) > _NAMES
            if run and (alone or full or offset != following or member.type != run[0].type):
                yield run, begin
                run = []
            if not run:
                begin = offset
            run.append(member)
            if alone or _unnamed_in(spell(member.type)) not in {None, *self._written}:
                yield run, begin
                run = []
            size = 0 if record.kind == "union" else self._layouts.of(member.type)[0] * 8
            following = offset + size
        if run:
            yield run, begin


def _unnamed_in(kind: str) -> str | None:
    """The record without a name that a spelt type is made of, if any."""
    match = _UNNAMED.search(kind)
    return match[0] if match else None


_UNNAMED = re.compile(r"(?:struct|union) \w+\.[\w.<>]+")


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
    body, end, digest = text.rpartition("end sha256 ")
    if not end or not re.fullmatch(r"[0-9a-f]{64}\n", digest):
        raise refuse("is cut short: its last line is not a digest")
    if digest.strip() != _digest(body):
        raise refuse("has been changed since it was written: its digest does not match")

    reader = _Reader()
    for number, line in enumerate(body.splitlines()[1:], start=2):
        try:
            reader.read(line)
        except ValueError as error:
            raise refuse(f"{line!r} is no fact: {error}", number) from None
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
        self._enums: dict[str, tuple[Scalar, str, list[tuple[str, int]]]] = {}
        self._functions: list[FunctionPrototype] = []
        self._ioctls: list[Ioctl] = []
        self._records: dict[
            str, tuple[re.Match[str], Literal["struct", "union"], str, list[Member]]
        ] = {}
        self._stated: dict[str, tuple[int, int, list[int | None]]] = {}
        """Size, alignment and offsets; None for members behind the first one on a line."""
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
        missing = {"target", "model", "origin"} - self._single.keys()
        if missing:
            raise ValueError(f"no {', '.join(sorted(missing))} line")
        model: DataModel = self._single["model"]
        origin, digest = self._single["origin"]
        records = {
            key: Record(
                key, kind, tuple(members), bool(head["packed"]), _optional(head["aligned"]), header
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
        )

    def header(self, match: re.Match[str]) -> None:
        self._headers.append(match[1])

    def constant(self, match: re.Match[str]) -> None:
        name, value, header = match.groups()
        self._constants.append(Constant(name, int(value, 0), 16 if "0x" in value else 10, header))

    def enum(self, match: re.Match[str]) -> None:
        underlying = _type(match["type"])
        if not isinstance(underlying, Scalar):
            raise ValueError(f"{match['type']} is no integer type")
        key = _key(match["enum"])
        self._enums[key] = (underlying, match["header"], [])
        self._open = [key]

    def enumerator(self, match: re.Match[str]) -> None:
        key = self._open[0]
        if len(self._open) > 1 or key not in self._enums:
            raise ValueError(f"{key} is no enum")
        self._enums[key][2].append((match["name"], int(match["value"])))

    def function(self, match: re.Match[str]) -> None:
        self._functions.append(FunctionPrototype(match[1], parse(match[2]), match[3]))

    def ioctl(self, match: re.Match[str]) -> None:
        name, value, direction, argument, header = match.groups()
        kind = _type(argument) if argument else None
        self._ioctls.append(Ioctl(name, int(value, 16), cast(Direction, direction), kind, header))

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
            raise ValueError(f"{key} is no record")
        bits, aligned = _optional(match["bits"]), _optional(match["own"])
        kind = _type(match["type"])
        names = match["names"].replace("-", "").split(", ")
        _, _, header, members = self._records[key]
        members += [Member(name, kind, bits, aligned) for name in names]
        offset = int(match["byte"]) * 8 + int(match["bit"] or 0)
        self._stated[key][2].extend([offset, *[None] * (len(names) - 1)])
        if match["size"]:
            inner = _unnamed_in(match["type"])
            if inner is None:
                raise ValueError("it defines a type that has a name of its own")
            self._begin(inner, inner, match, header)

    def typedef(self, match: re.Match[str]) -> None:
        name, kind, aligned, header = match.groups()
        self._typedefs[name] = Typedef(name, parse(kind), _optional(aligned), header)

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
    r"(?: aligned\((?P<aligned>\d+)\))?"
)
_IN = r" in (?P<header>\S+)"

_RECORD = rf"(?P<record>(?:typedef )?(?:struct|union) \w+) is {_MEASURES}{_IN}"
_ENUM = rf"(?P<enum>(?:typedef )?enum [\w<>]+) is (?P<type>[\w ]+?){_IN}"


def _compiled(*facts: tuple[str, _Store]) -> _Patterns:
    return [(re.compile(pattern), store) for pattern, store in facts]


_FACTS = {
    "constant": _compiled((rf"constant (\w+) = (-?(?:0x[0-9a-f]+|\d+)){_IN}", _Reader.constant)),
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
    "function": _compiled((rf"function (\w+) is (.+){_IN}", _Reader.function)),
    "omitted": _compiled((r"omitted (\w+) (\S+(?: \S+)*?) in (\S+): (.+)", _Reader.omission)),
    "target": _compiled((r"target (\w+)", _Reader.target)),
    "origin": _compiled((r"origin (.+), sha256 ([0-9a-f]{64})", _Reader.origin)),
    "header": _compiled((r"header (\S+)", _Reader.header)),
    "model": _compiled(
        (
            r"model long (?P<long>\d+), pointer (?P<pointer>\d+), (?P<order>big|little) endian,"
            r" (?P<char>signed|unsigned) char, (?P<bits>sysv|aapcs|ms) bit-fields,"
            r" __int128 aligned (?P<wide>\d+)",
            _Reader.model,
        )
    ),
}
"""What lines that begin with a word may look like, and what stores them."""

_MEMBERS = _compiled(
    (
        r"@ (?P<byte>\d+)(?:\.(?P<bit>\d):(?P<bits>\d+))? "
        r"(?P<names>[\w-]+(?:, \w+)*) (?P<type>.+?)"
        rf"(?: aligned\((?P<own>\d+)\))?(?: is {_MEASURES})?",
        _Reader.member,
    ),
    (r"(?P<name>\w+) = (?P<value>-?\d+)", _Reader.enumerator),
)
"""The same for what is indented."""
