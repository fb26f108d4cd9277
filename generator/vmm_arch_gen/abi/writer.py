"""A target's facts to the text of its .abi file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from vmm_arch_gen.abi.expression_text import spell as spell_expression
from vmm_arch_gen.abi.layout import Layouts
from vmm_arch_gen.abi.model import (
    Abi,
    Constant,
    Enum,
    Ioctl,
    MacroFunction,
    Member,
    Omission,
    Record,
    Typedef,
    VerifiedAbi,
)
from vmm_arch_gen.abi.text import FORMAT, MAGIC, digest, quoted, unnamed_in
from vmm_arch_gen.abi.types import spell

_NAMES = 80
"""How many characters the names of members on one line may take."""


def digest_of(abi: VerifiedAbi) -> str:
    """The digest of a target's facts, which is the end of its .abi file."""
    return write_abi(abi).split()[-1]


def write_abi(abi: VerifiedAbi) -> str:
    """The text of a target's .abi file."""
    named = (record for record in abi.records.values() if not record.unnamed)
    records = _Records(abi)
    lines = [
        f"{MAGIC} {FORMAT}",
        f"target {abi.target}",
        f"model long {abi.model.long}, pointer {abi.model.pointer}, {abi.model.byte_order} endian,"
        f" {'signed' if abi.model.signed_char else 'unsigned'} char,"
        f" {abi.model.bit_fields} bit-fields, __int128 aligned {abi.model.int128_align}"
        + (f", long double {abi.model.long_double}" if abi.model.long_double != 16 else ""),
        f"origin {abi.origin}, sha256 {abi.headers_digest}",
        f"ioctl_rules {abi.ioctl_rules}",
        *(f"header {name}" for name in abi.headers),
        *(f"constant {c.name} = {_number(c)} in {c.header}" for c in abi.constants),
        *(f"string {s.name} = {quoted(s.value)} in {s.header}" for s in abi.strings),
        *(line for key in sorted(abi.enums) for line in _enum_lines(abi.enums[key])),
        *(f"function {f.name} is {spell(f.type)} in {f.header}" for f in abi.functions),
        *(_ioctl_line(ioctl) for ioctl in abi.ioctls),
        *(_macro_line(macro) for macro in abi.macros),
        *(line for record in sorted(named, key=_without_kind) for line in records.lines(record)),
        *(_typedef_line(abi.typedefs[name]) for name in sorted(abi.typedefs)),
        *_omission_lines(abi.omissions),
    ]
    text = "".join(f"{line}\n" for line in lines)
    return f"{text}end sha256 {digest(text)}\n"


def _number(constant: Constant) -> str:
    return hex(constant.value) if constant.radix == 16 else str(constant.value)


def _enum_lines(enum: Enum) -> Iterator[str]:
    yield f"{_definition('enum', enum.key)} is {enum.underlying.name} in {enum.header}"
    for name, value in enum.enumerators:
        yield f"  {name} = {value}"


def _ioctl_line(ioctl: Ioctl) -> str:
    argument = f" {spell(ioctl.argument)}" if ioctl.argument else ""
    return f"ioctl {ioctl.name} = {ioctl.value:#x} {ioctl.direction}{argument} in {ioctl.header}"


def _macro_line(macro: MacroFunction) -> str:
    head = f"macro {macro.name}({', '.join(macro.parameters)}) -> {macro.value.type.name}"
    return f"{head} = {spell_expression(macro.value)} in {macro.header}"


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


def _packed(packed: bool) -> str:
    return " packed" if packed else ""


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
        packed = _packed(record.packed) + (f" pack({record.pack})" if record.pack else "")
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
            line = f"{indent}@ {at} {names} {spell(member.type)}"
            line += _packed(member.packed) + _aligned(member.aligned)
            inner = unnamed_in(spell(member.type))
            if inner is None or inner in self._written:
                yield line
            else:
                self._written.add(inner)
                unnamed = self._abi.records[inner]
                head = f"{line} is {self._measures(unnamed)}"
                yield from self._with_members(head, unnamed, f"{indent}  ")

    def _runs(self, record: Record) -> Iterator[tuple[list[Member], int]]:
        """The members by line, with the offset in bits of the first one on it."""
        run: list[Member] = []
        begin = following = 0
        for member, offset in zip(
            record.members, self._abi.layouts[record.key].offsets, strict=True
        ):
            stated = member.aligned or member.packed
            alone = member.bits is not None or stated or not member.name
            full = sum(len(neighbour.name) + 2 for neighbour in run) + len(member.name) > _NAMES
            if run and (alone or full or offset != following or member.type != run[0].type):
                yield run, begin
                run = []
            if not run:
                begin = offset
            run.append(member)
            if alone or unnamed_in(spell(member.type)) not in {None, *self._written}:
                yield run, begin
                run = []
            size = 0 if record.kind == "union" else self._layouts.of(member.type)[0] * 8
            following = offset + size
        if run:
            yield run, begin
