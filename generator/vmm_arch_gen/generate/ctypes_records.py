"""C records as ctypes records that have the target's layout on whatever machine imports them.

ctypes lays out a record by the rules of the machine that it runs on. What is said here leaves it
no choice: every type has a fixed width, all padding is a member, and bit-fields fill whole units.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from vmm_arch_gen.abi.layout import Layouts
from vmm_arch_gen.abi.model import Abi, Member, Record
from vmm_arch_gen.abi.types import Array, Function, Named, Pointer, Scalar, Type, spell
from vmm_arch_gen.generate.names import member_name, python_name
from vmm_arch_gen.generate.values import Values


class Inexpressible(Exception):
    """ctypes has no way to say a type; the message names it."""


class _Unsayable(Exception):
    """Why ctypes cannot say it."""


@dataclass(frozen=True)
class CType:
    """A type as ctypes says it."""

    expression: str
    annotation: str
    """What reading a member of the type gives."""
    size: int
    """In bytes."""
    align: int
    """What ctypes aligns it to, on a machine that aligns every integer to its size."""
    stated: int = 0
    """What the record says that it is aligned to, if it says anything."""


_SHORT = {
    **{f"c_{u}int{bits}": f"{u or 'i'}{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)},
    "c_float": "f32",
    "c_double": "f64",
    "c_char": "char",
    "c_bool": "boolean",
}
"""What templates/vmm_arch/abi/records.py calls the types of ctypes."""


@dataclass(frozen=True)
class Field:
    name: str
    type: CType
    bits: int | None
    role: Literal["member", "unnamed", "filler"]
    """The header's own with a name, the header's own without one, or not in the header."""
    start: int
    """In bits."""
    constants: tuple[str, str] | None = None
    """What tells its values' names: one_of or any_of, and how the names begin."""
    hidden: bool = False
    """Whether the type's name means something else inside the class."""
    lends: tuple[tuple[str, str], ...] = ()
    """Of an unnamed member, the names and annotations that the record around it has from it."""

    @property
    def makers(self) -> tuple[str, ...]:
        """The names of templates/vmm_arch/abi/records.py that :attr:`made_with` uses."""
        return tuple(word for word in re.findall(r"\w+", self.made_with) if word in MAKERS)

    @property
    def statement(self) -> str:
        """What a class body says of the member."""
        annotation = f": {self.type.annotation}" if self.role == "member" else ""
        return f"{self.name}{annotation} = {self.made_with}"

    @property
    def made_with(self) -> str:
        """What a class body makes the member with."""
        text = re.sub(r"\bc_\w+", lambda match: _SHORT[match[0]], self.type.expression)
        if self.hidden:
            counts = re.findall(r"\* (\d+)", text)
            named = ", ".join([f'"{_head(text)}"', *reversed(counts)])
            named = f"of({named})"
            return f"unnamed({named})" if self.role == "unnamed" else named
        if self.constants is not None:
            maker, prefix = self.constants
            return f'{maker}({text}, "{prefix}")'
        if self.role == "unnamed":
            return f"unnamed({text})"
        if self.bits is not None:
            return f"bit_field({text}, {self.bits})"
        return f"of({text})" if text == self.type.expression else text


MAKERS = (*_SHORT.values(), "any_of", "bit_field", "of", "one_of", "unnamed")


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
    def annotations(self) -> tuple[tuple[str, str], ...]:
        """Name and type of everything that C finds in it by name."""
        return tuple(
            pair
            for field in self.fields
            for pair in (
                [(field.name, field.type.annotation)] if field.role == "member" else field.lends
            )
        )


_RESERVED = {"_fields_", "_anonymous_", "_pack_", "_layout_", "_align_", "_swappedbytes_"}


