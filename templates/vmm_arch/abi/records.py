"""Base classes for the records of the raw ABIs: a class body lists members, which are the layout.

The member types have the same size on every machine, and all padding is explicit. ::

    class kvm_userspace_memory_region(LittleStruct):
        slot: int = u32
        flags: int = any_of(u32, "KVM_MEM_")

An array of chars is ``bytes``, and always all of it: reading does not stop at a zero; what is
assigned is followed by zeros to the end of the array, and refused if it is longer than that.

The classes here are for class statements alone; a record's own bases are ctypes'.

A record's ``repr`` shows numbers in hexadecimal, and constants by name where a member's constants
are known.

ctypes places an object wherever Python's allocator has room, regardless of its type's alignment. A
record that C aligns more strictly has ``_align_``, and is aligned however it is made: alone,
copied, unpickled, or in an array (``WHV_REGISTER_VALUE * 4``), which is the way to allocate several
of them. A view of misaligned memory is refused.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

# A member's declaration has another type than its value, so type checkers are given Any.
i8: Any = ctypes.c_int8
i16: Any = ctypes.c_int16
i32: Any = ctypes.c_int32
i64: Any = ctypes.c_int64
u8: Any = ctypes.c_uint8
u16: Any = ctypes.c_uint16
u32: Any = ctypes.c_uint32
u64: Any = ctypes.c_uint64
f32: Any = ctypes.c_float
f64: Any = ctypes.c_double
boolean: Any = ctypes.c_bool


def of(kind: Any, *counts: int) -> Any:
    """A member that is a record, or an array of records.

    It is given as a string, with the dimensions of the array, if the class body rebinds its name.
    """
    return _Named(kind, counts) if isinstance(kind, str) else kind


def bit_field(kind: Any, width: int) -> Any:
    """A bit-field; it shares its integer with its neighbours."""
    return _Member(kind, width)


def bits_at(start: int, width: int) -> Any:
    """A bit-field that ctypes cannot place: a property over bytes that are listed as a member.

    ``start`` is in bits from the beginning of the record, in the order in which the target
    allocates them: from the lowest bit of a byte on, or with big-endian numbers from the highest.
    """
    return _Bits(start, width, signed=False)


def signed_bits_at(start: int, width: int) -> Any:
    """The same for a signed bit-field."""
    return _Bits(start, width, signed=True)


def unnamed(kind: Any) -> Any:
    """An anonymous member, whose members are also members of the enclosing record."""
    return _Member(kind, anonymous=True)


def one_of(kind: Any, prefix: str) -> Any:
    """A member whose value is one of the constants with this prefix."""
    return _Member(kind, names=(prefix, False))


def any_of(kind: Any, prefix: str) -> Any:
    """A member whose bits are constants with this prefix."""
    return _Member(kind, names=(prefix, True))


class _Named:
    """A type whose name the class body rebinds."""

    def __init__(self, name: str, counts: tuple[int, ...]) -> None:
        self.name, self.counts = name, counts

    def resolve(self, names: Mapping[str, Any]) -> Any:
        kind = names[self.name]
        for count in reversed(self.counts):
            kind *= count
        return kind


class _Chars:
    """A char, or an array of them."""

    def __init__(self, *counts: int) -> None:
        self.counts = counts

    def __mul__(self, count: int) -> _Chars:
        return _Chars(count, *self.counts)

    def kind(self) -> Any:
        """What ctypes has in the record: an array is bytes, whose innermost rows are read whole."""
        if len(self.counts) < 2:
            return ctypes.c_uint8 * self.counts[0] if self.counts else ctypes.c_char
        *outer, count, size = self.counts
        kind = _rows(count, size)
        for count in reversed(outer):
            kind *= count
        return kind


char: Any = _Chars()


class _Member:
    """A member of which there is more to say than its type."""

    def __init__(
        self,
        kind: Any,
        width: int | None = None,
        anonymous: bool = False,
        names: tuple[str, bool] | None = None,
    ) -> None:
        self.kind, self.width, self.anonymous, self.names = kind, width, anonymous, names


class _Bits:
    """A bit-field as a property of a record, over some of the record's bytes."""

    def __init__(self, start: int, width: int, *, signed: bool) -> None:
        self.start, self.width, self.signed = start, width, signed
        self.offset, first = divmod(start, 8)
        self.size = (first + width + 7) // 8
        self._bytes = ctypes.c_uint8 * self.size
        self._shifts = {"little": first, "big": self.size * 8 - first - width}
        self._ones = (1 << width) - 1

    def within(self, begin: int) -> _Bits:
        """The property of a record that has the one with this bit-field at the bit ``begin``."""
        return _Bits(begin + self.start, self.width, signed=self.signed)

    def __get__(self, record: Any, owner: Any = None) -> Any:
        if record is None:
            return self
        order = type(record)._order_
        data = self._bytes.from_buffer(record, self.offset)
        value = int.from_bytes(data, order) >> self._shifts[order] & self._ones
        return value - self._ones - 1 if self.signed and value >> self.width - 1 else value

    def __set__(self, record: Any, value: int) -> None:
        if not isinstance(value, int):  # as ctypes has it; and larger numbers lose their high bits
            raise TypeError(f"int expected instead of {type(value).__name__} instance")
        order = type(record)._order_
        shift = self._shifts[order]
        data = self._bytes.from_buffer(record, self.offset)
        others = int.from_bytes(data, order) & ~(self._ones << shift)
        number = others | (value & self._ones) << shift
        ctypes.memmove(data, number.to_bytes(self.size, order), self.size)


