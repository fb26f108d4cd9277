"""Forms: how saved state is taken apart into named numbers, and made of them again.

A hypervisor gives state in its own records. They are kept as they came; a form, one for each of
them, knows their elements. Every element is a number of some bits: an array of bytes as well, the
first byte lowest.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable


class Element(NamedTuple):
    """The value of an element, and how many bits it has."""

    value: int
    bits: int


class Part(NamedTuple):
    """Where in a long element a part of it is."""

    first: int
    """Its first byte."""
    size: int
    """Its bytes."""


class Form(Protocol):
    """What is known of one kind of saved state."""

    def elements(self, saved: Any) -> dict[str, Element]:
        """Take saved state apart."""

    def shape(self, saved: Any) -> object:
        """What is equal for saved state with the same elements, of the same widths."""

    def width(self, name: str) -> int | None:
        """The bits that an element with this name has: 0 for any number, None if there is none."""

    def blank(self) -> Any:
        """Saved state without elements, or with all of them 0."""

    def changed(self, saved: Any, changes: Mapping[str, Element]) -> Any:
        """A copy of saved state with some elements changed, or added where their number varies."""


@runtime_checkable
class HasFormerNames(Protocol):
    """A form whose elements may get other names: a saved state has those of its time."""

    def present_name(self, name: str) -> str:
        """What an element is called today; a name that it never had is returned as it is."""


@runtime_checkable
class NamesBits(Protocol):
    """A form that knows the bits of its elements."""

    def bits(self, name: str) -> Mapping[str, int]:
        """The numbers of an element's bits by their names, as far as they have names."""


@runtime_checkable
class HasParts(Protocol):
    """A form with long elements that consist of parts with names."""

    def parts(self, name: str, saved: Any, others: Mapping[str, Any]) -> Mapping[str, Part]:
        """The parts of an element by their names; ``others`` is all that was saved, by sink."""


@runtime_checkable
class Labels(Protocol):
    """A form that says more of an element than its name, for people."""

    def label(self, name: str) -> str:
        """The name with what else is known: ``MSR 0x48 (MSR_IA32_SPEC_CTRL)``."""


_RESERVED = re.compile(r"_(pad|bits|unit)_\d+|pad(ding)?\d*|reserved\d*|rsvd\d*|dummy\d*")
"""Members that are no state."""


class Leaf(NamedTuple):
    """A number inside a record."""

    path: tuple[str | int, ...]
    """Members and indices that lead to it."""
    bits: int
    is_bytes: bool
    """Whether it is an array of bytes."""

    @property
    def name(self) -> str:
        text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)
        return text.removeprefix(".")


Wanted: TypeAlias = Callable[[str], bool]


def leaves(kind: Any, wanted: Wanted, path: tuple[str | int, ...] = ()) -> Iterator[Leaf]:
    """The numbers of a record type.

    Of a union the member in which one is wanted, else a number of its size, else its first.
    """
    if issubclass(kind, ctypes.Array):
        if kind._type_ in (ctypes.c_uint8, ctypes.c_char):
            yield Leaf(path, 8 * kind._length_, True)
            return
        for index in range(kind._length_):
            yield from leaves(kind._type_, wanted, (*path, index))
    elif issubclass(kind, ctypes.Structure | ctypes.Union):
        anonymous = getattr(kind, "_anonymous_", ())
        fields = [field for field in kind._fields_ if not _RESERVED.fullmatch(field[0])]
        if issubclass(kind, ctypes.Union):
            fields = [_chosen(kind, fields, wanted, path)]
        for name, type, *width in fields:
            inside = path if name in anonymous else (*path, name)
            if width:
                yield Leaf(inside, width[0], False)
            else:
                yield from leaves(type, wanted, inside)
    else:
        yield Leaf(path, 8 * ctypes.sizeof(kind), False)


def _chosen(kind: Any, fields: Any, wanted: Wanted, path: tuple[str | int, ...]) -> Any:
    anonymous = getattr(kind, "_anonymous_", ())
    for field in fields:
        inside = path if field[0] in anonymous else (*path, field[0])
        if any(wanted(leaf.name) for leaf in leaves(field[1], wanted, inside)):
            return field
    size = ctypes.sizeof(kind)
    whole = (f for f in fields if ctypes.sizeof(f[1]) == size and issubclass(f[1], _NUMBERS))
    return next(whole, fields[0])


_NUMBERS = ctypes._SimpleCData


def read_leaf(record: Any, leaf: Leaf) -> int:
    """The number at a leaf of a record; of the whole record for an empty path."""
    for step in leaf.path:
        record = record[step] if isinstance(step, int) else getattr(record, step)
    if leaf.is_bytes:
        return int.from_bytes(bytes(record), "little")
    return int(record) & ((1 << leaf.bits) - 1)