class Translator:
    """Translates the types of one target."""

    def __init__(self, abi: Abi, values: Values | None = None) -> None:
        self._abi = abi
        self._values = values or Values({})
        self._layouts = Layouts.of_abi(abi)
        self._records: dict[str, CtypesRecord] = {}

    def scalar(self, type: Scalar) -> CType:
        size, _ = self._layouts.of(type)
        match type.name:
            case "char":
                return CType("c_char", "bytes", 1, 1)
            case "_Bool" if self._abi.model.byte_order == "little":
                return CType("c_bool", "bool", 1, 1)
            case "_Bool":  # ctypes has none for the other byte order
                return self._integer(1, signed=False)
            case "float" | "double":
                return CType(f"c_{type.name}", "float", size, size)
            case "__int128" | "unsigned __int128":
                return CType("c_uint64 * 2", "Array[c_uint64]", 16, 8)
        return self._integer(size, self._layouts.signed(type))

    def _integer(self, size: int, signed: bool) -> CType:
        return CType(f"c_{'' if signed else 'u'}int{size * 8}", "int", size, size)

    def member(self, type: Type) -> CType:
        """A type as it is in a record: a pointer is an integer of the target's width."""
        resolved = self._layouts.resolve(type)
        match resolved:
            case Scalar():
                return self.scalar(resolved)
            case Pointer():
                return self._integer(self._abi.model.pointer, signed=False)
            case Array(of, count):
                element = self.member(of)
                inner = element.expression
                inner = f"({inner})" if " " in inner else inner
                annotation = f"Array[{_class(element.expression)}]"
                if element.expression == "c_char":
                    annotation = "bytes"
                length = count or 0  # a flexible array is one without elements
                size = element.size * length
                expression = f"{inner} * {length}"
                return CType(expression, annotation, size, element.align, element.stated)
            case Named(name) if name in self._abi.records:
                record = self.record(name)
                align = (
                    1 if record.packed else max((f.type.align for f in record.fields), default=1)
                )
                return CType(record.name, record.name, record.size, align, record.align)
        raise _Unsayable(f"{spell(type)} is incomplete")

    def argument(self, type: Type) -> str:
        """A type as a function takes or gives it: pointers are pointers; None for void."""
        resolved = self._layouts.resolve(type)
        match resolved:
            case Scalar("void"):
                return "None"
            case Pointer() | Array() | Function():
                return "c_void_p"
        return self.member(resolved).expression

    def callback(self, type: Type) -> tuple[str, ...]:
        """The result and arguments of what a function pointer points to; empty for other types."""
        resolved = self._layouts.resolve(type)
        function = self._layouts.resolve(resolved.to) if isinstance(resolved, Pointer) else None
        if not isinstance(function, Function):
            return ()
        return tuple(map(self.argument, (function.result, *(of for _, of in function.parameters))))

    def alias(self, type: Type) -> str:
        """A type as something to make objects and arrays of."""
        array = isinstance(self._layouts.resolve(type), Array)
        return self.member(type).expression if array else self.argument(type)

    def has_objects(self, type: Type) -> bool:
        """Whether there can be objects of a type: not of void, functions and opaque records."""
        match self._layouts.resolve(type):
            case Scalar("void") | Function():
                return False
            case Named(name):
                return name in self._abi.records
        return True

    def record(self, key: str) -> CtypesRecord:
        if key not in self._records:
            try:
                self._records[key] = self._translate(self._abi.records[key])
            except _Unsayable as error:
                raise Inexpressible(f"{key}: {error}") from None
        return self._records[key]

    def _translate(self, record: Record) -> CtypesRecord:
        layout = self._layouts.record(record.key)
        placed = list(zip(record.members, layout.offsets, strict=True))
        build = self._union if record.kind == "union" else self._struct
        built = tuple(build(placed, layout.size))
        members = {field.name for field in built if field.role == "member"}
        fields = tuple(
            replace(field, constants=self._constants(record, field), hidden=_hidden(field, members))
            for field in built
        )
        aligns = [field.type.align for field in fields]
        packed = layout.size % max(aligns, default=1) != 0 or any(
            field.start % (field.type.align * 8) for field in fields if field.bits is None
        )
        names = [name for field in fields for name in (field.name, *dict(field.lends))]
        if unusable := [n for n in names if names.count(n) > 1 or n in _RESERVED]:
            raise _Unsayable(f"ctypes cannot have a member called {unusable[0]} here")
        base = f"{self._abi.model.byte_order.title()}{record.kind.title()}"
        inherits = not packed and any(field.type.stated for field in fields)
        align = layout.align if inherits or layout.align > 8 else 0
        return CtypesRecord(
            python_name(record.key), record, layout.size, fields, packed, align, base
        )

    def _constants(self, record: Record, field: Field) -> tuple[str, str] | None:
        number = field.role == "member" and field.type.annotation == "int" and field.bits is None
        return self._values.of(self._abi, record, field.name) if number else None

    def _plain(self, member: Member, start: int) -> Field:
        type = self.member(member.type)
        if member.name:
            return Field(member_name(member), type, None, "member", start)
        assert isinstance(member.type, Named)  # only a record can be a member without a name
        lends = self.record(member.type.name).annotations
        return Field(member_name(member), type, None, "unnamed", start, lends=lends)

    def _union(self, placed: Sequence[tuple[Member, int]], size: int) -> Iterator[Field]:
        if sum(member.bits is not None and bool(member.name) for member, _ in placed) > 1:
            # CPython 3.11 puts the second one behind the first.
            raise _Unsayable("ctypes cannot have two bit-fields in a union")
        longest = 0
        for member, start in placed:
            if member.bits is None:
                field = self._plain(member, start)
            elif not member.name:
                continue  # an unnamed bit-field of a union holds nothing
            else:
                width, _ = self._layouts.of(member.type)
                if width > size:  # as in a packed union
                    bits, _ = _smallest_unit(member, start, member.bits, 0, size * 8)
                    width = bits // 8
                unit = self._unit(member, width)
                field = Field(member_name(member), unit, member.bits, "member", start)
            longest = max(longest, field.type.size)
            yield field
        if longest < size:
            yield _pad("_pad_0", 0, size)

    def _struct(self, placed: Sequence[tuple[Member, int]], size: int) -> Iterator[Field]:
        end = 0  # of what has been said so far, in bits
        index = 0
        for bit_fields, run in groupby(placed, key=lambda item: item[0].bits is not None):
            members = list(run)
            index += len(members)
            limit = placed[index][1] if index < len(placed) else size * 8
            if bit_fields:
                fields = self._bit_fields(members, end, limit)
            else:
                fields = [self._plain(member, start) for member, start in members]
            for field in fields:
                width = field.type.size * 8
                start = field.start if field.bits is None else field.start // width * width
                if field.bits is None or start >= end:  # else it is in a unit already begun
                    yield from _padding(end, start)
                end = max(end, start + width)
                yield field
        yield from _padding(end, size * 8)

    def _unit(self, member: Member, size: int) -> CType:
        """An integer of ``size`` bytes to hold a bit-field."""
        type = self._layouts.resolve(member.type)
        return self._integer(size, isinstance(type, Scalar) and self._layouts.signed(type))

    def _bit_fields(self, run: list[tuple[Member, int]], begin: int, limit: int) -> list[Field]:
        """A run of neighbouring bit-fields between the bits ``begin`` and ``limit``.

        Bit-fields that share a unit are given that unit's type; what is free in it is filled, so
        that every compiler's rules put them in the same place.
        """
        run = [(member, start) for member, start in run if member.name]  # the rest is filled anyway
        units: list[tuple[int, int, list[tuple[Member, int]]]] = []
        for member, start in run:
            bits = member.bits or 0
            size = self._layouts.of(member.type)[0] * 8
            first = start // size * size
            if start + bits > first + size or first < begin or first + size > limit:
                size, first = _smallest_unit(member, start, bits, begin, limit)
            if units and first < units[-1][0] + units[-1][1]:  # of two units, one holds the other
                first, size = max(units[-1][:2], (first, size), key=lambda unit: unit[1])
                units[-1] = (first, size, [*units[-1][2], (member, start)])
            else:
                units.append((first, size, [(member, start)]))
        fields: list[Field] = []
        for index, (first, size, members) in enumerate(units):
            if index and size != units[index - 1][1]:
                # CPython 3.11 would let a larger unit begin where the smaller one began.
                fields.append(_pad(f"_unit_{first}", first, 0))
            end = first
            for member, start in members:
                unit = self._unit(member, size // 8)
                if start > end:
                    fields.append(_filler(end, start - end, unit))
                fields.append(Field(member_name(member), unit, member.bits, "member", start))
                end = start + (member.bits or 0)
            if end < first + size:
                fields.append(_filler(end, first + size - end, unit))
        return fields


def _head(text: str) -> str:
    """The first name in a text."""
    match = re.search(r"[^\W\d]\w*", text)
    assert match is not None
    return match[0]


def _hidden(field: Field, members: Collection[str]) -> bool:
    """Whether a class body cannot use the name of a member's type.

    Python puts the class's name before names that begin with two underscores; and a member may be
    called as a type is: ``struct ist_info ist_info``.
    """
    name = _head(_SHORT.get(_head(field.type.expression), field.type.expression))
    if field.bits is not None and name in members:
        raise _Unsayable(f"a member called {name} hides the type of the bit-fields")
    return name.startswith("__") or name in members


def _smallest_unit(
    member: Member, start: int, bits: int, begin: int, limit: int
) -> tuple[int, int]:
    for size in (8, 16, 32, 64):
        first = start // size * size
        if first >= begin and start + bits <= first + size <= limit:
            return size, first
    raise _Unsayable(f"the bit-field {member.name} shares bytes that ctypes cannot share")


def _filler(start: int, bits: int, unit: CType) -> Field:
    return Field(f"_bits_{start}", unit, bits, "filler", start)


def _padding(end: int, start: int) -> Iterator[Field]:
    if start < end:
        raise _Unsayable("members overlap in a way that ctypes cannot express")
    if start > end:
        yield _pad(f"_pad_{end // 8}", end, (start - end) // 8)


def _pad(name: str, start: int, size: int) -> Field:
    type = CType(f"c_uint8 * {size}", "Array[c_uint8]", size, 1)
    return Field(name, type, None, "filler", start)


def _class(expression: str) -> str:
    """The class of an array's elements: ``Array[c_uint8]`` for those of a two-dimensional array."""
    if " * " not in expression:
        return expression
    inner = expression.rpartition(" * ")[0]
    return f"Array[{_class(inner.removeprefix('(').removesuffix(')'))}]"
