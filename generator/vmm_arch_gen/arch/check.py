"""Compares a hypervisor's folder with the contract, and reports everything wrong at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from jinja2 import nodes

from vmm_arch_gen.abi.model import Abi, VerifiedAbi
from vmm_arch_gen.abi.paths import complaint, index_value, steps
from vmm_arch_gen.arch.contract import Contract
from vmm_arch_gen.arch.hypervisor import OPERATIONS, PARTS, Hypervisor, Sink
from vmm_arch_gen.arch.macros import parse_template
from vmm_arch_gen.arch.states import States
from vmm_arch_gen.arch.vocabulary import Element
from vmm_arch_gen.diagnostics import Problem, did_you_mean

_ABSENT = 'or declare it: {% set NAME = absent("reason") %}'


def check(
    contract: Contract,
    states: States | None,
    hypervisor: Hypervisor,
    abi: VerifiedAbi,
    templates: Path,
    template: str,
) -> Iterator[Problem]:
    """Yield what is malformed, missing, misshapen, unused or outside the contract.

    ``template`` is the arch functions' template, relative to ``templates``; ``states`` are None if
    they cannot be read.
    """
    yield from hypervisor.problems
    yield from _operations(contract, hypervisor)
    yield from _groups(contract, hypervisor)
    yield from _slots(contract, hypervisor, abi)
    yield from _sinks(contract, hypervisor, abi)
    yield from _shared_slots(contract, hypervisor, abi)
    yield from _uses(contract, states, hypervisor, templates, template)


def _operations(contract: Contract, hypervisor: Hypervisor) -> Iterator[Problem]:
    folder = f"templates/{hypervisor.folder}"
    file = f"{folder}/{OPERATIONS}"
    for macro, operation in contract.operations.items():
        wanted = f"{{% macro {macro}({', '.join(operation.parameters)}) %}}"
        if macro in hypervisor.macros and macro in hypervisor.absent:
            what = f"{macro} is both there and absent"
            remedy = (
                f"remove one of the two; it is declared absent in {hypervisor.absent_where[macro]}"
            )
            yield Problem(hypervisor.macros[macro].where, what, remedy)
        elif macro in hypervisor.macros:
            found = hypervisor.macros[macro]
            if found.parameters != operation.parameters:
                what = f"{macro} has the parameters ({', '.join(found.parameters)})"
                yield Problem(found.where, what, f"{operation.where} asks for {wanted}")
        elif macro not in hypervisor.absent:
            what = f"lacks the operation {macro} of {operation.where}"
            yield Problem(file, what, f"write {wanted}, {_ABSENT.replace('NAME', macro)}")
    for part, where in PARTS.items():
        if part not in hypervisor.macros:
            what = f"lacks the part {part}"
            yield Problem(f"{folder}/{where}", what, f"write {{% macro {part}() %}}")
    known = {*contract.operations, *PARTS}
    for found in hypervisor.macros.values():
        if found.name not in known:
            what = f"{found.name} is no operation of the contract"
            near = did_you_mean(found.name, known)
            yield Problem(
                found.where, what, f"{near}remove it, or add it to {contract.source.name}"
            )
    for name in hypervisor.absent.keys() - contract.operations.keys():
        what = f"{name} is declared absent, but is no operation of the contract"
        near = did_you_mean(name, list(contract.operations))
        yield Problem(hypervisor.absent_where[name], what, f"{near}remove the declaration")


def _groups(contract: Contract, hypervisor: Hypervisor) -> Iterator[Problem]:
    table = hypervisor.table_of_slots
    known = f"the groups of {contract.source.name} are {', '.join(contract.groups)}"
    for group in contract.groups if table is not None else ():
        if table is not None and group not in table.entries:
            what, remedy = f"lacks the group {group}", f'write "{group}": ("sink", {{"*": "*"}})'
            yield table.complaint(what=what, remedy=remedy)
    for name in table.entries if table is not None else ():
        if table is not None and name not in contract.groups:
            what = f"there is no group {name}"
            yield table.complaint(
                name, what=what, remedy=f"{did_you_mean(name, contract.groups)}{known}"
            )
    for name, where in hypervisor.guaranteed.items():
        if name not in contract.groups:
            what = f"CREATION_GUARANTEES: there is no group {name}"
            yield Problem(where, what, f"{did_you_mean(name, contract.groups)}{known}")


def _slots(contract: Contract, hypervisor: Hypervisor, abi: Abi) -> Iterator[Problem]:
    """Elements without a slot or with an impossible one, and patterns that no element has."""
    table = hypervisor.table_of_slots
    for group, slots in hypervisor.slots.items():
        assert table is not None
        elements = [e for e in contract.elements.values() if e.group == group]
        if not elements:
            continue
        used = {slots.pattern(element.name) for element in elements}
        for unneeded in slots.patterns.keys() - used:
            what = f"no element of {group} is called {unneeded}, or an earlier pattern has it"
            near = did_you_mean(unneeded, [element.name for element in elements])
            yield table.complaint(group, "1", unneeded, what=what, remedy=f"{near}remove it")
        sink = hypervisor.sinks.get(slots.sink)
        for element in elements:
            pattern = slots.pattern(element.name)
            slot = slots.slot(element.name)
            if pattern is None or slot is None:
                if any(fnmatchcase(element.name, odd) for odd in slots.malformed):
                    continue
                what = f"{group} has no slot for {element.name}"
                remedy = f'write "{element.name}": "slot", or absent("reason")'
                yield table.complaint(group, what=what, remedy=remedy)
            elif sink is not None and isinstance(slot, str):
                for wrong in _slot_complaints(abi, sink, element, slot):
                    what, remedy = (
                        f"{element.name}: {wrong}",
                        f"see {abi.target}.abi, of {abi.origin}",
                    )
                    yield table.complaint(group, "1", pattern, what=what, remedy=remedy)


def _slot_complaints(abi: Abi, sink: Sink, element: Element, slot: str) -> Iterator[str]:
    if element.composite is None:
        wrong = _complaint(abi, sink, slot)
        if wrong:
            yield wrong
        return
    layout = sink.composites.get(element.composite.name)
    if layout is not None and (sink.shape == "record" or sink.value is not None):
        for member in layout.members.values():
            if wrong := _complaint(abi, sink, f"{slot}.{member}"):
                yield wrong


def _complaint(abi: Abi, sink: Sink, slot: str) -> str | None:
    """What is wrong with a slot, as far as the hypervisor's headers can tell."""
    _, _, path = slot.partition(".")
    match sink.shape:
        case "record":
            return complaint(abi, f"struct {sink.constructor}", slot)
        case "table" if path and sink.value is None:
            return f"{slot} is a member, but the sink {sink.name} does not say of which record"
        case "table" if path and sink.value is not None:
            return complaint(abi, sink.value, path)
    return None