class _Bytes:
    """An array of chars as a property: ctypes itself reads such an array up to the first zero."""

    def __init__(self, record: Any, name: str) -> None:
        self._field = vars(record)[name]
        self._where = f"{record.__name__}.{name}"

    def __get__(self, record: Any, owner: Any = None) -> Any:
        return self._field if record is None else bytes(self._field.__get__(record))

    def __set__(self, record: Any, value: bytes) -> None:
        chars = _filled(value, self._field.size, self._where)
        ctypes.memmove(self._field.__get__(record), chars, len(chars))


def _filled(value: bytes, size: int, where: str) -> bytes:
    """What an array of chars contains after an assignment."""
    try:
        chars = bytes(memoryview(value))
    except TypeError:
        raise TypeError(f"{where}: expected bytes, got {type(value).__name__}") from None
    if len(chars) > size:
        raise ValueError(f"{where}: {len(chars)} bytes, but there is room for {size}; shorten them")
    return chars.ljust(size, b"\0")


def _rows(count: int, size: int) -> Any:
    """An array of arrays of chars, which are bytes."""
    kind = ctypes.c_char * size * count
    rows: Any = type("Rows", (kind,), {"__getitem__": _get_row, "__setitem__": _set_row})
    rows.__ctype_le__ = rows.__ctype_be__ = rows  # else ctypes makes another array of it
    return rows


def _get_row(rows: Any, index: Any) -> Any:
    found = ctypes.Array.__getitem__(rows, index)
    return [bytes(row) for row in found] if isinstance(index, slice) else bytes(found)


def _set_row(rows: Any, index: Any, value: Any) -> None:
    if isinstance(index, slice):
        raise TypeError("rows of chars are assigned one by one")
    row = ctypes.Array.__getitem__(rows, index)
    ctypes.memmove(row, _filled(value, len(row), f"row {index}"), len(row))


_OF_THE_CLASS = (
    *("__module__", "__qualname__", "__doc__", "__annotations__"),
    *("__firstlineno__", "__static_attributes__"),
)
"""What Python itself puts into the body of a class that has no methods."""
_PLAIN: set[Any] = {type(ctypes.c_uint8), type(ctypes.Array)}
"""The types of types that are a member as they stand; those of records are added below."""


