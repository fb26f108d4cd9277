"""What a named state takes on a hypervisor, call by call, as text for people.

Reads what a backend is made of, and plans as the generator does. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap

from vmm_arch_gen.arch.plan import Parts, Write, plan
from vmm_arch_gen.arch.sources import read_python
from vmm_arch_gen.arch.states import Value
from vmm_arch_gen.arch.tables import Unsupported, read_table
from vmm_arch_gen.diagnostics import InputError, Problem, did_you_mean
from vmm_arch_gen.generate.backend_inputs import BackendInputs
from vmm_arch_gen.generate.render import Templates

Line = tuple[str, str | None]
"""With its colour, or "bold", or None."""

_WIDTH = 100


def explain(
    inputs: BackendInputs, templates: Path, rendering: Templates, name: str
) -> Iterator[Line]:
    """Say which calls write a state, with what, and which of them a new vCPU can do without."""
    known = inputs.states.by_name
    if name not in known:
        what = f"{inputs.states.table.source.name} has no state {name}"
        others = " or ".join(f"--cpu {cpu}" for cpu in _cpus_with(templates, name))
        near = f"write {others}; " if others else did_you_mean(name, list(known))
        remedy = f"{near}the states are {', '.join(known)}"
        raise InputError(Problem("STATE", what, remedy))
    state, guaranteed = known[name], inputs.hypervisor.guaranteed
    writes = plan(inputs.contract, inputs.hypervisor, state, inputs.contract.groups)
    fresh = plan(
        inputs.contract,
        inputs.hypervisor,
        state,
        [group for group in inputs.contract.groups if group not in guaranteed],
    )
    yield f"{name} on {inputs.abi.target}: {_calls(len(writes))} for any vCPU", "bold"
    if guaranteed and name in inputs.states.modes:
        yield f"  {_calls(len(fresh))} for a new one: creation guarantees {', '.join(guaranteed)}", None
    for number, write in enumerate(writes, 1):
        yield "", None
        yield from _call(inputs, rendering, number, write, name)


def _cpus_with(templates: Path, state: str) -> Iterator[str]:
    """The CPUs that have a state of this name."""
    for folder in sorted((templates / "cpu").iterdir()):
        source = read_python(templates, "cpu", folder.name, "states.py")
        if state in read_table(source, "STATES").entries:
            yield folder.name


def _calls(count: int) -> str:
    return f"{count} call{'s' * (count != 1)}"


def _call(
    inputs: BackendInputs, rendering: Templates, number: int, write: Write, name: str
) -> Iterator[Line]:
    sink, hypervisor = write.sink, inputs.hypervisor
    wanted = inputs.states.by_name[name].wanted
    marks = [f"{g} (guaranteed)" if g in hypervisor.guaranteed else g for g in write.groups]
    condition = f", if {sink.when}" if sink.when else ""
    yield f"  {number}. {sink.operation}: {', '.join(marks)}{condition}", "bold"
    macro = hypervisor.macros[sink.operation]
    for line in rendering.macro(macro.file, macro.name, "vcpu", sink.variable).splitlines():
        yield f"       {line}", "green"
    ahead, left_out = [], []
    for element in inputs.contract.elements.values():
        if element.group not in write.groups:
            continue
        slot = hypervisor.slot(element.group, element.name) or ""
        if isinstance(slot, Unsupported):
            left_out.append(f"{element.name} ({slot.reason})")
        elif slot in write.constants and wanted.get(element.name, element.reset) != element.reset:
            ahead.append(f"{element.name} = {_shown(write.constants[slot])}")
    values = len(write.constants) + len(write.filled_in)
    yield from _list(f"{values} value{'s' * (values != 1)}; other than after a reset", ahead)
    yield from _list("at run time", [f"{s} = {e}" for s, e in write.filled_in.items()])
    yield from _list("left out", left_out)


def _shown(value: Value | Parts) -> str:
    if isinstance(value, Parts):
        return f"({', '.join(map(_number, value.values))})"
    return _number(value)


def _number(value: Value) -> str:
    return value if isinstance(value, str) else str(value) if value < 10 else f"{value:#x}"


def _list(what: str, items: list[str]) -> Iterator[Line]:
    """A list in lines that break between items, and inside one only if it is longer than a line."""
    line = f"     {what}:"
    for number, item in enumerate(items):
        text = f" {item}{',' * (number < len(items) - 1)}"
        if len(line + text) > _WIDTH:
            yield line, None
            *full, line = wrap(text.strip(), _WIDTH - 9, subsequent_indent="  ")
            yield from ((f"       {part}", None) for part in full)
            line = f"       {line}"
        else:
            line += text
    if items:
        yield line, None
