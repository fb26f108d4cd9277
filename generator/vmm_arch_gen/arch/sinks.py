"""Where a hypervisor keeps state: its sinks, each a call, and the slots of elements in them."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from vmm_arch_gen.arch.tables import Table, Unsupported
from vmm_arch_gen.diagnostics import Problem, did_you_mean

Shape = Literal["record", "keywords", "table", "whole"]
"""How the argument of a sink's call is made; a whole one is only read, and written as it was."""
Scope = Literal["vcpu", "machine"]

# The entries of a sink: whether it must have one, and what one looks like.
_ENTRIES = {
    "operation": (True, '"set_regs"'),
    "reads": (False, '"read_regs", the macro that reads it'),
    "restores": (
        False,
        '"restore_regs", the macro that writes what was read, if not the operation',
    ),
    "resets": (
        False,
        '"reset_regs", the macro that writes it in a reset, or unsupported("why it needs no reset")',
    ),
    "prepares": (
        False,
        '"bytearray(fpu)", what that macro is given, laid out once; None to skip it',
    ),
    "kind": (False, '"clock", which a reset lets run on unless it is asked for'),
    "ticks": (
        False,
        '{"tsc": "vm.vcpus[0].get_tsc_khz()"}, by elements that are clocks how far each counts in'
        " a millisecond",
    ),
    "of": (False, '"machine", if it is not a vCPU\'s'),
    "saved": (False, '"kvm_sregs2", the record that is read, if not the constructor'),
    "form": (False, '"MsrForm()", what takes apart what is read, if it is not a record'),
    "inside": (False, '"chip.pic", the part of the record that is state'),
    "running": (False, '("IA32_TSC",), elements that change by themselves'),
    "live": (False, '("pic.irr",), elements that devices change while no vCPU runs'),
    "shape": (True, " or ".join(f'"{shape}"' for shape in get_args(Shape))),
    "constructor": (True, '"kvm_regs", a record or a function'),
    "variable": (True, '"regs"'),
    "type": (False, '"Regs", what copies an image to fill it in'),
    "value": (False, '"union WHV_REGISTER_VALUE", a record of the headers'),
    "when": (False, '"vcpu.vm.irqchip", an expression'),
    "fixed": (False, '{"flags": "KVM_VCPUEVENT_VALID_SHADOW"}'),
    "composites": (False, '{"SegmentValue": ("_segment_image", {"base": "base"})}'),
    "calls": (False, '("KVM_GET_REGS", "KVM_SET_REGS"), the calls that read and write it'),
    "names": (False, '"enum WHV_REGISTER_NAME", the enumerators that its keys are'),
    "own": (False, '("WHvRegisterSint*",), names that no element has'),
}
_IDENTIFIERS = (
    "operation",
    "reads",
    "restores",
    "resets",
    "saved",
    "constructor",
    "variable",
    "type",
)
# What a sink needs that is only read and written as it was.
_NEEDED_OF_WHOLE = ("shape", "variable", "reads")


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
    """Of its write among all, which the rules decide."""
    scope: Scope
    operation: str
    """Empty for a whole one that is given at creation."""
    reads: str | None
    """The macro that reads it; None if its state cannot be saved."""
    restores: str | None
    """The macro that writes what was read; None if that is given at creation."""
    resets: str | None
    """The macro that writes it in a reset; None if that is not necessary."""
    needs_no_reset: str
    """Why it is not."""
    prepares: str | None
    """An expression for what ``resets`` is given, if not what was read; None in it is for nothing."""
    is_clock: bool
    """Whether a reset lets it run on unless it is asked for."""
    ticks: Mapping[str, str]
    """By elements that are clocks, expressions for how far each counts in a millisecond."""
    saved: str | None
    """The record that is read."""
    form: str | None
    """Else an expression for the form of what is read."""
    inside: str
    """The path of the record's part that is state."""
    running: tuple[str, ...]
    """Elements, or patterns, that change by themselves."""
    live: tuple[str, ...]
    """Elements, or patterns, that devices change while no vCPU runs."""
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
    calls: tuple[str, ...]
    """The interface's calls that read or write what is in this sink."""
    names: str | None
    """For a table the enum whose enumerators its keys are."""
    own: tuple[str, ...]
    """Names, or patterns of names, whose state is the hypervisor's own: no element has it."""
    where: str


