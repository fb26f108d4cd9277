"""C types as ctypes types that have the same size on whatever machine imports them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

from vmm_arch_gen.abi.layout import Layouts
from vmm_arch_gen.abi.model import Abi
from vmm_arch_gen.abi.types import Array, Function, Named, Pointer, Scalar, Type, spell

Local: TypeAlias = Mapping[str, str]
"""How a module calls names that it imports, where one of C's names is the same."""
NO_OTHERS: Local = MappingProxyType({})


class Inexpressible(Exception):
    """Why ctypes has no way to say something."""


SHORT = {
    **{f"c_{u}int{bits}": f"{u or 'i'}{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)},
    "c_float": "f32",
    "c_double": "f64",
    "c_char": "char",
    "c_bool": "boolean",
}
"""What templates/vmm_arch/abi/records.py calls the types of ctypes."""

_READ_AS = {"c_char": "bytes", "c_bool": "bool", "c_float": "float", "c_double": "float"}


@dataclass(frozen=True)
class CType:
    """A type as ctypes says it: a name, or an array of what has the name."""

    name: str
    """``c_uint8``, or the class of a record."""
    size: int
    """In bytes."""
    align: int
    """What ctypes aligns it to, on a machine that aligns every integer to its size."""
    counts: tuple[int, ...] = ()
    """The dimensions of an array, in the order of C's declaration."""
    stated: int = 0
    """What the record says that it is aligned to, if it says anything."""

    @property
    def plain(self) -> bool:
        """Whether the name is one of ctypes' own, and no record's."""
        return self.name in SHORT

    def expression(self, local: Local = NO_OTHERS) -> str:
        """The type with ctypes' names: ``(c_uint8 * 3) * 2``."""
        imported = self.plain or self == POINTER
        return self._of(local.get(self.name, self.name) if imported else self.name)

    def short(self, local: Local = NO_OTHERS) -> str:
        """The same with the names of templates/vmm_arch/abi/records.py."""
        return self._of(self.short_name(local))

    def short_name(self, local: Local) -> str:
        """The name that an array of the type is made of."""
        return local.get(SHORT[self.name], SHORT[self.name]) if self.plain else self.name

    def _of(self, text: str) -> str:
        for number, count in enumerate(reversed(self.counts)):
            text = f"({text}) * {count}" if number else f"{text} * {count}"
        return text

    def annotation(self, local: Local = NO_OTHERS) -> str:
        """What reading a member of the type gives."""
        depth = len(self.counts)
        if depth and self.name == "c_char":
            rows = local.get("Rows", "Rows")
            return f"{f'{rows}[' * (depth - 1)}bytes{']' * (depth - 1)}"
        if depth:
            array = local.get("Array", "Array")
            element = local.get(self.name, self.name) if self.plain else self.name
            return f"{f'{array}[' * depth}{element}{']' * depth}"
        return _READ_AS.get(self.name, "int") if self.plain else self.name

    @property
    def annotated_with(self) -> tuple[str, ...]:
        """The names that :meth:`annotation` needs: of ctypes, and Rows."""
        if self.name == "c_char" and self.counts:
            return ("Rows",) if len(self.counts) > 1 else ()
        if not self.counts:
            return ()
        return ("Array", self.name) if self.plain else ("Array",)


VOID = CType("None", 0, 1)
POINTER = CType("c_void_p", 0, 1)
"""What a function takes or gives; in a record a pointer is an integer of the target's width."""


def integer(size: int, signed: bool) -> CType:
    return CType(f"c_{'' if signed else 'u'}int{size * 8}", size, size)


class Types:
    """The types of one target."""

    def __init__(self, abi: Abi) -> None:
        self._abi = abi
        self._records: dict[str, CType] = {}
        self.layouts = Layouts.of_abi(abi)

    def add(self, key: str, type: CType) -> None:
        """Say what a record is, before what contains it is asked for."""
        self._records[key] = type

    def scalar(self, type: Scalar) -> CType:
        size, _ = self.layouts.of(type)
        match type.name:
            case "char":
                return CType("c_char", 1, 1)
            case "_Bool" if self._abi.model.byte_order == "little":
                return CType("c_bool", 1, 1)
            case "_Bool":  # ctypes has none for the other byte order
                return integer(1, signed=False)
            case "float" | "double":
                return CType(f"c_{type.name}", size, size)
            case "long double" if size == 8:
                return CType("c_double", 8, 8)
            case "long double" | "__int128" | "unsigned __int128":  # as its bytes
                return CType("c_uint64", 16, 8, (2,))
        return integer(size, self.layouts.signed(type))

    def unit(self, type: Type, size: int) -> CType:
        """An integer of ``size`` bytes to hold a bit-field of a type."""
        resolved = self.layouts.resolve(type)
        return integer(size, isinstance(resolved, Scalar) and self.layouts.signed(resolved))

    def member(self, type: Type) -> CType:
        """A type as it is in a record: a pointer is an integer of the target's width."""
        match self.layouts.resolve(type):
            case Scalar() as scalar:
                return self.scalar(scalar)
            case Pointer():
                return integer(self._abi.model.pointer, signed=False)
            case Array(of, count):
                element = self.member(of)
                length = count or 0  # a flexible array is one without elements
                counts = (length, *element.counts)
                return replace(element, size=element.size * length, counts=counts)
            case Named(name) if name in self._records:
                return self._records[name]
        raise Inexpressible(f"{spell(type)} is incomplete")

    def argument(self, type: Type) -> CType:
        """A type as a function takes or gives it: pointers are pointers."""
        match self.layouts.resolve(type):
            case Scalar("void"):
                return VOID
            case Pointer() | Array() | Function():
                return POINTER
            case resolved:
                return self.member(resolved)

    def callback(self, type: Type) -> tuple[CType, ...]:
        """The result and arguments of what a function pointer points to; empty for other types."""
        resolved = self.layouts.resolve(type)
        function = self.layouts.resolve(resolved.to) if isinstance(resolved, Pointer) else None
        if not isinstance(function, Function):
            return ()
        return tuple(map(self.argument, (function.result, *(of for _, of in function.parameters))))

    def alias(self, type: Type) -> CType:
        """A type as something to make objects and arrays of."""
        array = isinstance(self.layouts.resolve(type), Array)
        return self.member(type) if array else self.argument(type)

    def has_objects(self, type: Type) -> bool:
        """Whether there can be objects of a type: not of void, functions and opaque records."""
        match self.layouts.resolve(type):
            case Scalar("void") | Function():
                return False
            case Named(name):
                return name in self._abi.records
        return True
