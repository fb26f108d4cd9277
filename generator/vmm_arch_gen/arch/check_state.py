"""Compares where a hypervisor keeps state with the contract's vocabulary and with its headers."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from vmm_arch_gen.abi.model import Abi
from vmm_arch_gen.abi.paths import complaint, index_value, steps
from vmm_arch_gen.arch.contract import Contract
from vmm_arch_gen.arch.hypervisor import Hypervisor
from vmm_arch_gen.arch.sections import OPERATIONS, SECTIONS
from vmm_arch_gen.arch.sinks import Sink
from vmm_arch_gen.arch.vocabulary import Element
from vmm_arch_gen.diagnostics import Problem, did_you_mean


def check_state(contract: Contract, hypervisor: Hypervisor, abi: Abi) -> Iterator[Problem]:
    """Yield what is wrong with SINKS, SLOTS and CREATION_GUARANTEES, as far as they can be read."""
    yield from _groups(contract, hypervisor)
    yield from _slots(contract, hypervisor, abi)
    yield from _sinks(contract, hypervisor, abi)
    yield from _shared_slots(contract, hypervisor, abi)


def _groups(contract: Contract, hypervisor: Hypervisor) -> Iterator[Problem]:
    table = hypervisor.table_of_slots
    known = f"the groups of {contract.vocabulary.name} are {', '.join(contract.groups)}"
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
                remedy = f'write "{element.name}": "slot", or unsupported("reason")'
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
    """What is wrong with a slot, according to the hypervisor's headers."""
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
        owner = "vcpu" if sink.scope == "vcpu" else "vm"
        for entry, verb, macro in (
            ("operation", "written", sink.operation),
            ("reads", "read", sink.reads or ""),
            ("restores", "restored", sink.restores or ""),
            ("resets", "reset", sink.resets or ""),
        ):
            if macro and (macro not in hypervisor.macros or macro in SECTIONS):
                if entry == "restores" and macro == sink.operation:
                    continue
                if entry == "resets" and macro in (sink.operation, sink.restores):
                    continue
                what = f"the sink {sink.name} is {verb} by {macro}, which is not a macro here"
                near = did_you_mean(macro, list(hypervisor.macros))
                remedy = (
                    f"{near}write {{% macro {macro}({owner}, {sink.variable}) %}} in {OPERATIONS}"
                )
                yield table.complaint(sink.name, entry, what=what, remedy=remedy)
        if sink.saved is not None and record_key(abi, sink.saved) is None:
            what = f"the record that {sink.name} is read into is not in the headers: {sink.saved}"
            remedy = f'see {abi.target}.abi, of {abi.origin}, or say in "form" what takes it apart'
            yield table.complaint(sink.name, "saved", what=what, remedy=remedy)
        if sink.shape == "whole":
            if sink.name in used:
                what = f"{sink.name} is only read and written whole, and has slots"
                remedy = 'choose another "shape"'
                yield table.complaint(sink.name, "shape", what=what, remedy=remedy)
        elif sink.name not in used:
            what = f"no group is stored in the sink {sink.name}"
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


def record_key(abi: Abi, name: str) -> str | None:
    """The record that a C name means."""
    return next((key for key in (f"struct {name}", name) if key in abi.records), None)


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
