"""A hypervisor on one CPU: its operations, and where it keeps state.

Macros lie in two folders: what is the hypervisor's on every CPU in ``hypervisors/NAME``, which a
hypervisor may do without, and what is its own on one CPU in ``hypervisors/NAME/CPU``. Each macro
has one home; those of the first folder put in macros of the second with ``on_cpu("macro", …)``.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, get_args

from vmm_arch_gen.arch.macros import Macro, Macros, Request, read_macros
from vmm_arch_gen.arch.sources import read_python
from vmm_arch_gen.arch.tables import Table, Unsupported, closed, read_names, read_table
from vmm_arch_gen.diagnostics import Problem, collecting, did_you_mean

OPERATIONS = "operations.py.j2"
"""The file of the contract's operations."""
SECTIONS = {
    "summary": "module.py.j2",
    "machines_per_process": "module.py.j2",
    "imports": "module.py.j2",
    "records": "module.py.j2",
    "definitions": "module.py.j2",
    "calls": "module.py.j2",
    "vcpu_members": "machine.py.j2",
    "vm_members": "machine.py.j2",
}
"""The sections of a module that are no operations: macros without parameters, by their file."""

TEXTS = ("summary", "machines_per_process")
"""The sections that are put into a line: the text of a docstring, a value."""

_TABLES = ("SINKS", "SLOTS", "CREATION_GUARANTEES")

Shape = Literal["record", "keywords", "table"]

# The entries of a sink: whether it must have one, and what one looks like.
_ENTRIES = {
    "operation": (True, '"set_regs"'),
    "shape": (True, " or ".join(f'"{shape}"' for shape in get_args(Shape))),
    "constructor": (True, '"kvm_regs", a record or a function'),
    "variable": (True, '"regs"'),
    "type": (False, '"Regs", what copies an image to fill it in'),
    "value": (False, '"union WHV_REGISTER_VALUE", a record of the headers'),
    "when": (False, '"vcpu.vm.irqchip", an expression'),
    "fixed": (False, '{"flags": "KVM_VCPUEVENT_VALID_SHADOW"}'),
    "composites": (False, '{"SegmentValue": ("_segment_image", {"base": "base"})}'),
}
_IDENTIFIERS = ("operation", "constructor", "variable", "type")


@dataclass(frozen=True)
class Layout:
    """How a sink lays out a value of several parts: by a function of them all."""

    constructor: str
    members: Mapping[str, str]
    """For parts that can be filled in at run time the member that each is."""


@dataclass(frozen=True)
class Sink:
    """One call that writes state."""

    name: str
    order: int
    operation: str
    shape: Shape
    """How ``constructor`` is called: with nested records, flat keywords, or one dictionary."""
    constructor: str
    type: str | None
    """The type of an image, which copies it; None if nothing is ever filled in."""
    variable: str
    value: str | None
    """For a table the record that its values are, of which slots with dots name a member."""
    when: str | None
    """An expression that says whether the machine has this state at all."""
    fixed: Mapping[str, str]
    """Slots that are no state but always have this value."""
    composites: Mapping[str, Layout]
    """By the contract's types of values with several parts."""
    where: str


@dataclass(frozen=True)
class Slots:
    """Where the elements of a group lie: in which sink, and at which slot of it."""

    sink: str
    patterns: Mapping[str, str | Unsupported]
    malformed: tuple[str, ...]
    """Patterns whose slots are neither."""
    where: str

    def pattern(self, element: str) -> str | None:
        """The first pattern that an element has; None if it has none."""
        return next((p for p in self.patterns if fnmatchcase(element, p)), None)

    def slot(self, element: str) -> str | Unsupported | None:
        """Where an element lies; None if the table does not say."""
        pattern = self.pattern(element)
        if pattern is None:
            return None
        slot = self.patterns[pattern]
        if isinstance(slot, Unsupported):
            return slot
        before, _, after = pattern.partition("*")
        return slot.replace("*", element[len(before) : len(element) - len(after)])


