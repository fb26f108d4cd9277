"""From wanted state to the fewest calls: which sinks are written, with what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vmm_arch_gen.arch.contract import Contract
from vmm_arch_gen.arch.hypervisor import Hypervisor
from vmm_arch_gen.arch.sinks import Sink
from vmm_arch_gen.arch.states import NamedState, Value, known_at_run_time
from vmm_arch_gen.arch.tables import Unsupported
from vmm_arch_gen.arch.vocabulary import CompositeType
from vmm_arch_gen.diagnostics import InputError, Problem, did_you_mean, refuse


@dataclass(frozen=True)
class Parts:
    """A value of several parts, with 0 where one is known at run time only."""

    type: CompositeType
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Write:
    """One call: a sink, what is laid out ahead, and what is filled in at run time."""

    sink: Sink
    groups: tuple[str, ...]
    """What is written, of all that the sink has."""
    constants: Mapping[str, Value | Parts]
    """By slot."""
    filled_in: Mapping[str, str]
    """By slot: an expression in the arch function's scope."""


def plan(
    contract: Contract, hypervisor: Hypervisor, state: NamedState, groups: Iterable[str]
) -> tuple[Write, ...]:
    """Plan the calls that write some groups of a state, each call once, in the sinks' order.

    Wanting one element of a group means writing all of it: what the state does not name gets its
    value after a reset. What a hypervisor declares unsupported is left out.
    """
    written: dict[str, list[str]] = {}
    constants: dict[str, dict[str, Value | Parts]] = {}
    filled_in: dict[str, dict[str, str]] = {}
    wanted = set(groups)
    refuse(
        Problem(
            hypervisor.folder,
            f"there is no group {group}",
            f"{did_you_mean(group, contract.groups)}the groups are {', '.join(contract.groups)}",
        )
        for group in sorted(wanted - set(contract.groups))
    )
    for element in contract.elements.values():
        if element.group not in wanted:
            continue
        slot = hypervisor.slot(element.group, element.name)
        if slot is None or isinstance(slot, Unsupported):
            continue
        sink = hypervisor.sinks[hypervisor.slots[element.group].sink]
        if element.group not in written.setdefault(sink.name, []):
            written[sink.name].append(element.group)
        ahead = constants.setdefault(sink.name, {})
        later = filled_in.setdefault(sink.name, {})
        value = state.wanted.get(element.name, element.reset)
        if isinstance(value, tuple):
            assert element.composite is not None
            known = tuple(0 if known_at_run_time(part) else part for part in value)
            ahead[slot] = Parts(element.composite, known)
            for part, expression in zip(element.composite.parts, value, strict=True):
                if known_at_run_time(expression):
                    member = _member(sink, element.composite, part, element.name)
                    later[f"{slot}.{member}"] = str(expression)
        elif known_at_run_time(value):
            later[slot] = str(value)
        else:
            ahead[slot] = value
    writes = [
        Write(hypervisor.sinks[name], tuple(done), constants[name], filled_in[name])
        for name, done in written.items()
    ]
    return tuple(sorted(writes, key=lambda write: write.sink.order))


def _member(sink: Sink, type: CompositeType, part: str, element: str) -> str:
    """The member for a part that is filled in at run time."""
    layout = sink.composites.get(type.name)
    if layout is None or part not in layout.members:
        what = f"the {part} of {element} is filled in at run time"
        remedy = f'say in "composites" which member it is: {{"{part}": "member"}}'
        raise InputError(Problem(sink.where, what, remedy))
    return layout.members[part]
