"""A hypervisor on one CPU: its operations, and where it keeps state.

Macros lie in two folders: what is the hypervisor's on every CPU in ``hypervisors/NAME``, which a
hypervisor may do without, and what is its own on one CPU in ``hypervisors/NAME/CPU``. Each macro
has one home; those of the first folder put in macros of the second with ``on_cpu("macro", …)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vmm_arch_gen.arch.macros import Macro, Macros, Request, read_macros
from vmm_arch_gen.arch.order import Rule, make_rules, ordered
from vmm_arch_gen.arch.sections import OPERATIONS, SECTIONS, TABLES, unread_files
from vmm_arch_gen.arch.sinks import Sink, Slots, make_sinks, make_slots
from vmm_arch_gen.arch.sources import read_python
from vmm_arch_gen.arch.tables import (
    Rows,
    Table,
    Unsupported,
    closed,
    read_names,
    read_rows,
    read_table,
)
from vmm_arch_gen.diagnostics import Problem, collecting

_TABLES = ("SINKS", "SLOTS", "ORDER", "NOT_STATE", "CREATION_GUARANTEES")
VCPUS = "vcpus"
"""The step of a machine's that is all of its vCPUs."""


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
    """The groups that creation guarantees, each with the line that says so."""
    rules: tuple[Rule, ...]
    """In which order sinks are read and written."""
    not_state: Mapping[str, str]
    """What the interface moves and is not the guest's state: names or patterns, with the reason."""
    table_of_sinks: Table | None
    table_of_slots: Table | None
    table_of_others: Table | None
    """NOT_STATE."""
    problems: tuple[Problem, ...]

    @property
    def rooms(self) -> tuple[str, ...]:
        """The folders that its macros lie in, below the templates, in alphabetical order."""
        return tuple(sorted({macro.file.rpartition("/")[0] for macro in self.macros.values()}))

    def slot(self, group: str, element: str) -> str | Unsupported | None:
        """An element's slot in its group's sink; None if the table does not say."""
        return self.slots[group].slot(element)

    @property
    def operations_of_sinks(self) -> set[str]:
        """The operations that read and write sinks, malformed ones included."""
        rows = self.table_of_sinks.entries.values() if self.table_of_sinks else ()
        return {
            str(row.get(key))
            for row in rows
            if isinstance(row, Mapping)
            for key in ("operation", "reads", "restores", "resets")
        }

    def of(self, scope: str) -> list[Sink]:
        """The sinks of a vCPU, or of a machine, in the table's order."""
        return [sink for sink in self.sinks.values() if sink.scope == scope]

    def steps(self, verb: str, scope: str) -> list[str]:
        """The sinks that are read or restored, and a machine's vCPUs, in the order to do so."""
        names = [s.name for s in self.of(scope) if (s.reads if verb == "read" else s.restores)]
        return ordered(verb, [*names, *([VCPUS] if scope == "machine" else [])], self.rules)


def read_hypervisor(templates: Path, name: str, cpu: str) -> Hypervisor:
    """Read the folders of a hypervisor on a CPU; what is malformed in them is among its problems."""
    folder = f"hypervisors/{name}/{cpu}"
    problems = [*unread_files(templates, name, cpu)]
    everywhere: Macros | None = None
    homes = SECTIONS
    if any((templates / "hypervisors" / name).glob("*.j2")):
        everywhere = read_macros(templates, f"hypervisors/{name}", SECTIONS, OPERATIONS)
        # What on_cpu() inserts is in the CPU's file of the same name.
        homes = {**SECTIONS, **{request.name: request.file for request in everywhere.requests}}
    macros = read_macros(templates, folder, homes, OPERATIONS)
    problems += macros.problems
    if everywhere is not None:
        macros = _together(everywhere, macros, problems)
    sinks_table: Table | None = None
    slots_table: Table | None = None
    others_table: Table | None = None
    rows: Rows = ()
    guaranteed: Mapping[str, str] = {}
    with collecting(problems):
        source = read_python(templates, *folder.split("/"), TABLES)
        problems += closed(source, _TABLES)
        with collecting(problems):
            sinks_table = read_table(source, "SINKS")
        with collecting(problems):
            slots_table = read_table(source, "SLOTS")
        with collecting(problems):
            rows = read_rows(source, "ORDER")
        with collecting(problems):
            others_table = read_table(source, "NOT_STATE")
        with collecting(problems):
            guaranteed = read_names(source, "CREATION_GUARANTEES")
    sinks = make_sinks(sinks_table, problems) if sinks_table else {}
    rules = make_rules(rows, _scopes(sinks), problems) if sinks_table else []
    with collecting(problems):
        sinks = _in_order(sinks, rules)
    return Hypervisor(
        folder=folder,
        macros=macros.there,
        requests={request.name: request for request in macros.requests},
        unsupported={name: reason for name, (reason, _) in macros.unsupported.items()},
        unsupported_where={name: where for name, (_, where) in macros.unsupported.items()},
        sinks=sinks,
        slots=make_slots(slots_table, sinks_table, problems) if slots_table else {},
        guaranteed=guaranteed,
        rules=tuple(rules),
        not_state=_reasons(others_table, problems) if others_table else {},
        table_of_sinks=sinks_table,
        table_of_slots=slots_table,
        table_of_others=others_table,
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
        what = f"on_cpu({request.name!r}) belongs in the folder for every CPU; this is one CPU's"
        problems.append(Problem(request.where, what, "write the lines themselves"))
    return Macros(
        there={**everywhere.there, **here.there},
        requests=everywhere.requests,
        unsupported={**everywhere.unsupported, **here.unsupported},
        problems=(),
    )


def _scopes(sinks: Mapping[str, Sink]) -> dict[str, str]:
    return {**{name: sink.scope for name, sink in sinks.items()}, VCPUS: "machine"}


def _in_order(sinks: Mapping[str, Sink], rules: Sequence[Rule]) -> dict[str, Sink]:
    """The sinks with the order of their writes; InputError if the rules contradict each other."""
    for scope in ("vcpu", "machine"):
        names = [name for name, of in _scopes(sinks).items() if of == scope]
        ordered("read", names, rules)
        for order, name in enumerate(ordered("write", names, rules)):
            if name in sinks:
                sinks = {**sinks, name: replace(sinks[name], order=order)}
    return dict(sinks)


def _reasons(table: Table, problems: list[Problem]) -> dict[str, str]:
    """What is not the guest's state, each with the reason."""
    reasons = {}
    for pattern, reason in table.entries.items():
        if isinstance(reason, str) and reason:
            reasons[pattern] = reason
            continue
        what = f"{pattern} has no reason"
        remedy = 'write "NAME": "why it is not the guest\'s state"'
        problems.append(table.complaint(pattern, what=what, remedy=remedy))
    return reasons