@dataclass(frozen=True)
class Hypervisor:
    """What is well formed in a folder; the rest is among its problems."""

    folder: str
    """For this CPU, below the templates."""
    macros: Mapping[str, Macro]
    requests: Mapping[str, Request]
    """The macros that the folder for every CPU asks of the one for this CPU."""
    unsupported: Mapping[str, str]
    """The operations that it lacks, with the reason."""
    unsupported_where: Mapping[str, str]
    sinks: Mapping[str, Sink]
    slots: Mapping[str, Slots]
    """By the groups of state."""
    guaranteed: Mapping[str, str]
    """The groups that a new vCPU has as they are to be, each with the line that says so."""
    table_of_sinks: Table | None
    table_of_slots: Table | None
    problems: tuple[Problem, ...]

    @property
    def rooms(self) -> tuple[str, ...]:
        """The folders that its macros lie in, below the templates, in alphabetical order."""
        return tuple(sorted({macro.file.rpartition("/")[0] for macro in self.macros.values()}))

    def slot(self, group: str, element: str) -> str | Unsupported | None:
        """Where an element lies in its group's sink; None if the table does not say."""
        return self.slots[group].slot(element)

    @property
    def operations_of_sinks(self) -> set[str]:
        """The operations that write sinks, malformed ones included."""
        rows = self.table_of_sinks.entries.values() if self.table_of_sinks else ()
        return {str(row.get("operation")) for row in rows if isinstance(row, Mapping)}


def read_hypervisor(templates: Path, name: str, cpu: str) -> Hypervisor:
    """Read the folders of a hypervisor on a CPU; what is malformed in them is among its problems."""
    folder = f"hypervisors/{name}/{cpu}"
    problems: list[Problem] = []
    everywhere: Macros | None = None
    homes = SECTIONS
    if any((templates / "hypervisors" / name).glob("*.j2")):
        everywhere = read_macros(templates, f"hypervisors/{name}", SECTIONS, OPERATIONS)
        # What a file asks for lies in the file of its name.
        homes = {**SECTIONS, **{request.name: request.file for request in everywhere.requests}}
    macros = read_macros(templates, folder, homes, OPERATIONS)
    problems += macros.problems
    if everywhere is not None:
        macros = _together(everywhere, macros, problems)
    sinks_table: Table | None = None
    slots_table: Table | None = None
    guaranteed: Mapping[str, str] = {}
    with collecting(problems):
        source = read_python(templates, *folder.split("/"), "state.py")
        problems += closed(source, _TABLES)
        with collecting(problems):
            sinks_table = read_table(source, "SINKS")
        with collecting(problems):
            slots_table = read_table(source, "SLOTS")
        with collecting(problems):
            guaranteed = read_names(source, "CREATION_GUARANTEES")
    return Hypervisor(
        folder=folder,
        macros=macros.there,
        requests={request.name: request for request in macros.requests},
        unsupported={name: reason for name, (reason, _) in macros.unsupported.items()},
        unsupported_where={name: where for name, (_, where) in macros.unsupported.items()},
        sinks=_sinks(sinks_table, problems) if sinks_table else {},
        slots=_slots(slots_table, sinks_table, problems) if slots_table else {},
        guaranteed=guaranteed,
        table_of_sinks=sinks_table,
        table_of_slots=slots_table,
        problems=tuple(problems),
    )


def _together(everywhere: Macros, here: Macros, problems: list[Problem]) -> Macros:
    """What a hypervisor has on every CPU and on this one; each macro has one home."""
    problems += everywhere.problems
    for name in everywhere.there.keys() & here.there.keys():
        what = f"{name} is written twice"
        remedy = f"remove one of the two; the other is in {everywhere.there[name].where}"
        problems.append(Problem(here.there[name].where, what, remedy))
    for name in everywhere.unsupported.keys() & here.unsupported.keys():
        what = f"{name} is declared unsupported twice"
        remedy = f"remove one of the two; the other is in {everywhere.unsupported[name][1]}"
        problems.append(Problem(here.unsupported[name][1], what, remedy))
    for request in here.requests:
        what = f"on_cpu({request.name!r}) is for what lies on every CPU; this is one CPU's folder"
        problems.append(Problem(request.where, what, "write what it stands for"))
    return Macros(
        there={**everywhere.there, **here.there},
        requests=everywhere.requests,
        unsupported={**everywhere.unsupported, **here.unsupported},
        problems=(),
    )


def _sinks(table: Table, problems: list[Problem]) -> dict[str, Sink]:
    sinks = {}
    for order, (name, row) in enumerate(table.entries.items()):
        wrong = list(_wrong_entries(table, name))
        problems += wrong
        if isinstance(row, Mapping) and not wrong:
            sinks[name] = _sink(table, name, order, row)
    return sinks


