"""Base classes for the records of the raw ABIs: a class body lists members, which are the layout.

The member types have the same size on every machine, and all padding is explicit. ::

    class kvm_userspace_memory_region(LittleStruct):
        slot: int = u32
        flags: int = any_of(u32, "KVM_MEM_")

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
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

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


def bit_field(kind: Any, width: int) -> Any:
    """A bit-field; it shares its integer with its neighbours."""
    return _BitField(kind, width)


def unnamed(kind: Any) -> Any:
    """An anonymous member, whose members are also members of the enclosing record."""
    return _Unnamed(kind)


def one_of(kind: Any, prefix: str) -> Any:
    """A member whose value is one of the constants with this prefix."""
    return _Constants(kind, prefix, False)


def any_of(kind: Any, prefix: str) -> Any:
    """A member whose bits are constants with this prefix."""
    return _Constants(kind, prefix, True)


_MADE = frozenset((_BitField, _Unnamed, _Constants, _Named))


class _Aligned:
    """The metaclass methods of aligned records, and of arrays of them.

    An object is a view of the aligned part of a larger allocation. mypy sees neither that this is
    mixed into ctypes' metaclasses nor what those are, hence its silenced complaints.
    """

    _aligned_: int
    _arrays_: Any

    def from_buffer(cls: Any, source: Any, offset: int = 0) -> Any:
        return _in_place(cls, super().from_buffer(source, offset))  # type: ignore[misc]

    def from_address(cls: Any, address: int) -> Any:
        return _in_place(cls, super().from_address(address))  # type: ignore[misc]

    def from_buffer_copy(cls: Any, source: Any, offset: int = 0) -> Any:
        misplaced = super().from_buffer_copy(source, offset)  # type: ignore[misc]
        copy = cls.__new__(cls)
        ctypes.memmove(ctypes.byref(copy), ctypes.byref(misplaced), ctypes.sizeof(cls))
        return copy

    def __mul__(cls: Any, length: int) -> Any:
        from weakref import WeakValueDictionary

        if "_arrays_" not in vars(cls):
            cls._arrays_ = WeakValueDictionary()
        array = cls._arrays_.get(length)
        if array is None:
            plain = super().__mul__(length)  # type: ignore[misc]
            body = {"__new__": _new_aligned, "_aligned_": cls._aligned_}
            array = cls._arrays_.setdefault(length, _AlignedArray(plain.__name__, (plain,), body))
        return array

    __rmul__ = __mul__


class _AlignedArray(_Aligned, type(ctypes.Array)):  # type: ignore[misc]
    pass


def _new_aligned(cls: Any, *values: Any, **members: Any) -> Any:
    align = cls._aligned_
    room = (ctypes.c_uint8 * (ctypes.sizeof(cls) + align - 1))()
    return cls.from_buffer(room, -ctypes.addressof(room) % align)


def _in_place(kind: Any, view: Any) -> Any:
    misplaced = ctypes.addressof(view) % kind._aligned_
    if misplaced:
        raise ValueError(
            f"{kind.__name__} needs an address that is a multiple of {kind._aligned_}; this one is"
            f" {misplaced} bytes beyond: allocate with {kind.__name__}() or an array, and copy"
        )
    return view


def _record(metaclass: Any, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
    """Make a record from a class body. There are hundreds, so this is written for speed."""
    fields: list[tuple[Any, ...]] = []
    anonymous: list[str] = []
    align, most = None, 0
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
        if type(value) not in _MADE:
            fields.append((member, value))
            if isinstance(value, _Aligned):
                most = max(most, value._aligned_)
            continue
        kind, *width = value.field
        if isinstance(kind, _Named):
            kind = kind.resolve(sys._getframe(1).f_globals)
        fields.append((member, kind, *width))
        if isinstance(kind, _Aligned):
            most = max(most, kind._aligned_)
        if isinstance(value, _Unnamed):
            anonymous.append(member)
        elif isinstance(value, _Constants):
            namespace.setdefault("_names_", {})[member] = value.names
    if anonymous:
        namespace["_anonymous_"] = anonymous
    if type(bases[0]) is metaclass:  # else it is one of the classes below
        namespace["_fields_"] = fields
    if align is None and "_pack_" not in namespace:  # then it is its members', as in C
        align = most
    if align and align > 8:  # which all that Python allocates is aligned to
        namespace |= {"_aligned_": align, "__new__": _new_aligned}
        if not issubclass(metaclass, _Aligned):
            metaclass = metaclass._for_aligned
    record: Any = metaclass._ctypes.__new__(metaclass, name, bases, namespace)
    if metaclass._is_union:  # Python 3.11 knows not that it can be in another byte order
        record.__ctype_le__ = record.__ctype_be__ = record
    return record


def _repr(record: Any) -> str:
    return f"{type(record).__name__}({', '.join(_parts(record))})"


def _reduce(record: Any) -> tuple[Any, ...]:
    """Support for copying and pickling, for which ctypes needs a ``__dict__``."""
    return type(record).from_buffer_copy, (bytes(record),)


def _parts(record: Any) -> Iterator[str]:
    """The members of a record for its ``repr``; for a union, its bytes.

    A small union is often a number and its bit-fields: then the bit-fields are shown.
    """
    kind = type(record)
    if isinstance(record, ctypes.Union):
        size = ctypes.sizeof(record)
        inside = (getattr(record, name) for name in getattr(kind, "_anonymous_", ()))
        alike = [value for value in inside if ctypes.sizeof(value) == size]
        if size <= 8 and len(alike) == 1:
            yield from _parts(alike[0])
        else:
            yield _bytes(bytes(record))
        return
    anonymous = getattr(kind, "_anonymous_", ())
    for name, *_ in kind._fields_:
        value = getattr(record, name)
        if name.startswith(("_pad_", "_bits_", "_unit_")):
            continue  # not the header's own
        if name in anonymous:
            yield from _parts(value)
        elif name in kind._names_:
            yield f"{name}={_named(kind.__module__, value, *kind._names_[name])}"
        else:
            yield f"{name}={_shown(value)}"


def _shown(value: Any) -> str:
    if isinstance(value, bool | bytes | float):
        return repr(value)
    if isinstance(value, int):
        return hex(value) if abs(value) > 9 else str(value)
    if isinstance(value, ctypes.Array):
        if value._type_ is ctypes.c_uint8:
            return _bytes(bytes(value))
        return f"[{', '.join(_runs(map(_shown, value)))}]"
    return repr(value)


def _runs(texts: Iterable[str]) -> Iterator[str]:
    """The texts, with repetitions replaced by a count."""
    from itertools import groupby

    for text, group in groupby(texts):
        count = len(list(group))
        yield text if count == 1 else f"{text} x {count}"


def _bytes(data: bytes) -> str:
    """Bytes in hexadecimal, without trailing zeros."""
    said = data.rstrip(b"\0").hex(" ")
    return f"<{len(data)} bytes: {said or 0}{' 0...' * (0 < len(said) < 3 * len(data) - 1)}>"


def _named(module: str, value: int, prefix: str, flags: bool) -> str:
    names = _constants(module, prefix)
    if not flags:
        return names.get(value, hex(value))
    bits = [bit for bit in names if bit & value == bit and bit.bit_count() == 1]
    rest = value & ~sum(bits)
    return "|".join([*map(names.__getitem__, bits), *([_shown(rest)] if rest or not bits else [])])


def _constants(module: str, prefix: str) -> dict[int, str]:
    """The constants of a module with a prefix, by value.

    Those whose names extend another one's belong to that one: KVM_EXIT_IO_IN is not a reason
    for an exit, but the direction of KVM_EXIT_IO.
    """
    found = {n: v for n, v in vars(sys.modules[module]).items() if n.startswith(prefix)}
    plain = {n: v for n, v in found.items() if isinstance(v, int)}
    heads = tuple(f"{name}_" for name in plain)
    return {v: n for n, v in plain.items() if not n.startswith(heads)}


def _base(name: str, kind: type) -> Any:
    """A base class of records: ``kind``, with class bodies that are read as above."""
    is_union = issubclass(kind, ctypes.Union)
    body = {"__new__": _record, "_ctypes": type(kind), "_is_union": is_union}
    metaclass: Any = type(f"_{name}", (type(kind),), body)
    metaclass._for_aligned = type(f"_Aligned{name}", (_Aligned, metaclass), {})
    methods = {"__repr__": _repr, "__reduce__": _reduce}
    base = metaclass(name, (kind,), {"__module__": __name__, **methods})
    base._names_ = {}  # of members, what their constants' names begin with; records add theirs
    return base


if TYPE_CHECKING:  # for type checkers a record is an ordinary ctypes record
    LittleStruct = ctypes.LittleEndianStructure
    LittleUnion = ctypes.LittleEndianUnion
    BigStruct = ctypes.BigEndianStructure
    BigUnion = ctypes.BigEndianUnion
else:
    LittleStruct = _base("LittleStruct", ctypes.LittleEndianStructure)
    LittleUnion = _base("LittleUnion", ctypes.LittleEndianUnion)
    BigStruct = _base("BigStruct", ctypes.BigEndianStructure)
    BigUnion = _base("BigUnion", ctypes.BigEndianUnion)
