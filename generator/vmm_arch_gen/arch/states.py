"""The named states of a CPU: what a vCPU's state shall be, for every hypervisor alike."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vmm_arch_gen.arch.contract import Contract
from vmm_arch_gen.arch.sources import read_python
from vmm_arch_gen.arch.tables import Literal, Table, closed, read_names, read_table
from vmm_arch_gen.arch.vocabulary import Element
from vmm_arch_gen.diagnostics import Problem, collecting, did_you_mean, refuse

_TABLES = ("STATES", "MODES", "INIT_KEEPS")

Value = int | str
"""A number; or an expression: a constant by its name, or something known at run time only."""


@dataclass(frozen=True)
class NamedState:
    """What differs from the vocabulary's values after a reset."""

    name: str
    base: str | None
    """The state that it extends."""
    wanted: Mapping[str, Value | tuple[Value, ...]]


@dataclass(frozen=True)
class States:
    by_name: Mapping[str, NamedState]
    modes: Mapping[str, str]
    """The states that an entry chooses, each with the entry's class."""
    init_keeps: tuple[str, ...]
    """The groups that a new secondary wants."""
    table: Table

    def lineage(self, state: NamedState) -> list[NamedState]:
        """The states that a state extends, the first one first, and itself."""
        above = [] if state.base is None else self.lineage(self.by_name[state.base])
        return [*above, state]


def known_at_run_time(value: Value) -> bool:
    """Whether a value is known at run time only: constants are written in capitals."""
    if isinstance(value, int):
        return False
    names = {node.id for node in ast.walk(ast.parse(value)) if isinstance(node, ast.Name)}
    return any(not name.isupper() for name in names)


def read_states(templates: Path, cpu: str, contract: Contract) -> States:
    """Read a CPU's states and compare them with the vocabulary; InputError says all that is wrong."""
    source = read_python(templates, "cpu", cpu, "states.py")
    problems = [*closed(source, _TABLES)]
    table: Table | None = None
    modes: Table | None = None
    keeps: Mapping[str, str] = {}
    with collecting(problems):
        table = read_table(source, "STATES")
    with collecting(problems):
        modes = read_table(source, "MODES")
    with collecting(problems):
        keeps = read_names(source, "INIT_KEEPS")
    states: dict[str, NamedState] = {}
    for name in table.entries if table else ():
        assert table is not None
        problems += _state_problems(contract, table, name)
        states[name] = _state(table, name, states)
    if table is not None and modes is not None:
        problems += _mode_problems(table, modes)
    for group, where in keeps.items():
        if group not in contract.groups:
            what = f"INIT_KEEPS: there is no group {group}"
            remedy = (
                f"{did_you_mean(group, contract.groups)}see STATE in {contract.vocabulary.name}"
            )
            problems.append(Problem(where, what, remedy))
    refuse(problems)
    assert table is not None
    assert modes is not None
    entries = {mode: str(entry) for mode, entry in modes.entries.items()}
    return States(states, entries, tuple(keeps), table)


def _state_problems(contract: Contract, table: Table, name: str) -> Iterator[Problem]:
    row = table.entries[name]
    if not isinstance(row, Mapping):
        what, remedy = f"{name} is not a dictionary", 'write {"element": value}'
        yield table.complaint(name, what=what, remedy=remedy)
        return
    for element, value in row.items():
        if element == "extends":
            above = list(table.entries)[: list(table.entries).index(name)]
            if value not in above:
                what, remedy = f"{name} extends {value}", "name a state above it"
                yield table.complaint(name, element, what=what, remedy=remedy)
        elif element not in contract.elements:
            near = did_you_mean(element, list(contract.elements))
            remedy = f"{near}the elements are in STATE of {contract.vocabulary.name}"
            what = f"{name}: there is no element {element}"
            yield table.complaint(name, element, what=what, remedy=remedy)
        elif wrong := _wrong_value(contract.elements[element], value):
            what, remedy = f"{name}: {element} is {wrong[0]}", wrong[1]
            yield table.complaint(name, element, what=what, remedy=remedy)


def _wrong_value(element: Element, value: Literal) -> tuple[str, str] | None:
    """What a value is that cannot be an element's, and what to write instead."""
    parts = value if isinstance(value, tuple) else (value,)
    if element.composite is None and isinstance(value, tuple):
        return "a tuple", "write a number or an expression"
    if element.composite is not None:
        written = f"write ({', '.join(element.composite.parts)})"
        if not isinstance(value, tuple):
            return f"not a {element.composite.name}", written
        if len(parts) != len(element.composite.parts):
            return f"a {element.composite.name} with {len(parts)} parts", written
    for part in parts:
        if not isinstance(part, int | str):
            return f"{part}, neither a number nor an expression", "write a number or a text"
        try:
            ast.parse(str(part), mode="eval")
        except SyntaxError as error:
            return f"{part!r}, which is not Python: {error.msg}", "write an expression"
    return None


def _state(table: Table, name: str, above: Mapping[str, NamedState]) -> NamedState:
    row = table.entries[name]
    wanted = dict(row) if isinstance(row, Mapping) else {}
    base = wanted.pop("extends", None)
    inherited = above[base].wanted if isinstance(base, str) and base in above else {}
    own = {element: _value(value) for element, value in wanted.items()}
    return NamedState(name, base if isinstance(base, str) else None, {**inherited, **own})


def _value(value: Literal) -> Value | tuple[Value, ...]:
    if isinstance(value, tuple):
        return tuple(part if isinstance(part, int) else str(part) for part in value)
    return value if isinstance(value, int) else str(value)


def _mode_problems(states: Table, modes: Table) -> Iterator[Problem]:
    for mode, entry in modes.entries.items():
        if mode not in states.entries:
            what = f"there is no state {mode}"
            remedy = f"{did_you_mean(mode, states.entries)}name one of STATES"
            yield modes.complaint(mode, what=what, remedy=remedy)
        if not isinstance(entry, str) or not entry.isidentifier():
            what, remedy = f"the entry of {mode} is {entry!r}", "write the name of its class"
            yield modes.complaint(mode, what=what, remedy=remedy)
