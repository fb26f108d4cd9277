"""The named states of a CPU: what a vCPU's state shall be, for every hypervisor alike."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vmm_arch_gen.arch.contract import Contract
from vmm_arch_gen.arch.literals import Literal, SourceFile, read_source
from vmm_arch_gen.diagnostics import Problem, refuse

Value = int | str
"""A number; or an expression: a constant by its name, or a hole that is filled at run time."""


@dataclass(frozen=True)
class State:
    """What differs from the vocabulary's values after a reset."""

    name: str
    base: str | None
    """The state that it extends."""
    wanted: Mapping[str, Value | tuple[Value, ...]]


@dataclass(frozen=True)
class States:
    by_name: Mapping[str, State]
    modes: Mapping[str, str]
    """The states that an entry chooses, each with the entry's class."""
    init_keeps: tuple[str, ...]
    """The groups that a new secondary wants."""
    source: SourceFile

    def lineage(self, state: State) -> list[State]:
        """The states that a state extends, the first one first, and itself."""
        above = [] if state.base is None else self.lineage(self.by_name[state.base])
        return [*above, state]


def is_hole(value: Value) -> bool:
    """Whether a value is known at run time only: constants are written in capitals."""
    if isinstance(value, int):
        return False
    names = {node.id for node in ast.walk(ast.parse(value)) if isinstance(node, ast.Name)}
    return any(not name.isupper() for name in names)


def read_states(templates: Path, cpu: str, contract: Contract) -> States:
    """Read a CPU's states and compare them with the vocabulary."""
    source = read_source(templates, "arch", cpu, "states.py")
    table, lines = source.table("STATES")
    states: dict[str, State] = {}
    problems = []
    for name, row in table.items():
        where = source.where(lines[name])
        if not isinstance(row, Mapping):
            problems.append(Problem(where, f"{name} is no dictionary", "give elements and values"))
            continue
        wanted = dict(row)
        base = wanted.pop("extends", None)
        if base is not None and (not isinstance(base, str) or base not in states):
            problems.append(Problem(where, f"{name} extends {base}", "name a state above it"))
            continue
        for element, value in wanted.items():
            if complaint := _complaint(contract, element, value):
                remedy = f"compare it with STATE in {contract.source.name}"
                problems.append(Problem(where, f"{name}: {complaint}", remedy))
        inherited = states[str(base)].wanted if base is not None else {}
        own = {element: _value(value) for element, value in wanted.items()}
        states[name] = State(name, None if base is None else str(base), {**inherited, **own})
    modes, mode_lines = source.table("MODES")
    for mode in modes.keys() - states.keys():
        where = source.where(mode_lines[mode])
        problems.append(Problem(where, f"there is no state {mode}", "name one of STATES"))
    keeps = source.names("INIT_KEEPS")
    for group in set(keeps) - set(contract.groups):
        what = f"INIT_KEEPS: there is no group {group}"
        problems.append(Problem(source.name, what, f"see {contract.source.name}"))
    refuse(problems)
    entries = {mode: str(entry) for mode, entry in modes.items()}
    return States(states, entries, keeps, source)


def _complaint(contract: Contract, element: str, value: Literal) -> str | None:
    if element not in contract.elements:
        return f"there is no element {element}"
    parts = len(value) if isinstance(value, tuple) else 0
    if parts != 4 * isinstance(contract.elements[element].reset, tuple):
        return f"{element} is a segment with four parts, or is none"
    for part in value if isinstance(value, tuple) else (value,):
        if not isinstance(part, int | str):
            return f"{element}: {part} is neither a number nor an expression"
        try:
            ast.parse(str(part), mode="eval")
        except SyntaxError:
            return f"{element}: {part} is no expression"
    return None


def _value(value: Literal) -> Value | tuple[Value, ...]:
    if isinstance(value, tuple):
        return tuple(part if isinstance(part, int) else str(part) for part in value)
    return value if isinstance(value, int) else str(value)
