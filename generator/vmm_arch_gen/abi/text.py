"""The .abi file: a target's facts as sorted text, one fact a line, made to be read in a diff.

::

    struct kvm_segment is 24 bytes aligned 8 in asm/kvm.h
    struct kvm_segment @ 0 base __u64
    struct kvm_segment @ 8 limit __u32
    union WHV_UINT128 @ 0 - struct WHV_UINT128.<struct>

``@`` gives a member's byte offset, for a bit-field ``byte.bit:width``. The last line is a digest of
all lines before it, so that a cut, edited or wrongly merged file is noticed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from vmm_arch_gen.abi.layout import LayoutError, Layouts
from vmm_arch_gen.abi.model import (
    Abi,
    BitFieldRules,
    Constant,
    DataModel,
    Direction,
    Enum,
    FunctionPrototype,
    Header,
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

FORMAT = 1
MAGIC = "vmm-arch abi"


def write_abi(abi: VerifiedAbi) -> str:
    """The text of a target's .abi file."""
    lines = [
        f"{MAGIC} {FORMAT}",
        f"target {abi.target}",
        f"model long {abi.model.long}, pointer {abi.model.pointer}, {abi.model.byte_order} endian,"
        f" {'signed' if abi.model.signed_char else 'unsigned'} char,"
        f" {abi.model.bit_fields} bit-fields, __int128 aligned {abi.model.int128_align}",
        f"origin {abi.origin}",
        *(f"header {header.name} sha256 {header.sha256}" for header in abi.headers),
        *(f"constant {c.name} = {_number(c)} in {c.header}" for c in abi.constants),
        *(line for key in sorted(abi.enums) for line in _enum_lines(abi.enums[key])),
        *(f"function {f.name} is {spell(f.type)} in {f.header}" for f in abi.functions),
        *(_ioctl_line(ioctl) for ioctl in abi.ioctls),
        *(
            line
            for key in sorted(abi.records, key=_path)
            for line in _record_lines(abi.records[key], abi.layouts[key])
        ),
        *(_typedef_line(abi.typedefs[name]) for name in sorted(abi.typedefs)),
        *(f"omitted {o.kind} {o.name} in {o.header}: {o.reason}" for o in abi.omissions),
    ]
    text = "".join(f"{line}\n" for line in lines)
    return f"{text}end sha256 {_digest(text)}\n"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _number(constant: Constant) -> str:
    return hex(constant.value) if constant.radix == 16 else str(constant.value)


def _enum_lines(enum: Enum) -> Iterator[str]:
    key = _definition("enum", enum.key)
    yield f"{key} is {enum.underlying.name} in {enum.header}"
    for name, value in enum.enumerators:
        yield f"{key} has {name} = {value}"


def _ioctl_line(ioctl: Ioctl) -> str:
    argument = f" {spell(ioctl.argument)}" if ioctl.argument else ""
    return f"ioctl {ioctl.name} = {ioctl.value:#x} {ioctl.direction}{argument} in {ioctl.header}"


def _typedef_line(typedef: Typedef) -> str:
    aligned = f" aligned({typedef.aligned})" if typedef.aligned else ""
    return f"typedef {typedef.name} is {spell(typedef.type)}{aligned} in {typedef.header}"


def _definition(kind: str, key: str) -> str:
    """How C defines a type: ``struct X``, or ``typedef struct X`` where only a typedef names it."""
    return key if key.startswith(f"{kind} ") else f"typedef {kind} {key}"


def _path(key: str) -> tuple[str, str]:
    """Sorts the types of a record's members behind the record, whatever their kind."""
    return key.removeprefix("struct ").removeprefix("union "), key


