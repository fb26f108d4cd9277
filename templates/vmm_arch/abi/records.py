"""What the records of the raw ABIs are made of: a class body lists members, and that is the layout.

The types of members have the same size on every machine, and all padding is a member. ::

    class kvm_msi(LittleStruct):
        address_lo: int = u32
        pad: Array[c_uint8] = u8 * 12
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

# What a member is made with is not what reading it gives, so type checkers are told nothing.
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


def of(kind: Any) -> Any:
    """A member that is a record, or an array of records."""
    return kind


class _BitField:
    def __init__(self, kind: Any, width: int) -> None:
        self.field = (kind, width)


class _Unnamed:
    def __init__(self, kind: Any) -> None:
        self.field = (kind,)


def bit_field(kind: Any, width: int) -> Any:
    """A member that is some bits of an integer, which it shares with its neighbours."""
    return _BitField(kind, width)


def unnamed(kind: Any) -> Any:
    """A member without a name in C, whose members are those of the record that it is in."""
    return _Unnamed(kind)


class _Body(dict[str, Any]):
    """The names of a class body, without the members.

    So the name of a type means that type, also behind a member of the same name, as it does in C.
    And a name that begins with two underscores is what it is in C: Python puts the class's name
    before it.
    """

    def __init__(self, name: str, outside: Mapping[str, Any]) -> None:
        self._prefix = f"_{name.lstrip('_')}"
        self._outside = outside
        self.members: list[tuple[str, Any]] = []

    def _plain(self, name: str) -> str:
        return name.removeprefix(self._prefix) if name.startswith(f"{self._prefix}__") else name

    def __setitem__(self, name: str, value: Any) -> None:
        if name == "_pack_" or (name.startswith("__") and name.endswith("__")):
            super().__setitem__(name, value)
        else:
            self.members.append((self._plain(name), value))

    def __missing__(self, name: str) -> Any:
        plain = self._plain(name)
        if plain == name:
            raise KeyError(name)
        return self._outside[plain]


def _prepare(name: str, bases: tuple[type, ...]) -> _Body:
    return _Body(name, sys._getframe(1).f_globals)


def _record(metaclass: Any, name: str, bases: tuple[type, ...], body: _Body) -> Any:
    """Make a record of a class body."""
    namespace: dict[str, Any] = {"__slots__": (), **body}  # there are no other attributes
    if "_pack_" in body:
        namespace["_layout_"] = "ms"  # Python 3.14 wants the name of rules that allow it
    if type(bases[0]) is metaclass:  # else it is one of the classes below
        namespace["_anonymous_"] = tuple(
            name for name, kind in body.members if isinstance(kind, _Unnamed)
        )
        namespace["_fields_"] = [
            (name, *(kind.field if isinstance(kind, _BitField | _Unnamed) else (kind,)))
            for name, kind in body.members
        ]
    record: Any = metaclass.__base__.__new__(metaclass, name, bases, namespace)
    # Python 3.11 knows not that a union can be in a record of the other byte order.
    record.__ctype_le__ = record.__ctype_be__ = record
    return record


def _base(name: str, kind: type) -> Any:
    """What records derive from: ``kind``, with bodies that are read as above."""
    how = {"__prepare__": staticmethod(_prepare), "__new__": _record}
    metaclass: Any = type(f"_{name}", (type(kind),), how)
    body = _Body(name, globals())
    body["__module__"] = __name__
    return metaclass(name, (kind,), body)


if TYPE_CHECKING:  # to whom a record is nothing but a record of ctypes
    LittleStruct = ctypes.LittleEndianStructure
    LittleUnion = ctypes.LittleEndianUnion
    BigStruct = ctypes.BigEndianStructure
    BigUnion = ctypes.BigEndianUnion
else:
    LittleStruct = _base("LittleStruct", ctypes.LittleEndianStructure)
    LittleUnion = _base("LittleUnion", ctypes.LittleEndianUnion)
    BigStruct = _base("BigStruct", ctypes.BigEndianStructure)
    BigUnion = _base("BigUnion", ctypes.BigEndianUnion)