@dataclass(frozen=True)
class Slots:
    """Where the elements of a group are stored: in which sink, and in which slot of it."""

    sink: str
    patterns: Mapping[str, str | Unsupported]
    malformed: tuple[str, ...]
    """Patterns whose slots are neither."""
    where: str

    def pattern(self, element: str) -> str | None:
        """The first pattern that an element has; None if it has none."""
        return next((p for p in self.patterns if fnmatchcase(element, p)), None)

    def slot(self, element: str) -> str | Unsupported | None:
        """An element's slot; None if the table does not say."""
        pattern = self.pattern(element)
        if pattern is None:
            return None
        slot = self.patterns[pattern]
        if isinstance(slot, Unsupported):
            return slot
        before, _, after = pattern.partition("*")
        return slot.replace("*", element[len(before) : len(element) - len(after)])


def make_sinks(table: Table, problems: list[Problem]) -> dict[str, Sink]:
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
    whole = row.get("shape") == "whole"
    for key, (needed, example) in _ENTRIES.items():
        if (key in _NEEDED_OF_WHOLE if whole else needed) and key not in row:
            what = f"{name} lacks the entry {key!r}"
            remedy = f'add, for example, "{key}": {example}'
            problems.append(table.complaint(name, what=what, remedy=remedy))
    if "reads" in row and row.get("shape") != "record" and not {"form", "saved"} & row.keys():
        what = f"{name} is read, and is not a record"
        remedy = f'add "form": {_ENTRIES["form"][1]}'
        problems.append(table.complaint(name, "reads", what=what, remedy=remedy))
    for key, needs, what in (
        ("value", "shape", f"{name} has a value, but is not a table"),
        ("names", "shape", f"{name} names an enum, but is not a table"),
        ("own", "names", f"{name} has names of its own, but does not name their enum"),
    ):
        if key in row and (row.get("shape") != "table" if needs == "shape" else needs not in row):
            remedy = 'remove it, or the shape is "table"' if needs == "shape" else 'add "names"'
            problems.append(table.complaint(name, key, what=what, remedy=remedy))
    return problems


def _well_formed(key: str, value: object) -> bool:
    match key, value:
        case "fixed" | "ticks", Mapping():
            return all(isinstance(text, str) and _expression(text) for text in value.values())
        case "composites", Mapping():
            return all(_layout(row) is not None for row in value.values())
        case "shape", str():
            return value in get_args(Shape)
        case "resets", Unsupported():
            return True
        case "kind", str():
            return value == "clock"
        case "when" | "form" | "prepares", str():
            return _expression(value)
        case "value" | "names" | "inside", str():
            return True
        case "of", str():
            return value in get_args(Scope)
        case "calls" | "own" | "running" | "live", tuple():
            return all(isinstance(name, str) for name in value) and len(set(value)) == len(value)
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

    shape: Any = row["shape"]
    fixed, composites = row.get("fixed"), row.get("composites")
    layouts = {type: _layout(given) for type, given in _entries(composites).items()}
    assert shape in ("record", "keywords", "table", "whole")
    operation = text("operation") or ""
    reason = row.get("resets")
    record = text("constructor") if shape == "record" else None
    return Sink(
        name=name,
        order=order,
        scope="machine" if row.get("of") == "machine" else "vcpu",
        operation=operation,
        reads=text("reads"),
        restores=(restores := text("restores") or operation or None),
        resets=None if isinstance(reason, Unsupported) else text("resets") or restores,
        needs_no_reset=reason.reason if isinstance(reason, Unsupported) else "",
        prepares=text("prepares"),
        is_clock=row.get("kind") == "clock",
        ticks={name: str(rate) for name, rate in _entries(row.get("ticks")).items()},
        saved=text("saved") or (None if text("form") else record),
        form=text("form"),
        inside=text("inside") or "",
        running=_texts(row.get("running")),
        live=_texts(row.get("live")),
        shape=shape,
        constructor=text("constructor") or "",
        type=text("type") or record,
        variable=str(row["variable"]),
        value=text("value"),
        when=text("when"),
        fixed={slot: str(value) for slot, value in _entries(fixed).items()},
        composites={type: layout for type, layout in layouts.items() if layout},
        calls=_texts(row.get("calls")),
        names=text("names"),
        own=_texts(row.get("own")),
        where=table.where(name),
    )


def _entries(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, tuple) else ()


def _layout(row: object) -> Layout | None:
    match row:
        case (str() as constructor, Mapping() as members) if constructor.isidentifier():
            if all(isinstance(member, str) for member in members.values()):
                return Layout(constructor, {part: str(m) for part, m in members.items()})
    return None


def make_slots(table: Table, sinks: Table | None, problems: list[Problem]) -> dict[str, Slots]:
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
