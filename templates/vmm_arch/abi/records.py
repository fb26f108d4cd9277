"""Base classes for the records of the raw ABIs: a class body lists members, which are the layout.

The member types have the same size on every machine, and all padding is explicit. ::

    class kvm_userspace_memory_region(LittleStruct):
        slot: int = u32
        flags: int = any_of(u32, "KVM_MEM_")

An array of chars is ``bytes``, and always all of it: reading does not stop at a zero; what is
assigned is followed by zeros to the end of the array, and refused if it is longer than that.

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
char: Any = ctypes.c_char
boolean: Any = ctypes.c_bool


def of(kind: Any, *counts: int) -> Any:
    """A member that is a record, or an array of records.

    It is given as a string, with the dimensions of the array, if the class body rebinds its name.
    """
    return _Named(kind, counts) if isinstance(kind, str) else kind


def bit_field(kind: Any, width: int) -> Any:
    """A bit-field; it shares its integer with its neighbours."""
    return _BitField(kind, width)


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
    return _Unnamed(kind)


def one_of(kind: Any, prefix: str) -> Any:
    """A member whose value is one of the constants with this prefix."""
    return _Constants(kind, prefix, False)


def any_of(kind: Any, prefix: str) -> Any:
    """A member whose bits are constants with this prefix."""
    return _Constants(kind, prefix, True)


class _Named:
    def __init__(self, name: str, counts: tuple[int, ...]) -> None:
        self.name, self.counts = name, counts
        self.field = (self,)

    def resolve(self, names: Mapping[str, Any]) -> Any:
        kind = names[self.name]
        for count in reversed(self.counts):
            kind *= count
        return kind


class _BitField:
    def __init__(self, kind: Any, width: int) -> None:
        self.field = (kind, width)


class _Unnamed:
    def __init__(self, kind: Any) -> None:
        self.field = (kind,)


class _Constants:
    def __init__(self, kind: Any, prefix: str, flags: bool) -> None:
        self.field = (kind,)
        self.names = (prefix, flags)


_MADE = frozenset((_BitField, _Unnamed, _Constants, _Named))
_Simple: Any = type(ctypes.c_uint8)
_Array: Any = type(ctypes.Array)


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
        order = record._order_
        data = self._bytes.from_buffer(record, self.offset)
        value = int.from_bytes(data, order) >> self._shifts[order] & self._ones
        return value - self._ones - 1 if self.signed and value >> self.width - 1 else value

    def __set__(self, record: Any, value: int) -> None:
        if not isinstance(value, int):  # as ctypes has it; and larger numbers lose their high bits
            raise TypeError(f"int expected instead of {type(value).__name__} instance")
        order = record._order_
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


def _with_rows(kind: Any) -> Any:
    """An array with more than one dimension; of chars, its innermost rows are bytes."""
    row = kind._type_
    if type(row) is not _Array:
        return kind
    if row._type_ is not ctypes.c_char:
        inner = _with_rows(row)
        return kind if inner is row else inner * kind._length_
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


def _record(metaclass: Any, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
    """Make a record from a class body. There are hundreds, so this is written for speed."""
    fields: list[tuple[Any, ...]] = []
    anonymous: list[str] = []
    chars: list[str] = []
    bits: dict[str, _Bits] = {}
    lent: list[tuple[str, dict[str, Any]]] = []
    align, most = None, 8
    namespace: dict[str, Any] = {"__slots__": ()}  # so that there are no other attributes
    for member, value in body.items():
        if member[0] == "_":
            if member[:2] == "__":
                namespace[member] = value
                continue
            if member == "_pack_":  # Python 3.14 wants the name of rules that allow it
                namespace |= {"_pack_": value, "_layout_": "ms"}
                continue
            if member == "_align_":  # not for newer ctypes to see, which would add padding
                align = value
                continue
            mangled = f"_{name.lstrip('_')}"  # what Python puts before two underscores
            if member.startswith(f"{mangled}__"):
                member = member[len(mangled) :]
        how = type(value)
        if how is _Simple:
            fields.append((member, value))
            continue
        if how in _MADE:
            kind, *width = value.field
            if type(kind) is _Named:
                kind = kind.resolve(sys._getframe(1).f_globals)
            if how is _Unnamed:
                anonymous.append(member)
                if kind._views_:
                    lent.append((member, kind._views_))
            elif how is _Constants:
                namespace.setdefault("_names_", {})[member] = value.names
        elif how is _Bits:
            bits[member] = value
            continue
        else:
            kind, width = value, []
        if type(kind) is _Array:
            if kind._type_ is ctypes.c_char:
                chars.append(member)
                kind = ctypes.c_uint8 * kind._length_
            else:
                kind = _with_rows(kind)
        else:
            most = max(most, getattr(kind, "_aligned_", 8))
        fields.append((member, kind, *width))
    if anonymous:
        namespace["_anonymous_"] = anonymous
    if type(bases[0]) is metaclass:  # else it is one of the classes below
        namespace["_fields_"] = fields
    if align is None and "_pack_" not in namespace:  # then it is its members', as in C
        align = most
    if align and align > 8:
        from vmm_arch.abi.alignment import aligned

        metaclass, more = aligned(metaclass, align)
        namespace |= more
    record: Any = metaclass._ctypes.__new__(metaclass, name, bases, namespace)
    if metaclass._is_union:  # Python 3.11 knows not that it can be in another byte order
        record.__ctype_le__ = record.__ctype_be__ = record
    if chars or bits or lent:
        record._pending_ = chars, bits, lent
        if not _SET_UP_LATER:
            _add_views(record)
    return record


_SET_UP_LATER = sys.version_info >= (3, 13)
"""Whether ctypes makes a record's members only when the class is initialised."""


def _set_up(record: Any, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> None:
    type(record)._ctypes.__init__(record, name, bases, body)
    if "_pending_" in vars(record):
        _add_views(record)


def _add_views(record: Any) -> None:
    """Give a record the members that are properties, and those of its anonymous members."""
    chars, bits, lent = record._pending_
    del record._pending_
    views: dict[str, Any] = {name: _Bytes(record, name) for name in chars} | bits
    for member, inner in lent:
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


def _base(name: str, kind: type, order: str) -> Any:
    """A base class of records: ``kind``, with class bodies that are read as above."""
    is_union = issubclass(kind, ctypes.Union)
    body: dict[str, Any] = {"__new__": _record, "_ctypes": type(kind), "_is_union": is_union}
    if _SET_UP_LATER:
        body["__init__"] = _set_up
    metaclass: Any = type(f"_{name}", (type(kind),), body)
    methods = {"__repr__": _repr, "__reduce__": _reduce}
    base = metaclass(name, (kind,), {"__module__": __name__, **methods})
    base._order_ = order
    base._aligned_ = 8  # as everything that Python allocates is
    base._names_ = {}  # of members, what their constants' names begin with; records add theirs
    base._views_ = {}  # members that are properties, also those of anonymous members
    base._bits_ = ()  # those that are bit-fields of its own
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