def _sinks(contract: Contract, hypervisor: Hypervisor, abi: Abi) -> Iterator[Problem]:
    table = hypervisor.table_of_sinks
    used = {slots.sink for slots in hypervisor.slots.values()}
    for sink in hypervisor.sinks.values():
        assert table is not None
        if sink.operation not in hypervisor.macros or sink.operation not in contract.operations:
            what = (
                f"the sink {sink.name} is written by {sink.operation}, which is no operation here"
            )
            near = did_you_mean(sink.operation, list(hypervisor.macros))
            remedy = f"{near}name an operation that the hypervisor has"
            yield table.complaint(sink.name, "operation", what=what, remedy=remedy)
        if sink.name not in used:
            what = f"nothing lies in the sink {sink.name}"
            remedy = f'name it in SLOTS, as in "group": ("{sink.name}", …), or remove it'
            yield table.complaint(sink.name, what=what, remedy=remedy)
        for slot in sink.fixed:
            if wrong := _complaint(abi, sink, slot):
                what = f"fixed: {wrong}"
                remedy = f"see {abi.target}.abi, of {abi.origin}"
                yield table.complaint(sink.name, "fixed", slot, what=what, remedy=remedy)
        if sink.value is not None and sink.value not in abi.records:
            near = did_you_mean(sink.value, list(abi.records))
            what = f"the value of {sink.name}: no such record in the headers: {sink.value}"
            remedy = f"{near}see {abi.target}.abi, of {abi.origin}"
            yield table.complaint(sink.name, "value", what=what, remedy=remedy)
        yield from _composites(contract, hypervisor, sink)


def _composites(contract: Contract, hypervisor: Hypervisor, sink: Sink) -> Iterator[Problem]:
    """Types of values with several parts that a sink does not lay out, or that there are not."""
    table = hypervisor.table_of_sinks
    assert table is not None
    groups = {group for group, slots in hypervisor.slots.items() if slots.sink == sink.name}
    needed = {
        element.composite.name: element.name
        for element in contract.elements.values()
        if element.group in groups
        and element.composite
        and isinstance(hypervisor.slot(element.group, element.name), str)
    }
    for type, element in needed.items():
        if type not in sink.composites:
            what = f"{sink.name} does not say how it lays out the {type} of {element}"
            parts = contract.composites[type].parts
            remedy = f'add "composites": {{"{type}": ("function of {", ".join(parts)}", {{}})}}'
            yield table.complaint(sink.name, what=what, remedy=remedy)
    for type, layout in sink.composites.items():
        if type not in needed:
            what = f"{sink.name} lays out {type}, of which it has none"
            near = did_you_mean(type, list(needed))
            remedy = f"{near}remove it"
            yield table.complaint(sink.name, "composites", type, what=what, remedy=remedy)
            continue
        for part in layout.members:
            parts = contract.composites[type].parts
            if part not in parts:
                what = f"{sink.name}: {type} has no part {part}"
                remedy = f"{did_you_mean(part, parts)}the parts are {', '.join(parts)}"
                path = ("composites", type, "1", part)
                yield table.complaint(sink.name, *path, what=what, remedy=remedy)


