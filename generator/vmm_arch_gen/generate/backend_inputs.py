"""Everything that a backend is made of, read and compared: all that is wrong with it at once."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import indent

from jinja2 import nodes

from vmm_arch_gen.abi.model import VerifiedAbi
from vmm_arch_gen.arch.check import check
from vmm_arch_gen.arch.contract import Contract, frame_problems, read_contract
from vmm_arch_gen.arch.exports import read_exports
from vmm_arch_gen.arch.hypervisor import Hypervisor, read_hypervisor
from vmm_arch_gen.arch.inside import CLASSES, Member, inside_problems, read_inside
from vmm_arch_gen.arch.macros import Macro, parse_template
from vmm_arch_gen.arch.sections import SECTIONS, TEXTS
from vmm_arch_gen.arch.states import States, read_states
from vmm_arch_gen.diagnostics import Problem, collecting, refuse
from vmm_arch_gen.generate.origins import Rendered, marked, unmarked
from vmm_arch_gen.generate.providers import Provider, providers
from vmm_arch_gen.generate.render import Templates

FUNCTIONS = ("functions", "machine_arguments", "example")
"""The macros of a CPU's ``functions.py.j2`` that the frame puts in."""
OF_SNAPSHOTS = "snapshot_members"
"""The one that it puts in where the contract has snapshots."""


@dataclass(frozen=True)
class BackendInputs:
    """The contract, the states and the hypervisor's folder of one backend, which agree."""

    abi: VerifiedAbi
    functions: str
    """The template of the arch functions, relative to the templates."""
    contract: Contract
    states: States
    hypervisor: Hypervisor
    exports: Mapping[str, Sequence[str]]
    """What is handed on, by module."""
    offered: Sequence[Provider]


def read_backend_inputs(templates: Path, abi: VerifiedAbi, rendering: Templates) -> BackendInputs:
    """Read what the backend of a target, HYPERVISOR_CPU, is made of."""
    name, _, cpu = abi.target.partition("_")
    functions = f"cpu/{cpu}/functions.py.j2"
    contract: Contract | None = None
    states: States | None = None
    exports: Mapping[str, Sequence[str]] = {}
    offered: Sequence[Provider] = ()
    problems: list[Problem] = []
    with collecting(problems):
        contract = read_contract(templates, cpu)
        problems += frame_problems(contract)
        states = read_states(templates, cpu, contract)
    with collecting(problems):
        offered = providers(templates, name, cpu, abi)
        modules = {p.module: p.names for p in offered if p.module and "vmm_arch." in p.module}
        exports = read_exports(templates, cpu, modules)
    hypervisor = read_hypervisor(templates, name, cpu)
    rendering.define(target=abi.target, on_cpu=partial(_on_cpu, rendering, hypervisor))
    with collecting(problems):
        if contract is None:
            problems += hypervisor.problems
        else:
            problems += check(contract, states, hypervisor, abi, templates, functions)
        snapshots = contract is not None and "take_snapshot" in contract.operations
        wanted = (*FUNCTIONS, OF_SNAPSHOTS) if snapshots else FUNCTIONS
        problems += _missing_macros(templates, functions, wanted)
    inside: dict[str, tuple[Member, ...]] = {}
    with collecting(problems):
        inside = read_inside(templates)
    for macro in hypervisor.macros.values():
        if macro.name in hypervisor.requests:
            continue  # a piece of another one, which is looked at as a whole
        with collecting(problems):
            made = rendering.macro(macro.file, macro.name, *macro.parameters)
            rendered = unmarked(made, hypervisor.macros)
            text = rendered.text
            wrong = list(not_python(macro, rendered))
            if macro.name in inside and not wrong:
                wrong += inside_problems(inside[macro.name], macro, text)
            problems += wrong
    refuse(problems)
    assert contract is not None
    assert states is not None
    return BackendInputs(abi, functions, contract, states, hypervisor, exports, offered)


def _on_cpu(rendering: Templates, hypervisor: Hypervisor, macro: str, *arguments: str) -> str:
    """What a macro of the folder for this CPU makes, for the folder for every CPU."""
    if macro not in hypervisor.macros:
        return ""  # which is among the problems
    return marked(macro, rendering.macro(hypervisor.macros[macro].file, macro, *arguments))


def _missing_macros(templates: Path, functions: str, wanted: Iterable[str]) -> Iterator[Problem]:
    """What the frame of every backend puts in and a CPU's ``functions.py.j2`` does not have."""
    there = {macro.name for macro in parse_template(templates, functions).find_all(nodes.Macro)}
    for name in wanted:
        if name not in there:
            what = f"lacks the macro {name}"
            remedy = f"write {{% macro {name}() %}}; it may be empty"
            yield Problem(f"templates/{functions}", what, remedy)


def not_python(macro: Macro, rendered: Rendered) -> Iterator[Problem]:
    """Say where what a macro makes is not Python, whatever surrounds it."""
    text = rendered.text
    if macro.name in TEXTS:
        return
    around = "" if macro.name in SECTIONS else "def body():\n"
    if macro.name in CLASSES:
        around = "class Body:\n"
    try:
        ast.parse(around + (indent(text, " ") if around.startswith("def") else text) + "\n")
    except SyntaxError as error:
        if not text.strip():
            return  # nothing is inlined
        lines = text.splitlines()
        number = (error.lineno or 1) - bool(around)
        line = lines[number - 1] if 0 < number <= len(lines) else ""
        macro = rendered.macro(number) or macro
        what = f"{macro.name} is not Python: {error.msg}"
        remedy = f"correct the line: {line.strip()}" if line.strip() else "write Python"
        yield Problem(macro.where_of(line), what, remedy)