def write_leaf(record: Any, leaf: Leaf, value: int) -> None:
    """Write a number at a leaf of a record, or to the whole record for an empty path."""
    if not leaf.path:
        ctypes.memmove(
            ctypes.byref(record), value.to_bytes(leaf.bits // 8, "little"), leaf.bits // 8
        )
        return
    for step in leaf.path[:-1]:
        record = record[step] if isinstance(step, int) else getattr(record, step)
    last = leaf.path[-1]
    if leaf.is_bytes:
        room = record[last] if isinstance(last, int) else getattr(record, str(last))
        ctypes.memmove(room, value.to_bytes(leaf.bits // 8, "little"), leaf.bits // 8)
    elif isinstance(last, int):
        record[last] = value
    else:
        setattr(record, last, value)


class RecordForm:
    """A record of the raw ABI.

    ``names`` gives the elements of the vocabulary by their paths, of all or of the beginning: the
    rest is called after the sink. ``inside`` is the path of the record's part that is state.
    """

    def __init__(
        self, sink: str, kind: Any, names: Mapping[str, str] | None = None, inside: str = ""
    ) -> None:
        self._sink = sink
        self._kind = kind
        self._names = dict(names or {})
        self._inside = inside

    @cached_property
    def _leaves(self) -> dict[str, Leaf]:
        found = {}
        for leaf in leaves(self._kind, self._is_wanted):
            name = leaf.name
            if name.startswith(self._inside):
                found[self._called(name)] = leaf
        return found

    def _is_wanted(self, path: str) -> bool:
        return path in self._names or (self._inside != "" and path.startswith(self._inside))

    def _called(self, path: str) -> str:
        """What an element is called: as in the vocabulary, else by the sink and the path."""
        if path in self._names:
            return self._names[path]
        head, dot, rest = path.partition(".")
        if dot and head in self._names:
            return f"{self._names[head]}.{rest}"
        return f"{self._sink}.{path.removeprefix(self._inside).removeprefix('.')}"

    def elements(self, saved: Any) -> dict[str, Element]:
        return {
            name: Element(read_leaf(saved, leaf), leaf.bits) for name, leaf in self._leaves.items()
        }

    def shape(self, saved: Any) -> object:
        return None

    def width(self, name: str) -> int | None:
        leaf = self._leaves.get(name)
        return leaf.bits if leaf else None

    def blank(self) -> Any:
        return self._kind()

    def changed(self, saved: Any, changes: Mapping[str, Element]) -> Any:
        copy = self._kind.from_buffer_copy(saved)
        for name, element in changes.items():
            write_leaf(copy, self._leaves[name], element.value)
        return copy


class BytesForm:
    """Bytes whose meaning only the hypervisor knows, as many as it says."""

    def __init__(self, sink: str) -> None:
        self._sink = sink

    def elements(self, saved: bytes | bytearray) -> dict[str, Element]:
        return {self._sink: Element(int.from_bytes(saved, "little"), 8 * len(saved))}

    def shape(self, saved: bytes | bytearray) -> object:
        return len(saved)

    def width(self, name: str) -> int | None:
        return 0 if name == self._sink else None

    def blank(self) -> bytearray:
        return bytearray()

    def changed(
        self, saved: bytes | bytearray, changes: Mapping[str, Element]
    ) -> bytes | bytearray:
        for element in changes.values():
            return bytearray(element.value.to_bytes(element.bits // 8, "little"))
        return bytearray(saved)


class NumbersForm:
    """A tuple of 64-bit numbers, each with its name."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def elements(self, saved: tuple[int, ...]) -> dict[str, Element]:
        return {n: Element(value, 64) for n, value in zip(self._names, saved, strict=True)}

    def shape(self, saved: tuple[int, ...]) -> object:
        return None

    def width(self, name: str) -> int | None:
        return 64 if name in self._names else None

    def blank(self) -> tuple[int, ...]:
        return (0,) * len(self._names)

    def changed(self, saved: tuple[int, ...], changes: Mapping[str, Element]) -> tuple[int, ...]:
        values = dict(zip(self._names, saved, strict=True))
        values |= {name: element.value for name, element in changes.items()}
        return tuple(values.values())


class SequenceForm:
    """Any number of 64-bit numbers, called after the sink."""

    def __init__(self, sink: str) -> None:
        self._sink = sink

    def elements(self, saved: tuple[int, ...]) -> dict[str, Element]:
        return {f"{self._sink}[{i}]": Element(value, 64) for i, value in enumerate(saved)}

    def shape(self, saved: tuple[int, ...]) -> object:
        return len(saved)

    def width(self, name: str) -> int | None:
        index = name.removeprefix(f"{self._sink}[").removesuffix("]")
        canonical = index.isdecimal() and index.isascii() and str(int(index)) == index
        return 64 if canonical and name == f"{self._sink}[{index}]" else None

    def blank(self) -> tuple[int, ...]:
        return ()

    def changed(self, saved: tuple[int, ...], changes: Mapping[str, Element]) -> tuple[int, ...]:
        return tuple(element.value for element in {**self.elements(saved), **changes}.values())
