"""The whole state of a vCPU or a machine, as a value: printed, compared, changed, stored as JSON.

A backend's classes ``VcpuState`` and ``VmState`` add where its hypervisor keeps what. Elements are
named as in the CPU's vocabulary; what only the hypervisor has is named after its own records.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, ClassVar, Final

from vmm_arch.errors import StateError
from vmm_arch.state_difference import Diff, Difference, differences_of_parts, shown, split_parts
from vmm_arch.state_forms import (
    Element,
    Form,
    HasFormerNames,
    HasParts,
    Labels,
    NamesBits,
    Part,
)
from vmm_arch.unique_keys import without_duplicates

VERSION: Final = 1
"""Of the JSON text."""


@dataclass(frozen=True)
class StateSink:
    """One piece of saved state: what a hypervisor's call reads and another one writes."""

    form: Form
    running: tuple[str, ...] = ()
    """Elements, or patterns, that change by themselves and so cannot be compared."""
    live: tuple[str, ...] = ()
    """Those that devices change while no vCPU runs: so restoring cannot check them."""
    fixed: bool = False
    """Whether it is given at creation: a state with another value cannot be restored."""


class SavedState:
    """What a vCPU and a machine have in common; made by ``save()`` or :meth:`from_json`.

    A state never changes, does not depend on the machine that it came from, and may be used by
    several threads. Pickling it works between processes with the same version of this package.
    """

    __slots__ = ("_elements", "_saved")
    _what: ClassVar[str]
    _backend: ClassVar[str]
    _facts: ClassVar[str]
    """The digest of the facts that the records are made of."""
    _sinks: ClassVar[Mapping[str, StateSink]]
    _bits: ClassVar[Mapping[str, Mapping[str, int]]]

    def __init__(self, saved: Mapping[str, Any]) -> None:
        """Keep what was read, by sink; None for what the machine does not have."""
        self._saved = saved
        self._elements: dict[str, dict[str, Element]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Support for copying and pickling, which ctypes' arrays do not have."""
        return type(self), ({sink: _portable(saved) for sink, saved in self._saved.items()},)

    @property
    def elements(self) -> dict[str, int]:
        """All elements with their values, in a new dictionary."""
        return {name: e.value for of in self._taken_apart().values() for name, e in of.items()}

    def __getitem__(self, name: str) -> int:
        """The value of an element; KeyError if the machine does not have it."""
        for elements in self._taken_apart().values():
            if name in elements:
                return elements[name].value
        raise KeyError(name)

    def replace(self, changes: Mapping[str, int]) -> Any:
        """Return a state in which some elements have other values. Raises StateError."""
        problems = []
        wanted: dict[str, dict[str, Element]] = {}
        for name, value in changes.items():
            for sink, elements in self._taken_apart().items():
                if name in elements:
                    bits = elements[name].bits
                    wanted.setdefault(sink, {})[name] = Element(value, bits)
                    if not 0 <= value < 1 << bits:
                        problems.append(f"{name}: {value:#x} is not an unsigned {bits}-bit value")
                    break
            else:
                problems.append(f"{name}: no such element")
        _refuse("replace", problems)
        made = dict(self._saved)
        for sink, elements in wanted.items():
            made[sink] = self._sinks[sink].form.changed(made[sink], elements)
        return self._with(made)

    def _with(self, saved: Mapping[str, Any]) -> Any:
        return type(self)(saved)

    def diff(self, other: SavedState) -> Diff:
        """Compare with another state of the same backend: what differs from this one.

        Elements that change by themselves, such as counters, are left out.
        """
        if type(other) is not type(self):
            raise TypeError(f"expected {type(self).__name__}, got {type(other).__name__}")
        return Diff(self._differences(other))

    def _differences(self, other: SavedState, *, with_live: bool = True) -> Iterator[Difference]:
        for sink, known in self._sinks.items():
            if _same(self._saved[sink], other._saved[sink]):
                continue
            mine, theirs = self._of_sink(sink) or {}, other._of_sink(sink) or {}
            for name in dict.fromkeys((*mine, *theirs)):
                left, right = mine.get(name), theirs.get(name)
                if left == right or _matches(name, known.running):
                    continue
                if not with_live and _matches(name, known.live):
                    continue
                parts = self._parts_of(sink, name)
                if left and right and parts and parts == other._parts_of(sink, name):
                    yield from differences_of_parts(name, left.value, right.value, parts)
                else:
                    yield Difference(
                        name,
                        None if left is None else left.value,
                        None if right is None else right.value,
                        self._bits_of(sink, name),
                        self._label_of(sink, name),
                    )

    def __eq__(self, other: object) -> bool:
        """Whether nothing that can be compared differs."""
        if type(other) is not type(self):
            return NotImplemented
        assert isinstance(other, SavedState)
        return next(self._differences(other), None) is None

    def __repr__(self) -> str:
        count = sum(map(len, self._taken_apart().values()))
        return f"<{self._what} state of {self._backend}: {count} elements>"

    def __str__(self) -> str:
        """All elements that are not 0, one a line, in groups."""
        lines = [f"{self._what} state of {self._backend}"]
        for sink in self._sinks:
            if (elements := self._taken_apart().get(sink)) is None:
                lines.append(f"{sink}: the machine has none")
                continue
            lines.append(f"{sink}:")
            zeros = 0
            for name, (value, _) in elements.items():
                if value == 0:
                    zeros += 1
                    continue
                parts, value = split_parts(value, self._parts_of(sink, name))
                lines += (f"  {part} = {shown(its)}" for part, its in parts.items() if its)
                if value == 0:
                    continue
                bits = self._bits_of(sink, name)
                named = " ".join(text for text, number in bits.items() if value >> number & 1)
                label = self._label_of(sink, name)
                lines.append(f"  {label} = {shown(value)}" + f" ({named})" * bool(named))
            if zeros:
                lines.append(f"  {zeros} {'others are' if zeros > 1 else 'other is'} 0")
        return "\n".join(lines)

    def to_json(self) -> str:
        """The state as text, for :meth:`from_json` of the same backend."""
        return json.dumps({"facts": self._facts, **self._as_data()}, indent=1)

    def _as_data(self) -> dict[str, Any]:
        apart = self._taken_apart()
        return {
            "format": f"vmm-arch {self._what} state",
            "version": VERSION,
            "backend": self._backend,
            "sinks": {
                sink: (
                    {name: f"0x{e.value:0{-(-e.bits // 4)}x}" for name, e in apart[sink].items()}
                    if sink in apart
                    else None
                )
                for sink in self._sinks
            },
        }

    @classmethod
    def from_json(cls, text: str) -> Any:
        """Make a state of its text. Raises StateError, which lists everything that is wrong.

        Names have to agree and not the facts, which change with every version of the headers: if a
        text is refused and has others, this is said as well.
        """
        problems: list[str] = []
        try:
            data = json.loads(text, object_pairs_hook=without_duplicates)
        except (ValueError, RecursionError) as error:
            raise StateError("from_json", [f"not JSON: {error}"]) from None
        facts = data.pop("facts", cls._facts) if isinstance(data, dict) else cls._facts
        made = cls._from_data(data, problems)
        if not isinstance(facts, str):
            problems.append(f"facts: {facts!r} is not a digest")
        elif problems and facts != cls._facts and data.get("backend") == cls._backend:
            problems.append(other_facts(cls._backend))
        _refuse("from_json", problems)
        return made

    @classmethod
    def _from_data(cls, data: Any, problems: list[str]) -> Any:
        if not isinstance(data, dict):
            problems.append("not the text of a state: it is not a JSON object")
            return None
        expected = {
            "format": f"vmm-arch {cls._what} state",
            "version": VERSION,
            "backend": cls._backend,
        }
        wrong = [
            f"{key}: {data.get(key)!r} instead of {value!r}"
            for key, value in expected.items()
            if data.get(key) != value or isinstance(data.get(key), bool)
        ]
        problems += wrong
        problems += [f"{key}: unknown" for key in data.keys() - {*expected, *cls._keys()}]
        given = data.get("sinks")
        if not isinstance(given, dict):
            problems.append("sinks: missing or not a JSON object")
            return None
        if wrong:
            return None  # the rest would only be noise
        problems += [f"{sink}: unknown" for sink in given.keys() - cls._sinks.keys()]
        problems += [f"{sink}: missing" for sink in cls._sinks if sink not in given]
        saved = {
            sink: None if given[sink] is None else _made(sink, known.form, given[sink], problems)
            for sink, known in cls._sinks.items()
            if sink in given
        }
        return cls._of(saved, data, problems)

    @classmethod
    def _of(cls, saved: Mapping[str, Any], data: Any, problems: list[str]) -> Any:
        return cls(saved)

    @classmethod
    def _keys(cls) -> tuple[str, ...]:
        """The keys of the text, besides those that say what it is."""
        return ("sinks",)

    def unfit_for(self, present: SavedState) -> list[str]:
        """Why the state cannot be restored to a machine whose present state this is."""
        problems: list[str] = []
        for sink, known in self._sinks.items():
            one, other = self._saved[sink], present._saved[sink]
            if one is None and other is None:
                continue
            if one is None or other is None:
                has, lacks = ("machine", "state") if one is None else ("state", "machine")
                problems.append(f"{sink}: the {has} has it and the {lacks} does not")
                continue
            if not known.fixed and known.form.shape(one) == known.form.shape(other):
                continue
            if known.fixed and _same(one, other):
                continue
            mine, its = self._of_sink(sink) or {}, present._of_sink(sink) or {}
            lacking = [name for name in mine if name not in its]
            missing = [name for name in its if name not in mine]
            label = partial(self._label_of, sink)
            problems += [f"{label(name)}: this machine does not have it" for name in lacking]
            problems += [f"{label(name)}: the state does not say it" for name in missing]
            for name in mine.keys() & its.keys():
                if mine[name].bits != its[name].bits:
                    problems.append(
                        f"{name}: {mine[name].bits} bits, this machine's has {its[name].bits}"
                    )
                elif known.fixed and mine[name] != its[name] and not _matches(name, known.running):
                    one, other = mine[name].value, its[name].value
                    difference = Difference(name, one, other, self._bits_of(sink, name))
                    bits = ", ".join(difference.changed_bits(one, other))
                    problems.append(
                        f"{name}: {shown(one)}, but this machine was created with {shown(other)}"
                        + f" ({bits})" * bool(bits)
                    )
        return problems

    def _bits_of(self, sink: str, name: str) -> Mapping[str, int]:
        """The numbers of an element's bits by their names."""
        form = self._sinks[sink].form
        return form.bits(name) if isinstance(form, NamesBits) else self._bits.get(name, {})

    def _parts_of(self, sink: str, name: str) -> Mapping[str, Part]:
        """Where the parts of an element are that have names of their own."""
        form = self._sinks[sink].form
        if not isinstance(form, HasParts) or self._saved[sink] is None:
            return {}
        return form.parts(name, self._saved[sink], self._saved)

    def _label_of(self, sink: str, name: str) -> str:
        """An element's name, and what else it is known by."""
        form = self._sinks[sink].form
        return form.label(name) if isinstance(form, Labels) else name

    def _taken_apart(self) -> dict[str, dict[str, Element]]:
        """The elements of each sink that the machine has."""
        found = {sink: self._of_sink(sink) for sink in self._sinks}
        return {sink: elements for sink, elements in found.items() if elements is not None}

    def _of_sink(self, sink: str) -> dict[str, Element] | None:
        if self._saved[sink] is None:
            return None
        if sink not in self._elements:
            self._elements[sink] = self._sinks[sink].form.elements(self._saved[sink])
        return self._elements[sink]


class SavedMachineState(SavedState):
    """The state of a machine: of all its vCPUs, and of what they share. Memory is not part of it."""

    __slots__ = ("saved_at", "vcpus")
    _vcpu: ClassVar[type[SavedState]]

    def __init__(
        self, saved: Mapping[str, Any], vcpus: Iterable[Any], saved_at: int | None = None
    ) -> None:
        super().__init__(saved)
        self.saved_at = saved_at
        """The host's real time then, in nanoseconds since 1970; None if that is not known."""
        self.vcpus: tuple[Any, ...] = tuple(vcpus)
        """The states of the vCPUs by their index."""

    def __reduce__(self) -> tuple[Any, ...]:
        kind, arguments = super().__reduce__()
        return kind, (*arguments, self.vcpus, self.saved_at)

    def _with(self, saved: Mapping[str, Any]) -> Any:
        return type(self)(saved, self.vcpus, self.saved_at)

    def _differences(self, other: SavedState, *, with_live: bool = True) -> Iterator[Difference]:
        assert isinstance(other, SavedMachineState)
        yield from super()._differences(other, with_live=with_live)
        if len(self.vcpus) != len(other.vcpus):
            yield Difference("vCPUs", len(self.vcpus), len(other.vcpus), {})
        for index, (mine, theirs) in enumerate(zip(self.vcpus, other.vcpus, strict=False)):
            for found in mine._differences(theirs, with_live=with_live):
                yield Difference(
                    f"vCPU {index}: {found.name}",
                    found.mine,
                    found.theirs,
                    found.bits,
                    f"vCPU {index}: {found.label}",
                )

    def unfit_for(self, present: SavedState) -> list[str]:
        assert isinstance(present, SavedMachineState)
        problems = super().unfit_for(present)
        if len(self.vcpus) != len(present.vcpus):
            problems.append(f"{len(self.vcpus)} vCPUs, this machine has {len(present.vcpus)}")
        for index, (mine, its) in enumerate(zip(self.vcpus, present.vcpus, strict=False)):
            problems += (f"vCPU {index}: {problem}" for problem in mine.unfit_for(its))
        return problems

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, and {len(self.vcpus)} vCPUs>"

    def __str__(self) -> str:
        texts = [f"vCPU {index}: {vcpu}" for index, vcpu in enumerate(self.vcpus)]
        return "\n".join([super().__str__(), *texts])

    def _as_data(self) -> dict[str, Any]:
        known = {} if self.saved_at is None else {"saved_at": self.saved_at}
        return super()._as_data() | known | {"vcpus": [vcpu._as_data() for vcpu in self.vcpus]}

    @classmethod
    def _of(cls, saved: Mapping[str, Any], data: Any, problems: list[str]) -> Any:
        given = data.get("vcpus")
        if not isinstance(given, list):
            problems.append("vcpus: missing or not a list")
            return None
        saved_at = data.get("saved_at")  # which states of older versions do not say
        if saved_at is not None and (type(saved_at) is not int or not 0 <= saved_at < 1 << 63):
            problems.append("saved_at: not a number of nanoseconds since 1970")
        vcpus = []
        for index, of_vcpu in enumerate(given):
            wrong: list[str] = []
            vcpus.append(cls._vcpu._from_data(of_vcpu, wrong))
            problems += (f"vCPU {index}: {problem}" for problem in wrong)
        return None if problems else cls(saved, vcpus, saved_at)

    @classmethod
    def _keys(cls) -> tuple[str, ...]:
        return ("sinks", "saved_at", "vcpus")


def _made(sink: str, form: Form, given: Any, problems: list[str]) -> Any:
    """What a sink's elements make; None if that is wrong."""
    if not isinstance(given, dict):
        problems.append(f"{sink}: neither null nor a JSON object")
        return None
    wrong: list[str] = []
    named = _by_present_names(form, given, wrong)
    elements: dict[str, Element] = {}
    for name, text in named.items():
        bits = form.width(name)
        digits = text.removeprefix("0x") if isinstance(text, str) else ""
        if bits is None:
            wrong.append(f"{name}: {sink} has no such element")
        elif text == digits or not digits or not set(digits) <= set("0123456789abcdef"):
            wrong.append(f"{name}: {text!r} is not a number like 0x1f")
        elif bits and int(digits, 16) >> bits:
            wrong.append(f"{name}: {text} does not fit in {bits} bits")
        elif not bits and len(digits) % 2:
            wrong.append(f"{name}: {len(digits)} digits are no whole number of bytes")
        else:
            elements[name] = Element(int(digits, 16), bits or 4 * len(digits))
    blank = form.blank()
    wrong += [f"{name}: missing" for name in form.elements(blank) if name not in named]
    problems += wrong
    return None if wrong else form.changed(blank, elements)


def _by_present_names(
    form: Form, given: Mapping[str, Any], problems: list[str]
) -> Mapping[str, Any]:
    """The elements of a text, which may be of a time when some had other names."""
    if not isinstance(form, HasFormerNames):
        return given
    found: dict[str, Any] = {}
    for name, text in given.items():
        present = form.present_name(name)
        if present in found:
            problems.append(f"{name}: is there twice, also as {present}")
        found[present] = text
    return found


def other_facts(backend: str) -> str:
    """What explains that names do not agree, in a text that is refused."""
    return f"written with other facts about {backend} than this vmm-arch has"


def _same(one: Any, other: Any) -> bool:
    """Whether saved state is the same, byte for byte."""
    if one is None or other is None:
        return one is other
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    raw = (ctypes.Structure, ctypes.Array, bytes, bytearray)
    if isinstance(one, raw) and isinstance(other, raw):
        return bytes(one) == bytes(other)
    return bool(one == other)


def _portable(saved: Any) -> Any:
    """Saved state with bytes for ctypes' arrays."""
    if isinstance(saved, ctypes.Array):
        return bytes(saved)
    return tuple(map(_portable, saved)) if isinstance(saved, tuple) else saved


def _refuse(operation: str, problems: list[str]) -> None:
    if problems:
        raise StateError(operation, problems)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
