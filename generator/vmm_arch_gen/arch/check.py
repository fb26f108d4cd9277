"""Compares a hypervisor's folder with the contract, and reports everything wrong at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from jinja2 import nodes

from vmm_arch_gen.abi.model import VerifiedAbi
from vmm_arch_gen.arch.check_complete import check_complete
from vmm_arch_gen.arch.check_state import check_state
from vmm_arch_gen.arch.contract import PROTOCOLS, Contract, Operation
from vmm_arch_gen.arch.hypervisor import Hypervisor
from vmm_arch_gen.arch.macros import parse_template
from vmm_arch_gen.arch.sections import OPERATIONS, OPTIONAL, SECTIONS
from vmm_arch_gen.arch.states import States
from vmm_arch_gen.diagnostics import Problem, did_you_mean

_UNSUPPORTED = 'or declare it: {% set NAME = unsupported("reason") %}'


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
    yield from check_state(contract, hypervisor, abi)
    yield from check_complete(contract, hypervisor, abi)
    tree = parse_template(templates, template)
    calls = [call for call in tree.find_all(nodes.Call) if isinstance(call.node, nodes.Name)]
    yield from _private_macros(contract, hypervisor, calls, template)
    yield from _plans(contract, states, calls, template)


def _operations(contract: Contract, hypervisor: Hypervisor) -> Iterator[Problem]:
    folder = f"templates/{hypervisor.folder}"
    file = f"{folder}/{OPERATIONS}"
    for macro, operation in contract.operations.items():
        wanted = f"{{% macro {macro}({', '.join(operation.parameters)}) %}}"
        if operation.planned:
            yield from _planned(operation, hypervisor)
        elif macro in hypervisor.macros and macro in hypervisor.unsupported:
            what = f"{macro} is both there and unsupported"
            remedy = f"remove one of the two; it is declared unsupported in {hypervisor.unsupported_where[macro]}"
            yield Problem(hypervisor.macros[macro].where, what, remedy)
        elif macro in hypervisor.macros:
            found = hypervisor.macros[macro]
            if found.parameters != operation.parameters:
                what = f"{macro} has the parameters ({', '.join(found.parameters)})"
                yield Problem(found.where, what, f"{operation.where} asks for {wanted}")
        elif macro not in hypervisor.unsupported:
            what = f"lacks the operation {macro} of {operation.where}"
            yield Problem(file, what, f"write {wanted}, {_UNSUPPORTED.replace('NAME', macro)}")
    for section, where in SECTIONS.items():
        if section not in hypervisor.macros and section not in OPTIONAL:
            what = f"lacks the section {section}"
            yield Problem(f"{folder}/{where}", what, f"write {{% macro {section}() %}}")


_STATE_OF_VM = {"save_vm", "restore_vm"}


def _planned(operation: Operation, hypervisor: Hypervisor) -> Iterator[Problem]:
    """What stands against planning an operation: saving takes that every sink can be read."""
    macro = operation.macro
    if macro in hypervisor.macros:
        what = f"{macro} is planned from SINKS and ORDER"
        yield Problem(hypervisor.macros[macro].where, what, "remove the macro")
    table = hypervisor.table_of_sinks
    if macro in hypervisor.unsupported or table is None:
        return
    if macro in ("take_snapshot", "reset_to") and (
        lacking := _STATE_OF_VM & hypervisor.unsupported.keys()
    ):
        name = min(lacking)
        what = f"{name} is declared unsupported, and {macro} needs it"
        remedy = f'declare it, too: {{% set {macro} = unsupported("reason") %}}'
        yield Problem(hypervisor.unsupported_where[name], what, remedy)
    for sink in hypervisor.of("vcpu" if operation.protocol == "Vcpu" else "machine"):
        if sink.reads is None:
            what = f"{sink.name} cannot be read, so that {operation.where} is not possible"
            remedy = f'add "reads": "read_{sink.name}" and write {{% macro read_{sink.name}('
            remedy += f"{PROTOCOLS[operation.protocol]}, {sink.variable}) %}}, "
            yield table.complaint(
                sink.name, what=what, remedy=remedy + _UNSUPPORTED.replace("NAME", macro)
            )


def _private_macros(
    contract: Contract, hypervisor: Hypervisor, calls: Iterable[nodes.Call], template: str
) -> Iterator[Problem]:
    """The operations that are no methods: those of sinks, and those that arch functions inline."""
    folder = f"templates/{hypervisor.folder}"
    own: dict[str, tuple[str, ...]] = {
        macro: (PROTOCOLS["Vcpu" if sink.scope == "vcpu" else "Vm"], sink.variable)
        for sink in hypervisor.sinks.values()
        for macro in (sink.operation, sink.reads, sink.restores, sink.resets)
        if macro
    }
    yield from _requests(hypervisor)
    own |= {request.name: request.arguments for request in hypervisor.requests.values()}
    asked = {_first(call, "has") for call in calls}
    used: set[str] = set()
    for call in calls:
        name = _first(call, "inline")
        if name is None or name in contract.operations:
            continue
        used.add(name)
        own[name] = tuple(str(a.value) for a in call.args[1:] if isinstance(a, nodes.Const))
        if (
            name not in asked
            and name not in hypervisor.macros.keys() | hypervisor.unsupported.keys()
        ):
            what = f"lacks {name}, which templates/{template}:{call.lineno} uses"
            near = did_you_mean(name, list(hypervisor.macros))
            macro = f"{{% macro {name}({', '.join(own[name])}) %}}"
            remedy = f"{near}write {macro}, {_UNSUPPORTED.replace('NAME', name)}"
            yield Problem(f"{folder}/{OPERATIONS}", what, remedy)
    for macro, wanted in own.items():
        found = hypervisor.macros.get(macro)
        if found and macro not in contract.operations and len(found.parameters) != len(wanted):
            what = f"{macro} has the parameters ({', '.join(found.parameters)})"
            remedy = f"write {{% macro {macro}({', '.join(wanted)}) %}}"
            yield Problem(found.where, what, remedy)
    known = {*contract.operations, *SECTIONS, *own, *hypervisor.operations_of_sinks}
    for found in hypervisor.macros.values():
        if found.name not in known:
            what = f"{found.name} is not an operation of the contract, and nothing names it"
            remedy = f"{did_you_mean(found.name, known)}remove it, or name it in SINKS"
            yield Problem(found.where, what, remedy)
    for name in hypervisor.unsupported.keys() - contract.operations.keys() - used:
        what = f"{name} is declared unsupported, but is not an operation"
        near = did_you_mean(name, list(contract.operations))
        remedy = f"{near}remove the declaration: what is a hypervisor's own it need not decline"
        yield Problem(hypervisor.unsupported_where[name], what, remedy)


def _requests(hypervisor: Hypervisor) -> Iterator[Problem]:
    """What the folder for every CPU puts in, and the one for this CPU does not have."""
    for request in hypervisor.requests.values():
        if request.name not in hypervisor.macros:
            what = f"lacks {request.name}, which {request.where} puts in"
            near = did_you_mean(request.name, list(hypervisor.macros))
            macro = f"{{% macro {request.name}({', '.join(request.arguments)}) %}}"
            yield Problem(
                f"templates/{hypervisor.folder}/{request.file}", what, f"{near}write {macro}"
            )


def _first(call: nodes.Call, *functions: str) -> str | None:
    """The text that a template calls one of some functions with."""
    match call:
        case nodes.Call(node=nodes.Name(name=name), args=[nodes.Const(value=str() as text), *_]):
            return text if name in functions else None
    return None


def _plans(
    contract: Contract, states: States | None, calls: Iterable[nodes.Call], template: str
) -> Iterator[Problem]:
    """States that the arch functions ask for are there, and none is there for nothing."""
    planned: set[str] = set()
    for call in calls:
        if state := _first(call, "plan", "configure", "reset"):
            planned.add(state)
            where = f"templates/{template}:{call.lineno}"
            yield from _plan_problems(contract, states, where, state, call.args[1:])
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
            remedy = f"{near}see STATE in {contract.vocabulary.name}"
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
