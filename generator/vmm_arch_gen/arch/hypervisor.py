"""A hypervisor's folder for one CPU: its operations, and where it keeps state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from jinja2 import nodes

from vmm_arch_gen.arch.literals import Absent, SourceFile, parse_template, read_source
from vmm_arch_gen.diagnostics import InputError, Problem

OPERATIONS = "operations.py.j2"
"""The file of the contract's operations."""
PARTS = {
    "summary": "module.py.j2",
    "imports": "module.py.j2",
    "records": "module.py.j2",
    "module_parts": "module.py.j2",
    "calls": "module.py.j2",
    "vcpu_parts": "machine.py.j2",
    "vm_parts": "machine.py.j2",
}
"""What a folder has besides, each a macro without parameters, by its file."""

SEGMENT_PARTS = ("selector", "base", "limit", "attributes")


@dataclass(frozen=True)
class Macro:
    """A macro of the operations file."""

    name: str
    parameters: tuple[str, ...]
    where: str


@dataclass(frozen=True)
class Segments:
    """How a sink lays out a segment: by a function of its four parts, each a member as well."""

    image: str
    members: Mapping[str, str]


@dataclass(frozen=True)
class Sink:
    """One call that writes state."""

    name: str
    order: int
    operation: str
    shape: Literal["record", "keywords", "table"]
    """How ``image`` is called: with nested records, flat keywords, or one dictionary."""
    image: str
    record: str | None
    """The type of an image, which copies it; None if nothing is ever filled in."""
    variable: str
    value: str | None
    """For a table the type of its values, which slots with dots name a member of."""
    when: str | None
    """An expression that says whether the machine has this state at all."""
    fixed: Mapping[str, str]
    """Slots that are no state but always have this value."""
    segments: Segments | None


@dataclass(frozen=True)
class Hypervisor:
    folder: str
    """Below the templates."""
    macros: Mapping[str, Macro]
    absent: Mapping[str, str]
    """The operations that it lacks, with the reason."""
    sinks: Mapping[str, Sink]
    slots: Mapping[str, tuple[str, Mapping[str, str | Absent]]]
    """For each group of state its sink, and patterns of elements with their slots."""
    guaranteed: tuple[str, ...]
    """The groups that a new vCPU has as they are to be."""
    state: SourceFile
    sink_lines: Mapping[str, int]
    slot_lines: Mapping[str, int]

    def slot(self, group: str, element: str) -> str | Absent | None:
        """Where an element lies in its group's sink; None if the table does not say."""
        for pattern, slot in self.slots[group][1].items():
            if fnmatchcase(element, pattern):
                if isinstance(slot, Absent):
                    return slot
                before, _, after = pattern.partition("*")
                same = element[len(before) : len(element) - len(after)]
                return slot.replace("*", same)
        return None


def read_hypervisor(templates: Path, name: str) -> Hypervisor:
    """Read the folder of a hypervisor on a CPU; InputError names what is malformed in it."""
    folder = f"hypervisors/{name}"
    macros: dict[str, Macro] = {}
    absent: dict[str, str] = {}
    for file in dict.fromkeys([OPERATIONS, *PARTS.values()]):
        found, lacking = _macros(templates, f"{folder}/{file}")
        macros |= found
        absent |= lacking
    state = read_source(templates, *folder.split("/"), "state.py")
    sinks_table, sink_lines = state.table("SINKS")
    slots_table, slot_lines = state.table("SLOTS")
    sinks = {}
    for order, (name, row) in enumerate(sinks_table.items()):
        try:
            sinks[name] = _sink(name, order, row)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            what = f"the sink {name} is wrong or incomplete: {error}"
            raise InputError(_odd(state, sink_lines[name], what)) from None
    slots: dict[str, tuple[str, Mapping[str, str | Absent]]] = {}
    for group, row in slots_table.items():
        match row:
            case (str() as sink, Mapping() as patterns) if sink in sinks:
                slots[group] = sink, {
                    k: v for k, v in patterns.items() if isinstance(v, str | Absent)
                }
            case _:
                what = f"{group} does not name a sink and its slots"
                raise InputError(_odd(state, slot_lines[group], what))
    return Hypervisor(
        folder=folder,
        macros=macros,
        absent=absent,
        sinks=sinks,
        slots=slots,
        guaranteed=state.names("CREATION_GUARANTEES"),
        state=state,
        sink_lines=sink_lines,
        slot_lines=slot_lines,
    )


def _odd(state: SourceFile, line: int, what: str) -> Problem:
    return Problem(state.where(line), what, "its docstring says how it is written")


def _sink(name: str, order: int, row: object) -> Sink:
    if not isinstance(row, Mapping):
        raise TypeError("no dictionary")
    row = dict(row)
    shape = row.pop("shape")
    if shape not in ("record", "keywords", "table"):
        raise ValueError(f"there is no shape {shape!r}")
    image = str(row.pop("image"))
    segments = row.pop("segments", None)
    sink = Sink(
        name=name,
        order=order,
        operation=str(row.pop("operation")),
        shape=shape,
        image=image,
        record=row.pop("record", image if shape == "record" else None),
        variable=str(row.pop("variable")),
        value=row.pop("value", None),
        when=row.pop("when", None),
        fixed=row.pop("fixed", {}),
        segments=_segments(segments) if segments else None,
    )
    if row:
        raise ValueError(f"there is no entry {next(iter(row))!r}")
    return sink


def _segments(row: object) -> Segments:
    match row:
        case (str() as image, Mapping() as members) if members.keys() <= set(SEGMENT_PARTS):
            return Segments(image, {part: str(member) for part, member in members.items()})
    raise ValueError(f"segments are a function and members of {', '.join(SEGMENT_PARTS)}")


def _macros(templates: Path, name: str) -> tuple[dict[str, Macro], dict[str, str]]:
    where = f"templates/{name}"
    tree = parse_template(templates, name)
    macros, absent = {}, {}
    for node in tree.body:
        match node:
            case nodes.Macro():
                parameters = tuple(argument.name for argument in node.args)
                macros[node.name] = Macro(node.name, parameters, f"{where}:{node.lineno}")
            case nodes.Assign(
                target=nodes.Name(name=lacking),
                node=nodes.Call(
                    node=nodes.Name(name="absent"), args=[nodes.Const(value=str() as reason)]
                ),
            ):
                absent[lacking] = reason
    return macros, absent