def _shared_slots(contract: Contract, hypervisor: Hypervisor, abi: Abi) -> Iterator[Problem]:
    """Elements that would overwrite each other: at the same slot, or one inside the other."""
    table = hypervisor.table_of_slots
    taken: dict[tuple[str, ...], str] = {}
    whole: dict[tuple[str, ...], str] = {}
    for element in contract.elements.values():
        if element.group not in hypervisor.slots:
            continue
        slot = hypervisor.slot(element.group, element.name)
        if not isinstance(slot, str):
            continue
        place = (hypervisor.slots[element.group].sink, *_place(abi, slot))
        others = [whole.get(place)]
        others += [taken.get(place[:length]) for length in range(2, len(place) + 1)]
        if other := next((name for name in others if name is not None), None):
            assert table is not None
            pattern = hypervisor.slots[element.group].pattern(element.name) or ""
            what = f"{element.name} and {other} have the same slot: {slot}"
            yield table.complaint(
                element.group, "1", pattern, what=what, remedy="give each element its own"
            )
        taken.setdefault(place, element.name)
        for length in range(2, len(place)):
            whole.setdefault(place[:length], element.name)


def _place(abi: Abi, slot: str) -> Iterator[str]:
    """A slot's steps; what is called differently and is the same is the same here."""
    for step in steps(slot) or ():
        yield step.name
        for index in step.indices:
            value = index_value(abi, index)
            yield index if value is None else str(value)


def _uses(
    contract: Contract,
    states: States | None,
    hypervisor: Hypervisor,
    templates: Path,
    template: str,
) -> Iterator[Problem]:
    """What the arch functions use: all of it is there, and nothing is there for nothing."""
    tree = parse_template(templates, template)
    used = hypervisor.operations_of_sinks
    planned: set[str] = set()
    for call in tree.find_all(nodes.Call):
        match call:
            case nodes.Call(
                node=nodes.Name(name="inline" | "has"), args=[nodes.Const(value=name), *_]
            ):
                used |= {name}
                if name not in contract.operations:
                    what = f"uses {name}, which is no operation"
                    near = did_you_mean(name, list(contract.operations))
                    remedy = f"{near}add it to {contract.source.name}"
                    yield Problem(f"templates/{template}:{call.lineno}", what, remedy)
            case nodes.Call(
                node=nodes.Name(name="plan" | "configure" | "reset"),
                args=[nodes.Const(value=name), *groups],
            ):
                planned.add(name)
                where = f"templates/{template}:{call.lineno}"
                yield from _plan_problems(contract, states, where, name, groups)
    yield from unused(contract, {*used, *hypervisor.absent})
    if states is not None:
        yield from _unused_states(states, planned)


def _plan_problems(
    contract: Contract, states: States | None, where: str, name: str, groups: Iterable[nodes.Expr]
) -> Iterator[Problem]:
    """States and groups that a template asks for and that there are not."""
    if states is not None and name not in states.by_name:
        near = did_you_mean(name, list(states.by_name))
        yield Problem(where, f"there is no state {name}", f"{near}see {states.table.source.name}")
    for group in groups:
        if isinstance(group, nodes.Const) and group.value not in contract.groups:
            near = did_you_mean(str(group.value), contract.groups)
            remedy = f"{near}see STATE in {contract.source.name}"
            yield Problem(where, f"there is no group {group.value}", remedy)


def _unused_states(states: States, planned: Iterable[str]) -> Iterator[Problem]:
    named: Mapping[str, object] = states.by_name
    reached = {
        above.name
        for name in (*planned, *states.modes)
        if name in named
        for above in states.lineage(states.by_name[name])
    }
    for name in named:
        if name not in reached:
            what = f"no mode, state or arch function uses {name}"
            yield states.table.complaint(name, what=what, remedy="remove it, or name it in MODES")


def unused(contract: Contract, used: Iterable[str]) -> Iterator[Problem]:
    """Yield the operations that are neither public nor used."""
    for operation in contract.operations.values():
        if not operation.public and operation.macro not in used:
            what = f"{operation.macro} is not public, and no arch function uses it"
            yield Problem(operation.where, what, "remove it, or make it a method")