def _wrong_entries(table: Table, name: str) -> list[Problem]:
    """What is wrong with a row of SINKS."""
    row = table.entries[name]
    if not isinstance(row, Mapping):
        what = f"{name} is not a dictionary"
        required = ", ".join(f'"{key}": …' for key, (needed, _) in _ENTRIES.items() if needed)
        return [table.complaint(name, what=what, remedy=f"write {{{required}}}")]
    problems = []
    for key, value in row.items():
        if key not in _ENTRIES:
            remedy = f"{did_you_mean(key, _ENTRIES)}the entries are {', '.join(_ENTRIES)}"
            what = f"{name} has the unknown entry {key!r}"
            problems.append(table.complaint(name, key, what=what, remedy=remedy))
        elif not _well_formed(key, value):
            what = f"the {key} of {name} is {_shown(value)}"
            remedy = f"write, for example, {_ENTRIES[key][1]}"
            problems.append(table.complaint(name, key, what=what, remedy=remedy))
    for key, (needed, example) in _ENTRIES.items():
        if needed and key not in row:
            what = f"{name} lacks the entry {key!r}"
            remedy = f'add, for example, "{key}": {example}'
            problems.append(table.complaint(name, what=what, remedy=remedy))
    if row.get("shape") != "table" and "value" in row:
        what, remedy = (
            f"{name} has a value, but is not a table",
            'remove it, or the shape is "table"',
        )
        problems.append(table.complaint(name, "value", what=what, remedy=remedy))
    return problems


def _well_formed(key: str, value: object) -> bool:
    match key, value:
        case "fixed", Mapping():
            return all(isinstance(text, str) and _expression(text) for text in value.values())
        case "composites", Mapping():
            return all(_layout(row) is not None for row in value.values())
        case "shape", str():
            return value in get_args(Shape)
        case "when", str():
            return _expression(value)
        case "value", str():
            return True
        case _, str() if key in _IDENTIFIERS:
            return value.isidentifier()
    return False


def _expression(text: str) -> bool:
    try:
        ast.parse(text, mode="eval")
    except SyntaxError:
        return False
    return True


def _shown(value: object) -> str:
    if isinstance(value, Unsupported):
        return f"unsupported({value.reason!r})"
    return repr(dict(value) if isinstance(value, Mapping) else value)


def _sink(table: Table, name: str, order: int, row: Mapping[str, object]) -> Sink:
    def text(key: str) -> str | None:
        value = row.get(key)
        return value if isinstance(value, str) else None

    shape = row["shape"]
    fixed, composites = row.get("fixed"), row.get("composites")
    layouts = {type: _layout(given) for type, given in _entries(composites).items()}
    assert shape == "record" or shape == "keywords" or shape == "table"
    return Sink(
        name=name,
        order=order,
        operation=str(row["operation"]),
        shape=shape,
        constructor=str(row["constructor"]),
        type=text("type") or (text("constructor") if shape == "record" else None),
        variable=str(row["variable"]),
        value=text("value"),
        when=text("when"),
        fixed={slot: str(value) for slot, value in _entries(fixed).items()},
        composites={type: layout for type, layout in layouts.items() if layout},
        where=table.where(name),
    )


def _entries(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _layout(row: object) -> Layout | None:
    match row:
        case (str() as constructor, Mapping() as members) if constructor.isidentifier():
            if all(isinstance(member, str) for member in members.values()):
                return Layout(constructor, {part: str(m) for part, m in members.items()})
    return None


def _slots(table: Table, sinks: Table | None, problems: list[Problem]) -> dict[str, Slots]:
    slots = {}
    for group, row in table.entries.items():
        match row:
            case (str() as sink, Mapping() as patterns):
                if sinks is not None and sink not in sinks.entries:
                    what = f"{group} names the sink {sink}, which SINKS does not have"
                    remedy = (
                        f"{did_you_mean(sink, sinks.entries)}there are {', '.join(sinks.entries)}"
                    )
                    problems.append(table.complaint(group, "0", what=what, remedy=remedy))
                texts: dict[str, str | Unsupported] = {}
                odd: list[str] = []
                for pattern, slot in patterns.items():
                    if isinstance(slot, str | Unsupported) and pattern.count("*") <= 1:
                        texts[pattern] = slot
                        continue
                    odd.append(pattern)
                    what = f"{pattern} of {group} is {_shown(slot)}"
                    if pattern.count("*") > 1:
                        what = f"the pattern {pattern} of {group} has more than one *"
                    remedy = (
                        'write "element": "slot", "r*": "R*", or "element": unsupported("reason")'
                    )
                    problems.append(table.complaint(group, "1", pattern, what=what, remedy=remedy))
                slots[group] = Slots(sink, texts, tuple(odd), table.where(group))
            case _:
                what = f"{group} is not a sink and its slots"
                remedy = 'write ("sink", {"element": "slot"})'
                problems.append(table.complaint(group, what=what, remedy=remedy))
    return slots
