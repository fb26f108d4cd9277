"""Records that C aligns more strictly than Python's allocator does, and arrays of them."""

from __future__ import annotations

import ctypes
from typing import Any
from weakref import WeakValueDictionary


def aligned(metaclass: Any, align: int) -> tuple[Any, dict[str, Any]]:
    """The metaclass for an aligned record, and what its class has for that."""
    if not issubclass(metaclass, _Aligned):
        if "_for_aligned" not in vars(metaclass):
            name = f"_Aligned{metaclass.__name__.lstrip('_')}"
            metaclass._for_aligned = type(name, (_Aligned, metaclass), {})
        metaclass = metaclass._for_aligned
    return metaclass, {"_aligned_": align, "__new__": _new_aligned}


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
