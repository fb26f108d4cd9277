"""Whether all state that an interface can move is declared: as state of a sink, or as none.

The facts know every call that writes something, and every name that a call with a table takes. Each
is in a sink of the hypervisor's ``state.py`` or, with the reason, in its table NOT_STATE. So headers
that bring new state stop the generator until a table says where it belongs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from vmm_arch_gen.abi.model import Abi
from vmm_arch_gen.abi.transfers import transfers
from vmm_arch_gen.arch.contract import Contract
from vmm_arch_gen.arch.hypervisor import Hypervisor
from vmm_arch_gen.arch.sinks import Sink
from vmm_arch_gen.arch.tables import Table
from vmm_arch_gen.diagnostics import Problem, did_you_mean

_FORMERLY = "formerly"
"""How the reason begins for what only older headers have."""


def check_complete(contract: Contract, hypervisor: Hypervisor, abi: Abi) -> Iterator[Problem]:
    """Yield the calls and names of the interface that are not declared, or twice."""
    table = hypervisor.table_of_others
    if table is None or hypervisor.table_of_sinks is None:
        return
    yield from _calls(hypervisor, abi, table)
    for sink in hypervisor.sinks.values():
        if sink.names is not None:
            yield from _names(contract, hypervisor, abi, sink, table)


def check_spelling(hypervisor: Hypervisor, abi: Abi) -> Iterator[Problem]:
    """Yield what the tables name and the interface does not have.

    Only for the headers that the tables were written for: older ones have less.
    """
    sinks, others = hypervisor.table_of_sinks, hypervisor.table_of_others
    if sinks is None or others is None:
        return
    calls = {name for transfer in transfers(abi) for name in transfer.names}
    names = {name for sink in hypervisor.sinks.values() for name in _enumerators(abi, sink)}
    for sink in hypervisor.sinks.values():
        for call in sink.calls:
            if call not in calls:
                what = f"{sink.name}: no call of the headers that sets or gets is called {call}"
                remedy = f"{did_you_mean(call, calls)}see {abi.target}.abi, of {abi.origin}"
                yield sinks.complaint(sink.name, "calls", what=what, remedy=remedy)
        for pattern in sink.own:
            if not any(fnmatchcase(name, pattern) for name in _enumerators(abi, sink)):
                what = f"{sink.name}: no enumerator of {sink.names} is called {pattern}"
                remedy = f"{did_you_mean(pattern, names)}remove it"
                yield sinks.complaint(sink.name, "own", what=what, remedy=remedy)
    for pattern, reason in hypervisor.not_state.items():
        if not reason.startswith(_FORMERLY) and not any(
            fnmatchcase(name, pattern) for name in calls | names
        ):
            what = f"no call that sets or gets, and no name in a sink, is called {pattern}"
            remedy = f"{did_you_mean(pattern, calls | names)}remove it"
            yield others.complaint(pattern, what=what, remedy=remedy)


def own_names(abi: Abi, sink: Sink) -> list[str]:
    """The names in a sink whose state is the hypervisor's own."""
    return [name for name in _enumerators(abi, sink) if _pattern(name, sink.own) is not None]


def _calls(hypervisor: Hypervisor, abi: Abi, table: Table) -> Iterator[Problem]:
    """Calls that write something, and those that read it, in no sink and in none of NOT_STATE."""
    of_sinks = {call: sink for sink in hypervisor.sinks.values() for call in sink.calls}
    for transfer in transfers(abi):
        known: list[str] = []
        undeclared: list[str] = []
        for name in transfer.names:
            pattern = _pattern(name, hypervisor.not_state)
            if name in of_sinks and pattern is not None:
                yield _twice(table, pattern, name, of_sinks[name])
            (known if name in of_sinks or pattern is not None else undeclared).append(name)
        if undeclared:
            what = (
                f"lacks {' and '.join(undeclared)} of {transfer.header}, which no sink has either"
            )
            if known:
                what += f"; {' and '.join(known)} {'are' if len(known) > 1 else 'is'} declared"
            listed = "".join(f'"{name}", ' for name in undeclared).strip()
            remedy = f'if it is the guest\'s state, write "calls": ({listed}) in its sink;'
            remedy += f' if not, write here "{undeclared[0]}": "why it is not"'
            yield table.complaint(what=what, remedy=remedy)


def _names(
    contract: Contract, hypervisor: Hypervisor, abi: Abi, sink: Sink, table: Table
) -> Iterator[Problem]:
    """Enumerators for which a sink has no slot, and which are neither its own nor in NOT_STATE."""
    sinks = hypervisor.table_of_sinks
    assert sinks is not None
    if sink.names is None or sink.names not in abi.enums:
        what = f"{sink.name}: no such enum in the headers: {sink.names}"
        remedy = f"{did_you_mean(sink.names or '', list(abi.enums))}see {abi.target}.abi"
        yield sinks.complaint(sink.name, "names", what=what, remedy=remedy)
        return
    elements = set(_keys(contract, hypervisor, sink))
    undeclared = []
    for name in _enumerators(abi, sink):
        own = _pattern(name, sink.own)
        other = _pattern(name, hypervisor.not_state)
        if other is not None and (own is not None or name in elements):
            yield _twice(table, other, name, sink)
        elif own is not None and name in elements:
            what = f"{sink.name}: {name} is the slot of an element, and {own} makes it its own"
            yield sinks.complaint(sink.name, "own", what=what, remedy="make the pattern narrower")
        elif own is None and other is None and name not in elements:
            undeclared.append(name)
    if undeclared:
        header = abi.enums[sink.names].header
        what = f"lacks {', '.join(undeclared)} of {header}, and {sink.name} has no slot for it"
        remedy = "if it is the guest's state, give it to an element in SLOTS, or write"
        remedy += f' "own": ("{undeclared[0]}",) in the sink; if not, write here'
        remedy += f' "{undeclared[0]}": "why it is not"'
        yield table.complaint(what=what, remedy=remedy)


def _keys(contract: Contract, hypervisor: Hypervisor, sink: Sink) -> Iterator[str]:
    """The keys of a table that elements have."""
    for element in contract.elements.values():
        slots = hypervisor.slots.get(element.group)
        if slots is not None and slots.sink == sink.name:
            slot = slots.slot(element.name)
            if isinstance(slot, str):
                yield slot.partition(".")[0]


def _enumerators(abi: Abi, sink: Sink) -> tuple[str, ...]:
    enum = abi.enums.get(sink.names or "")
    return tuple(name for name, _ in enum.enumerators) if enum else ()


def _pattern(name: str, patterns: Iterable[str]) -> str | None:
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)


def _twice(table: Table, pattern: str, name: str, sink: Sink) -> Problem:
    what = f"{name} is state of the sink {sink.name}, and {pattern} says that it is none"
    return table.complaint(pattern, what=what, remedy="remove one of the two")