def _record_lines(record: Record, layout: Layout) -> Iterator[str]:
    key = _definition(record.kind, record.key)
    packed = " packed" if record.packed else ""
    aligned = f" aligned({record.aligned})" if record.aligned else ""
    yield (
        f"{key} is {layout.size} bytes aligned {layout.align}{packed}{aligned} in {record.header}"
    )
    for member, offset in zip(record.members, layout.offsets, strict=True):
        at = str(offset // 8)
        if member.bits is not None:
            at += f".{offset % 8}:{member.bits}"
        aligned = f" aligned({member.aligned})" if member.aligned else ""
        yield f"{key} @ {at} {member.name or '-'} {spell(member.type)}{aligned}"


def read_abi_file(path: Path) -> VerifiedAbi:
    """Read one target's facts; InputError says what is wrong with the file."""
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
    return read_abi(text, str(path), path.stem)


def read_abi(text: str, where: str, target: str) -> VerifiedAbi:
    """Read what :func:`write_abi` wrote, check its digest and lay out its records again.

    ``where`` is how errors name the text.
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
    if write_abi(abi) != text:
        raise refuse("is not in the form that this generator writes")
    return abi


class _Reader:
    """Collects facts line by line."""

    def __init__(self) -> None:
        self._single: dict[str, Any] = {}
        self._headers: list[Header] = []
        self._constants: list[Constant] = []
        self._enums: dict[str, tuple[Scalar, str, list[tuple[str, int]]]] = {}
        self._functions: list[FunctionPrototype] = []
        self._ioctls: list[Ioctl] = []
        self._records: dict[str, tuple[re.Match[str], list[Member]]] = {}
        self._stated: dict[str, tuple[int, int, list[int]]] = {}
        self._typedefs: dict[str, Typedef] = {}
        self._omissions: list[Omission] = []

    def read(self, line: str) -> None:
        for pattern, store in _FACTS:
            if match := pattern.fullmatch(line):
                store(self, match)
                return
        raise ValueError("nothing of that form is known")

    def abi(self) -> VerifiedAbi:
        missing = {"target", "model", "origin"} - self._single.keys()
        if missing:
            raise ValueError(f"no {', '.join(sorted(missing))} line")
        model: DataModel = self._single["model"]
        records = {
            key: Record(
                key,
                "union" if _defined(head["record"])[0] == "union" else "struct",
                tuple(members),
                bool(head["packed"]),
                _optional(head["aligned"]),
                head["header"],
            )
            for key, (head, members) in self._records.items()
        }
        enums = {
            key: Enum(key, underlying, tuple(values), header)
            for key, (underlying, header, values) in self._enums.items()
        }
        layouts = Layouts(model, records, self._typedefs, enums)
        for key, (size, align, offsets) in self._stated.items():
            if (found := layouts.record(key)) != (stated := Layout(size, align, tuple(offsets))):
                raise ValueError(f"{key} is stated as {stated} but its members give {found}")
        return VerifiedAbi(
            Abi(
                self._single["target"],
                model,
                self._single["origin"],
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

    def model(self, match: re.Match[str]) -> None:
        self._single["model"] = DataModel(
            int(match["long"]),
            int(match["pointer"]),
            "big" if match["order"] == "big" else "little",
            match["char"] == "signed",
            cast(BitFieldRules, match["bits"]),  # the pattern allows no other
            int(match["wide"]),
        )

    def origin(self, match: re.Match[str]) -> None:
        self._single["origin"] = match[1]

    def header(self, match: re.Match[str]) -> None:
        self._headers.append(Header(match[1], match[2]))

    def constant(self, match: re.Match[str]) -> None:
        name, value, header = match.groups()
        self._constants.append(Constant(name, int(value, 0), 16 if "0x" in value else 10, header))

    def enum(self, match: re.Match[str]) -> None:
        underlying = parse(match["type"])
        if not isinstance(underlying, Scalar):
            raise ValueError(f"{match['type']} is no integer type")
        _, key = _defined(match["enum"])
        self._enums[key] = (underlying, match["header"], [])

    def enumerator(self, match: re.Match[str]) -> None:
        _, key = _defined(match["enum"])
        if key not in self._enums:
            raise ValueError(f"no line before it says what {key} is")
        self._enums[key][2].append((match["name"], int(match["value"])))

    def function(self, match: re.Match[str]) -> None:
        self._functions.append(FunctionPrototype(match[1], parse(match[2]), match[3]))

    def ioctl(self, match: re.Match[str]) -> None:
        name, value, direction, argument, header = match.groups()
        kind = parse(argument) if argument else None
        self._ioctls.append(Ioctl(name, int(value, 16), cast(Direction, direction), kind, header))

    def record(self, match: re.Match[str]) -> None:
        _, key = _defined(match["record"])
        self._records[key] = (match, [])
        self._stated[key] = (int(match["size"]), int(match["align"]), [])

    def member(self, match: re.Match[str]) -> None:
        _, key = _defined(match["record"])
        if key not in self._records:
            raise ValueError(f"no line before it says what {key} is")
        name = "" if match["name"] == "-" else match["name"]
        bits, aligned = _optional(match["bits"]), _optional(match["aligned"])
        self._records[key][1].append(Member(name, parse(match["type"]), bits, aligned))
        self._stated[key][2].append(int(match["byte"]) * 8 + int(match["bit"] or 0))

    def typedef(self, match: re.Match[str]) -> None:
        name, kind, aligned, header = match.groups()
        self._typedefs[name] = Typedef(name, parse(kind), _optional(aligned), header)

    def omission(self, match: re.Match[str]) -> None:
        self._omissions.append(Omission(*match.groups()))


def _optional(text: str | None) -> int | None:
    return None if text is None else int(text)


def _defined(definition: str) -> tuple[str, str]:
    """The kind and key that :func:`_definition` made its text from."""
    head, _, rest = definition.partition(" ")
    if head == "typedef":
        kind, _, key = rest.partition(" ")
        return kind, key
    return head, definition


_RECORD = r"(?P<record>(?:typedef )?(?:struct|union) [\w.<>]+)"
_ENUM = r"(?P<enum>(?:typedef )?enum [\w<>]+)"
_ALIGNED = r"(?: aligned\((?P<aligned>\d+)\))?"
_IN = r" in (?P<header>\S+)"

_FACTS: list[tuple[re.Pattern[str], Callable[[_Reader, re.Match[str]], None]]] = [
    (re.compile(pattern), store)
    for pattern, store in (
        (rf"constant (\w+) = (-?(?:0x[0-9a-f]+|\d+)){_IN}", _Reader.constant),
        (
            rf"{_RECORD} @ (?P<byte>\d+)(?:\.(?P<bit>\d):(?P<bits>\d+))? (?P<name>\S+)"
            rf" (?P<type>.+?){_ALIGNED}",
            _Reader.member,
        ),
        (rf"{_ENUM} has (?P<name>\w+) = (?P<value>-?\d+)", _Reader.enumerator),
        (
            rf"{_RECORD} is (?P<size>\d+) bytes aligned (?P<align>\d+)(?P<packed> packed)?"
            rf"{_ALIGNED}{_IN}",
            _Reader.record,
        ),
        (
            rf"ioctl (\w+) = (0x[0-9a-f]+) (none|readwrite|read|write)(?: (.+?))?{_IN}",
            _Reader.ioctl,
        ),
        (rf"function (\w+) is (.+){_IN}", _Reader.function),
        (rf"{_ENUM} is (?P<type>[\w ]+?){_IN}", _Reader.enum),
        (rf"typedef (\w+) is (.+?){_ALIGNED}{_IN}", _Reader.typedef),
        (r"omitted (\w+) (\S+) in (\S+): (.+)", _Reader.omission),
        (r"header (\S+) sha256 ([0-9a-f]{64})", _Reader.header),
        (r"target (\w+)", _Reader.target),
        (
            r"model long (?P<long>\d+), pointer (?P<pointer>\d+), (?P<order>big|little) endian,"
            r" (?P<char>signed|unsigned) char, (?P<bits>sysv|aapcs|ms) bit-fields,"
            r" __int128 aligned (?P<wide>\d+)",
            _Reader.model,
        ),
        (r"origin (.+)", _Reader.origin),
    )
]
