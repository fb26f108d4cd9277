"""C records as ctypes records that have the target's layout on whatever machine imports them.

ctypes lays out a record by the rules of the machine that it runs on. What is written here leaves it
no choice: every type has a fixed width, all padding is a member, and bit-fields fill whole units.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from vmm_arch_gen.abi.model import Abi, Member, Record
from vmm_arch_gen.abi.types import Array, Named, Type
from vmm_arch_gen.diagnostics import Problem, refuse
from vmm_arch_gen.generate.bit_fields import Placed, as_views, in_units, pad
from vmm_arch_gen.generate.ctypes_types import SHORT, CType, Inexpressible, Types
from vmm_arch_gen.generate.names import member_name, python_name, type_names
from vmm_arch_gen.generate.record_fields import Field
from vmm_arch_gen.generate.values import Values


@dataclass(frozen=True)
class CtypesRecord:
    name: str
    record: Record
    size: int
    fields: tuple[Field, ...]
    packed: bool
    """Whether members lie where ctypes would not put them without being told."""

    align: int
    """What C aligns its objects to, if Python has to be told: more than 8 bytes; else 0."""

    base: str
    """The class of templates/vmm_arch/abi/records.py that it derives from."""

    @property
    def members(self) -> tuple[tuple[str, CType], ...]:
        """Name and type of everything that C finds in it by name."""
        return tuple(member for field in self.fields for member in field.members)

    @property
    def type(self) -> CType:
        """The record as the type of a member."""
        align = 1 if self.packed else _largest(self.fields)
        return CType(self.name, self.size, align, stated=self.align)


def ctypes_records(abi: Abi, types: Types, values: Values) -> tuple[CtypesRecord, ...]:
    """All records of a target, each after those that it contains; they are added to ``types``.

    InputError names the records that ctypes cannot express.
    """
    translation = _Translation(abi, types, values)
    problems = []
    for key in _containment_order(abi):
        try:
            translation.add(abi.records[key])
        except Inexpressible as error:
            remedy = "report it with the header: the generator has to learn this"
            problems.append(Problem(abi.target, f"{key}: {error}", remedy))
            # What contains it is another matter.
            types.add(key, CType(key, abi.layouts[key].size, 1))
    refuse(problems)
    return tuple(translation.records.values())


def _containment_order(abi: Abi) -> Iterator[str]:
    """The records by name, but each after those that it contains."""
    done: set[str] = set()

    def visit(key: str) -> Iterator[str]:
        if key in done:
            return
        done.add(key)
        for member in abi.records[key].members:
            if inner := _contained(abi, member.type):
                yield from visit(inner)
        yield key

    for key in sorted(abi.records, key=python_name):
        yield from visit(key)


def _contained(abi: Abi, type: Type) -> str | None:
    """The record that there is one of, or an array of, in what has a member of a type."""
    while not (isinstance(type, Named) and type.name in abi.records):
        if isinstance(type, Array):
            type = type.of
        elif isinstance(type, Named) and type.name in abi.typedefs:
            type = abi.typedefs[type.name].type
        else:
            return None
    return type.name


class _Translation:
    """The records of one target, one after the other."""

    def __init__(self, abi: Abi, types: Types, values: Values) -> None:
        self._abi, self._types, self._values = abi, types, values
        self._names = type_names(abi).records
        self.records: dict[str, CtypesRecord] = {}

    def add(self, record: Record) -> None:
        """Translate a record whose parts have been added; Inexpressible says what cannot be."""
        layout = self._abi.layouts[record.key]
        placed = list(zip(record.members, layout.offsets, strict=True))
        build = self._union if record.kind == "union" else self._struct
        built = tuple(build(placed, layout.size))
        members = {name for field in built for name, _ in field.members}
        own = {field.name for field in built if field.role == "member"}
        fields = tuple(
            replace(
                field,
                name=field.name if field.role == "member" else _free(field.name, members),
                constants=self._constants(record, field),
                hidden=_hidden(field, own),
            )
            for field in built
        )
        packed = layout.size % _largest(fields) != 0 or any(
            field.start % (field.type.align * 8) for field in fields if field.bits is None
        )
        inherits = not packed and any(field.type.stated for field in fields)
        translated = CtypesRecord(
            name=self._names[record.key],
            record=record,
            size=layout.size,
            fields=fields,
            packed=packed,
            align=layout.align if inherits or layout.align > 8 else 0,
            base=f"{self._abi.model.byte_order.title()}{record.kind.title()}",
        )
        self.records[record.key] = translated
        self._types.add(record.key, translated.type)

    def _constants(self, record: Record, field: Field) -> tuple[str, str] | None:
        number = field.role == "member" and field.type.annotation() == "int" and field.bits is None
        return self._values.of(self._abi, record, field.name) if number else None

    def _plain(self, member: Member, start: int) -> Field:
        type = self._types.member(member.type)
        if member.name:
            return Field(member_name(member), type, "member", start)
        assert isinstance(member.type, Named)  # only a record can be a member without a name
        inner = self.records.get(member.type.name)  # which there is not if it cannot be expressed
        lends = inner.members if inner else ()
        return Field(member_name(member), type, "unnamed", start, lends=lends)

    def _union(self, placed: Sequence[Placed], size: int) -> Iterator[Field]:
        """In a union ctypes' places for bit-fields depend on its version: they are properties."""
        fields = as_views([item for item in placed if item[0].bits is not None], 0, self._types)
        fields += [self._plain(member, start) for member, start in placed if member.bits is None]
        yield from fields
        if max((field.type.size for field in fields), default=0) < size:
            yield pad("_pad_0", 0, size)

    def _struct(self, placed: Sequence[Placed], size: int) -> Iterator[Field]:
        names = {member_name(member) for member, _ in placed}
        end = 0  # of what is written so far, in bits
        index = 0
        for bit_fields, run in groupby(placed, key=lambda item: item[0].bits is not None):
            members = list(run)
            index += len(members)
            limit = placed[index][1] if index < len(placed) else size * 8
            if bit_fields:
                fields = self._bit_fields(members, end, limit, names)
            else:
                fields = [self._plain(member, start) for member, start in members]
            for field in fields:
                if not field.view:
                    width = field.type.size * 8
                    start = field.start if field.bits is None else field.start // width * width
                    if field.bits is None or start >= end:  # else it is in a unit already begun
                        yield from _padding(end, start)
                    end = max(end, start + width)
                yield field
        yield from _padding(end, size * 8)

    def _bit_fields(
        self, run: Sequence[Placed], begin: int, limit: int, members: Collection[str]
    ) -> list[Field]:
        try:
            fields = in_units(run, begin, limit, self._types)
        except Inexpressible:
            return as_views(run, begin, self._types)
        hidden = any(_hidden(field, members) for field in fields)
        return as_views(run, begin, self._types) if hidden else fields


def _largest(fields: Iterable[Field]) -> int:
    """The alignment of what is aligned most."""
    return max((field.type.align for field in fields), default=1)


def _free(name: str, members: Collection[str]) -> str:
    """A name for what has none in C."""
    while name in members:
        name += "_"
    return name


def _hidden(field: Field, members: Collection[str]) -> bool:
    """Whether a class body cannot use the name of a member's type.

    Python puts the class's name before names that begin with two underscores; and a member may be
    called as a type is: ``struct ist_info ist_info``.
    """
    name = SHORT.get(field.type.name, field.type.name)
    return name.startswith("__") or name in members


def _padding(end: int, start: int) -> Iterator[Field]:
    if start < end:
        raise Inexpressible("members overlap in a way that ctypes cannot express")
    if start > end:
        yield pad(f"_pad_{end // 8}", end, (start - end) // 8)
