"""Compares a hypervisor's folder with the contract, and reports every hole at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from jinja2 import nodes

from vmm_arch_gen.abi.lookup import find_member, record_of
from vmm_arch_gen.abi.model import VerifiedAbi
from vmm_arch_gen.arch.contract import Contract
from vmm_arch_gen.arch.hypervisor import OPERATIONS, PARTS, Hypervisor, Sink
from vmm_arch_gen.arch.literals import Absent, parse_template
from vmm_arch_gen.diagnostics import Problem

_ABSENT = 'or declare it: {% set NAME = absent("reason") %}'


def check(
    contract: Contract, hypervisor: Hypervisor, abi: VerifiedAbi, templates: Path, template: str
) -> Iterator[Problem]:
    """Yield what is missing, misshapen, unused or outside the contract.

    ``template`` is the arch functions' template, relative to ``templates``.
    """
    yield from _operations(contract, hypervisor)
    yield from _state(contract, hypervisor, abi)
    yield from _uses(contract, hypervisor, templates, template)


def _operations(contract: Contract, hypervisor: Hypervisor) -> Iterator[Problem]:
    folder = f"templates/{hypervisor.folder}"
    file = f"{folder}/{OPERATIONS}"
    for macro, operation in contract.operations.items():
        wanted = f"{{% macro {macro}({', '.join(operation.parameters)}) %}}"
        if macro in hypervisor.macros and macro in hypervisor.absent:
            what = f"{macro} is both there and absent"
            yield Problem(hypervisor.macros[macro].where, what, "remove one of the two")
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
            yield Problem(found.where, what, f"remove it, or add it to {contract.source.name}")
    for name in hypervisor.absent.keys() - contract.operations.keys():
        what = f"{name} is declared absent, but is no operation of the contract"
        yield Problem(file, what, "remove the declaration")


def _state(contract: Contract, hypervisor: Hypervisor, abi: VerifiedAbi) -> Iterator[Problem]:
    state = hypervisor.state
    for group in contract.groups:
        if group not in hypervisor.slots:
            what = f"SLOTS lacks the group {group}"
            yield Problem(state.name, what, f"say where its elements lie: {contract.source.name}")
    for name in (*hypervisor.slots, *hypervisor.guaranteed):
        if name not in contract.groups:
            yield Problem(state.name, f"there is no group {name}", "remove it")
    for element in contract.elements.values():
        if element.group not in hypervisor.slots:
            continue
        where = state.where(hypervisor.slot_lines[element.group])
        slot = hypervisor.slot(element.group, element.name)
        sink = hypervisor.sinks[hypervisor.slots[element.group][0]]
        if slot is None:
            what = f"{element.group} has no slot for {element.name}"
            yield Problem(where, what, 'give it one, or absent("reason")')
        elif isinstance(slot, Absent):
            continue
        elif isinstance(element.reset, tuple) and sink.segments is None:
            what = f"the sink {sink.name} does not say how it lays out the segment {element.name}"
            yield Problem(state.where(hypervisor.sink_lines[sink.name]), what, 'add "segments"')
        elif complaint := _complaint(abi, sink, slot):
            yield Problem(where, f"{element.name}: {complaint}", f"see {abi.target}.abi")
    for sink in hypervisor.sinks.values():
        where = state.where(hypervisor.sink_lines[sink.name])
        if sink.operation not in hypervisor.macros or sink.operation not in contract.operations:
            what = (
                f"the sink {sink.name} is written by {sink.operation}, which is no operation here"
            )
            yield Problem(where, what, "name an operation that the hypervisor has")
        for slot in sink.fixed:
            if complaint := _complaint(abi, sink, slot):
                yield Problem(where, f"fixed: {complaint}", f"see {abi.target}.abi")
    yield from _shared_slots(contract, hypervisor)


def _shared_slots(contract: Contract, hypervisor: Hypervisor) -> Iterator[Problem]:
    """Elements that would overwrite each other."""
    taken: dict[tuple[str, str], str] = {}
    for element in contract.elements.values():
        if element.group not in hypervisor.slots:
            continue
        slot = hypervisor.slot(element.group, element.name)
        if not isinstance(slot, str):
            continue
        sink = hypervisor.slots[element.group][0]
        if other := taken.get((sink, slot)):
            where = hypervisor.state.where(hypervisor.slot_lines[element.group])
            what = f"{element.name} and {other} have the same slot: {slot}"
            yield Problem(where, what, "give each its own")
        taken[sink, slot] = element.name


def _complaint(abi: VerifiedAbi, sink: Sink, slot: str) -> str | None:
    """What is wrong with a slot, as far as the hypervisor's headers can tell."""
    _, _, path = slot.partition(".")
    match sink.shape:
        case "record":
            return _member(abi, f"struct {sink.image}", slot)
        case "table" if path and sink.value is None:
            return f"{slot} is a member, but the sink {sink.name} does not say of which record"
        case "table" if path and sink.value is not None:
            return _member(abi, sink.value, path)
    return None


def _member(abi: VerifiedAbi, key: str, path: str) -> str | None:
    """The first member of a path that a record does not have."""
    record: str | None = key
    for name in path.split("."):
        if record is None or record not in abi.records:
            return f"there is no record {record or key}"
        member = find_member(abi, record, name)
        if member is None:
            return f"{record} has no member {name}"
        key = f"{record}.{name}"
        record = record_of(abi, member.type)
    return None


def _uses(
    contract: Contract, hypervisor: Hypervisor, templates: Path, template: str
) -> Iterator[Problem]:
    """Operations that the arch functions use: all are in the contract, and none is there for nothing."""
    tree = parse_template(templates, template)
    used = {sink.operation for sink in hypervisor.sinks.values()}
    for call in tree.find_all(nodes.Call):
        match call:
            case nodes.Call(
                node=nodes.Name(name="inline" | "has"), args=[nodes.Const(value=name), *_]
            ):
                used.add(name)
                if name not in contract.operations:
                    what = f"uses {name}, which is no operation"
                    remedy = f"add it to {contract.source.name}"
                    yield Problem(f"templates/{template}:{call.lineno}", what, remedy)
    yield from unused(contract, {*used, *hypervisor.absent})


def unused(contract: Contract, used: Iterable[str]) -> Iterator[Problem]:
    """Yield the operations that are neither public nor used."""
    for operation in contract.operations.values():
        if not operation.public and operation.macro not in used:
            what = f"{operation.macro} is not public, and no arch function uses it"
            yield Problem(operation.where, what, "remove it, or make it a method")