_OF_MEMBERS = (type, _Member, _Named, _Chars, _Bits)
"""The types of what stands for a member in a class body."""


def _record(metaclass: Any, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
    """Make a record from a class body. There are hundreds, so this is written for speed.

    The base class is left out of the record's own bases, for Python looks some 90 names up in each.
    """
    namespace: dict[str, Any] = metaclass._common.copy()
    for key in _OF_THE_CLASS:
        if key in body:
            namespace[key] = body.pop(key)
    bases = metaclass._bases.get(bases, bases)
    mangled = f"_{name.lstrip('_')}__"  # what Python makes of two underscores
    if _PLAIN.issuperset(map(type, body.values())) and mangled not in " ".join(body):
        namespace["_fields_"] = list(body.items())
        return metaclass._ctypes.__new__(metaclass, name, bases, namespace)
    return _elaborate(metaclass, name, bases, body, namespace, mangled)


def _elaborate(
    metaclass: Any,
    name: str,
    bases: tuple[type, ...],
    body: dict[str, Any],
    namespace: dict[str, Any],
    mangled: str,
) -> Any:
    """The same where some members are more than a name and a type."""
    pack, align = body.pop("_pack_", None), body.pop("_align_", None)
    fields: list[tuple[Any, ...]] = []
    names: dict[str, tuple[str, bool]] = {}
    lenders: dict[str, Any] = {}
    chars: list[str] = []
    bits: dict[str, _Bits] = {}
    most = 8
    for member, value in body.items():
        how = type(value)
        if member[:2] == "__" and not isinstance(value, _OF_MEMBERS):  # a method
            namespace[member] = value
            continue
        if member.startswith(mangled):
            member = member[len(mangled) - 2 :]
        if how in _PLAIN:
            fields.append((member, value))
        elif how is _Member:
            kind = _resolved(value.kind)
            fields.append((member, kind, value.width) if value.width else (member, kind))
            most = max(most, getattr(kind, "_aligned_", 8))
            if value.names:
                names[member] = value.names
            if value.anonymous:
                lenders[member] = kind
        elif how is _Bits:
            bits[member] = value
        else:
            kind = _resolved(value)
            if type(kind) is _Chars:
                if len(kind.counts) == 1:
                    chars.append(member)
                kind = kind.kind()
            fields.append((member, kind))
            most = max(most, getattr(kind, "_aligned_", 8))
    namespace["_fields_"] = fields
    if names:
        namespace["_names_"] = names
    if lenders:
        namespace["_anonymous_"] = tuple(lenders)
    if pack is not None:  # Python 3.14 wants the name of rules that allow it
        namespace |= {"_pack_": pack, "_layout_": "ms"}
    elif align is None:  # then it is its members', as in C
        align = most
    # ctypes is not told: newer versions would add padding.
    if align is not None and align > 8:
        from vmm_arch.abi.alignment import aligned

        metaclass, more = aligned(metaclass, align)
        namespace |= more
    lent = {member: kind._views_ for member, kind in lenders.items() if kind._views_}
    if not (chars or bits or lent):
        return metaclass._ctypes.__new__(metaclass, name, bases, namespace)
    namespace["_pending_"] = chars, bits, lent
    if _SET_UP_LATER:
        metaclass = _with_views(metaclass)
    record = metaclass._ctypes.__new__(metaclass, name, bases, namespace)
    if not _SET_UP_LATER:
        _add_views(record)
    return record


def _resolved(kind: Any) -> Any:
    """A type that may be given by its name."""
    if type(kind) is not _Named:
        return kind
    frame: Any = sys._getframe(1)
    names: dict[str, Any] = frame.f_globals
    while names is globals():  # until where the class body stands
        frame = frame.f_back
        names = frame.f_globals
    return kind.resolve(names)


def _swapped_union(*arguments: Any) -> Any:
    """A union in the byte order that is not this machine's, which Python 3.11 has in no record."""
    record = _record(*arguments)
    record.__ctype_le__ = record.__ctype_be__ = record
    return record


_SET_UP_LATER = sys.version_info >= (3, 13)
"""Whether ctypes makes a record's members only when the class is initialised."""


def _with_views(metaclass: Any) -> Any:
    """The metaclass for records of which some members are properties."""
    if "_viewed" not in vars(metaclass):
        viewed: Any = type(metaclass.__name__, (metaclass,), {"__init__": _set_up})
        metaclass._viewed = viewed._viewed = viewed
        if metaclass in _PLAIN:
            _PLAIN.add(viewed)
    return metaclass._viewed


def _set_up(record: Any, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> None:
    type(record)._ctypes.__init__(record, name, bases, body)
    if "_pending_" in vars(record):
        _add_views(record)


def _add_views(record: Any) -> None:
    """Give a record the members that are properties, and those of its anonymous members."""
    chars, bits, lent = record._pending_
    del record._pending_
    views: dict[str, Any] = {name: _Bytes(record, name) for name in chars} | bits
    for member, inner in lent.items():
        begin = vars(record)[member].offset * 8
        for name, view in inner.items():
            bit_field = isinstance(view, _Bits)
            views[name] = view.within(begin) if bit_field else _Bytes(record, name)
    for name, view in views.items():
        setattr(record, name, view)
    record._views_, record._bits_ = views, tuple(bits)


def _repr(record: Any) -> str:
    from vmm_arch.abi.printing import shown

    return shown(record)


def _reduce(record: Any) -> tuple[Any, ...]:
    """Support for copying and pickling, for which ctypes needs a ``__dict__``."""
    return type(record).from_buffer_copy, (bytes(record),)


def _base(name: str, kind: Any, order: str) -> Any:
    """A base class of records: ``kind``, with class bodies that are read as above."""
    swapped_union = issubclass(kind, ctypes.Union) and order != sys.byteorder
    metaclass: Any = type(f"_{name}", (type(kind),), {})
    base = type(kind).__new__(metaclass, name, (kind,), {"__module__": __name__})
    metaclass.__new__ = _swapped_union if swapped_union else _record
    metaclass._ctypes = type(kind)
    metaclass._bases = {(base,): (kind,)}
    metaclass._common = {"__slots__": (), "__repr__": _repr, "__reduce__": _reduce}
    metaclass._order_ = order
    metaclass._aligned_ = 8  # as everything that Python allocates is
    metaclass._names_ = {}  # of members, what their constants' names begin with
    metaclass._views_ = {}  # members that are properties, also those of anonymous members
    metaclass._bits_ = ()  # those that are bit-fields of its own
    _PLAIN.add(metaclass)
    return base


if TYPE_CHECKING:  # for type checkers a record is an ordinary ctypes record
    LittleStruct = ctypes.LittleEndianStructure
    LittleUnion = ctypes.LittleEndianUnion
    BigStruct = ctypes.BigEndianStructure
    BigUnion = ctypes.BigEndianUnion

    RowT = TypeVar("RowT")

    class Rows(Protocol[RowT]):
        """An array of arrays of chars: ``Rows[bytes]``."""

        def __len__(self) -> int: ...
        def __iter__(self) -> Iterator[RowT]: ...
        def __getitem__(self, index: int, /) -> RowT: ...
        def __setitem__(self, index: int, row: RowT, /) -> None: ...

else:
    Rows = ctypes.Array
    LittleStruct = _base("LittleStruct", ctypes.LittleEndianStructure, "little")
    LittleUnion = _base("LittleUnion", ctypes.LittleEndianUnion, "little")
    BigStruct = _base("BigStruct", ctypes.BigEndianStructure, "big")
    BigUnion = _base("BigUnion", ctypes.BigEndianUnion, "big")
