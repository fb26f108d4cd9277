"""From wanted state to the fewest calls: which sinks are written, with which constants and holes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vmm_arch_gen.arch.contract import Contract
from vmm_arch_gen.arch.hypervisor import SEGMENT_PARTS, Hypervisor, Sink
from vmm_arch_gen.arch.literals import Absent
from vmm_arch_gen.arch.states import State, Value, is_hole
from vmm_arch_gen.diagnostics import InputError, Problem

_GROUPS = "name groups of the contract's STATE"


@dataclass(frozen=True)
class Write:
    """One call: a sink, what is laid out ahead, and what is filled in at run time."""

    sink: Sink
    groups: tuple[str, ...]
    """What is written, of all that the sink has."""
    constants: Mapping[str, Value | tuple[Value, ...]]
    """By slot; a segment has four parts, with 0 where a part is a hole."""
    holes: Mapping[str, str]
    """By slot: an expression in the arch function's scope."""


def plan(
    contract: Contract, hypervisor: Hypervisor, state: State, groups: Iterable[str]
) -> tuple[Write, ...]:
    """Plan the calls that write some groups of a state, each call once, in the sinks' order.

    Wanting one element of a group means writing all of it: what the state does not name gets its
    value after a reset. What a hypervisor declares absent is left out.
    """
    written: dict[str, list[str]] = {}
    constants: dict[str, dict[str, Value | tuple[Value, ...]]] = {}
    holes: dict[str, dict[str, str]] = {}
    wanted = set(groups)
    if unknown := wanted - set(contract.groups):
        raise InputError(
            Problem(hypervisor.folder, f"there is no group {', '.join(sorted(unknown))}", _GROUPS)
        )
    for element in contract.elements.values():
        if element.group not in wanted:
            continue
        slot = hypervisor.slot(element.group, element.name)
        if slot is None or isinstance(slot, Absent):
            continue
        sink = hypervisor.sinks[hypervisor.slots[element.group][0]]
        if element.group not in written.setdefault(sink.name, []):
            written[sink.name].append(element.group)
        fixed = constants.setdefault(sink.name, {})
        filled = holes.setdefault(sink.name, {})
        value = state.wanted.get(element.name, element.reset)
        if isinstance(value, tuple):
            fixed[slot] = tuple(0 if is_hole(part) else part for part in value)
            for part, expression in zip(SEGMENT_PARTS, value, strict=True):
                if is_hole(expression):
                    members = sink.segments.members if sink.segments else {}
                    if part not in members:
                        what = f"the {part} of {element.name} is filled in at run time"
                        where = hypervisor.state.where(hypervisor.sink_lines[sink.name])
                        remedy = f"say in the sink {sink.name} which member it has"
                        raise InputError(Problem(where, what, remedy))
                    filled[f"{slot}.{members[part]}"] = str(expression)
        elif is_hole(value):
            filled[slot] = str(value)
        else:
            fixed[slot] = value
    writes = [
        Write(hypervisor.sinks[name], tuple(done), constants[name], holes[name])
        for name, done in written.items()
    ]
    return tuple(sorted(writes, key=lambda write: write.sink.order))
