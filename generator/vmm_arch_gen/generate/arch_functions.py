"""From plans to Python: the statements of arch functions, and the images that they write.

Reads plans, writes text. Nothing else builds statements; a template holds signatures and
docstrings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from textwrap import indent

from vmm_arch_gen.abi.lookup import find_member, record_of
from vmm_arch_gen.abi.model import VerifiedAbi
from vmm_arch_gen.abi.paths import index_value
from vmm_arch_gen.abi.types import Array, Named, Type
from vmm_arch_gen.arch.contract import Contract
from vmm_arch_gen.arch.hypervisor import Hypervisor
from vmm_arch_gen.arch.plan import Parts, Write, plan
from vmm_arch_gen.arch.sinks import Sink
from vmm_arch_gen.arch.states import NamedState, States, Value
from vmm_arch_gen.diagnostics import InputError, Problem
from vmm_arch_gen.generate.names import python_name

Inline = Callable[..., str]
"""The body of an operation, given its macro's name and its arguments."""

# An image with at most so many values besides what is filled in is built in place.
_FEW = 2
_NAME = re.compile(r"\w+")


class Emitter:
    """Writes the arch functions of one backend, and gathers the images that they use."""

    def __init__(
        self,
        contract: Contract,
        states: States,
        hypervisor: Hypervisor,
        abi: VerifiedAbi,
        inline: Inline,
    ) -> None:
        self._contract = contract
        self._states = states
        self._hypervisor = hypervisor
        self._abi = abi
        self._inline = inline
        self._images: dict[str, str] = {}

    def plan(self, state: str, *groups: str) -> str:
        """Write the groups of a state that a caller asks for."""
        writes = self._plan(self._states.by_name[state], groups)
        return "\n".join(self._statements(self._states.by_name[state], write) for write in writes)

    def configure(self, state: str) -> str:
        """Write a whole state, except for what a new vCPU has anyway."""
        guaranteed = self._hypervisor.guaranteed
        return self._all(state, [g for g in self._contract.groups if g not in guaranteed])

    def reset(self, state: str) -> str:
        """Write a whole state."""
        return self._all(state, self._contract.groups)

    def images(self) -> list[str]:
        """Everything that was laid out for the functions so far, as assignments."""
        return [f"{name} = {expression}" for name, expression in self._images.items()]

    def _plan(self, state: NamedState, groups: Iterable[str]) -> tuple[Write, ...]:
        return plan(self._contract, self._hypervisor, state, groups)

    def _all(self, name: str, groups: Iterable[str]) -> str:
        state = self._states.by_name[name]
        lines = []
        for write in self._plan(state, groups):
            statements = self._statements(state, write)
            if write.sink.when is not None:
                statements = f"if {write.sink.when}:\n{indent(statements, '    ')}"
            lines.append(statements)
        return "\n".join(lines)

    def _statements(self, state: NamedState, write: Write) -> str:
        sink = write.sink
        if not write.filled_in:
            return self._inline(sink.operation, "vcpu", self._image(state, write))
        if self._in_place(write):
            record = self._expression(sink, {**write.constants, **write.filled_in})
            lines = [f"{sink.variable} = {record}"]
        else:
            if sink.type is None:
                what = f"{sink.name}: {', '.join(write.filled_in)} is filled in at run time"
                remedy = 'name the type that is filled in: add "type": "Regs" or what it is'
                raise InputError(Problem(sink.where, what, remedy))
            copy = f"{sink.type}.from_buffer_copy({self._image(state, write)})"
            lines = [f"{sink.variable} = {copy}"]
            lines += [
                f"{sink.variable}{_member(sink, slot)} = {expression}"
                for slot, expression in write.filled_in.items()
            ]
        return "\n".join([*lines, self._inline(sink.operation, "vcpu", sink.variable)])

    def _in_place(self, write: Write) -> bool:
        constants = [v for v in write.constants.values() if v != 0]
        nested = any("." in slot or "[" in slot for slot in (*write.constants, *write.filled_in))
        return write.sink.shape == "record" and not nested and len(constants) <= _FEW

    def _image(self, state: NamedState, write: Write) -> str:
        """The name of an image, laid out once: states that write the same share it."""
        sink = write.sink
        expression = self._laid_out(write)
        all_groups = [g for g, slots in self._hypervisor.slots.items() if slots.sink == sink.name]
        whole = len(write.groups) == len(all_groups)
        name = sink.name if whole else "_".join(write.groups)
        lineage = self._states.lineage(state)
        writers = (
            above
            for above in lineage
            if self._laid_out(self._plan(above, write.groups)[0]) == expression
        )
        if (first := next(writers)) is not lineage[0]:
            name = f"{first.name}_{name}"
        image = f"_{name}".upper()
        if sink.shape == "table" and len(write.groups) > 1:
            parts = [self._plan(state, [group]) for group in write.groups]
            expression = " | ".join(self._image(state, part) for (part,) in parts)
        if self._images.setdefault(image, expression) != expression:
            what = f"two images would be called {image}"
            raise InputError(Problem(sink.where, what, "rename the sink or the state"))
        return image

    def _laid_out(self, write: Write) -> str:
        """What is known ahead; a table has a place for what is filled in, too."""
        values = dict(write.constants)
        if write.sink.shape == "table":
            values |= {s: 0 for s in write.filled_in if s.partition(".")[0] not in write.constants}
        elements = [e for e in self._contract.elements.values() if e.group in write.groups]
        slots = [self._hypervisor.slot(element.group, element.name) for element in elements]
        in_order = {s: values[s] for s in slots if isinstance(s, str) and s in values}
        return self._expression(write.sink, in_order)

    def _expression(self, sink: Sink, values: Mapping[str, Value | Parts]) -> str:
        given = {slot: self._value(sink, value) for slot, value in values.items()}
        if sink.shape == "table":
            items = ", ".join(f"{slot}: {value}" for slot, value in self._entries(sink, given))
            return f"{sink.constructor}({{{items}}})"
        # Records, and functions that make them, begin with zeros.
        given = {slot: value for slot, value in given.items() if value != "0"} | dict(sink.fixed)
        if sink.shape == "keywords":
            return f"{sink.constructor}({_keywords(given)})"
        return self._record(f"struct {sink.constructor}", given)

    def _entries(self, sink: Sink, given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """A table's keys and values: of the slots that are members of a value, one value is made."""
        members: dict[str, dict[str, str]] = {}
        for slot, value in given.items():
            key, _, path = slot.partition(".")
            members.setdefault(key, {})[path] = value
        for key, values in members.items():
            if sink.value is None or "" in values:
                yield key, values[""]
            else:
                written = {path: value for path, value in values.items() if value != "0"}
                yield key, self._record(sink.value, written)

    def _record(self, key: str, values: Mapping[str, str]) -> str:
        """A record as nested calls of its types: ``kvm_sregs(gdt=kvm_dtable(limit=39))``."""
        given: dict[str, dict[str, str]] = {}
        for slot, value in values.items():
            name, *_ = _NAME.findall(slot)
            given.setdefault(name, {})[slot[len(name) :]] = value
        keywords = {}
        for name, parts in given.items():
            member = find_member(self._abi, key, name)
            keywords[name] = self._made(member.type, parts) if member else parts[""]
        declared = [member.name for member in self._abi.records[key].members]
        in_order = sorted(keywords, key=lambda n: declared.index(n) if n in declared else -1)
        return f"{python_name(key)}({_keywords({name: keywords[name] for name in in_order})})"

    def _made(self, type: Type, parts: Mapping[str, str]) -> str:
        """A member, of which parts are given by paths that begin with a dot or a bracket."""
        if "" in parts:
            return parts[""]
        if record := record_of(self._abi, type):
            return self._record(record, {path[1:]: value for path, value in parts.items()})
        while isinstance(type, Named):
            type = self._abi.typedefs[type.name].type
        assert isinstance(type, Array), f"{', '.join(parts)} was checked"
        elements: dict[int, dict[str, str]] = {}
        for path, value in parts.items():
            index, _, rest = path[1:].partition("]")
            elements.setdefault(index_value(self._abi, index) or 0, {})[rest] = value
        items = [
            self._made(type.of, elements[i]) if i in elements else self._zero(type.of)
            for i in range(max(elements) + 1)
        ]
        return f"({', '.join(items)}{',' * (len(items) == 1)})"

    def _zero(self, type: Type) -> str:
        record = record_of(self._abi, type)
        return "0" if record is None else f"{python_name(record)}()"

    def _value(self, sink: Sink, value: Value | Parts) -> str:
        if isinstance(value, Parts):
            layout = sink.composites[value.type.name]
            return f"{layout.constructor}({', '.join(map(_number, value.values))})"
        return _number(value)


def _member(sink: Sink, slot: str) -> str:
    if sink.shape != "table":
        return f".{slot}"
    key, dot, path = slot.partition(".")
    return f"[{key}]{dot}{path}"


def _number(value: Value) -> str:
    return value if isinstance(value, str) else str(value) if value < 10 else f"0x{value:X}"


def _keywords(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
