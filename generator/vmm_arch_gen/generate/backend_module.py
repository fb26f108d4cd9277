"""A backend module, as its template sees it: the arch functions of one hypervisor on one CPU.

Reads the contract, the named states and a hypervisor's folder, which must agree. Gives the text of
a module whose names all mean what they seem to.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from vmm_arch_gen.abi.model import VerifiedAbi
from vmm_arch_gen.arch.contract import Contract
from vmm_arch_gen.arch.hypervisor import Hypervisor
from vmm_arch_gen.arch.sections import SECTIONS, TEXTS
from vmm_arch_gen.arch.sources import read_text
from vmm_arch_gen.diagnostics import Problem, did_you_mean, refuse
from vmm_arch_gen.generate.arch_functions import Emitter
from vmm_arch_gen.generate.backend_inputs import BackendInputs, read_backend_inputs
from vmm_arch_gen.generate.copied import uncopied
from vmm_arch_gen.generate.formatting import format_source
from vmm_arch_gen.generate.imports import import_statements, order
from vmm_arch_gen.generate.names import abi_names
from vmm_arch_gen.generate.origins import Rendered, marked, unmarked
from vmm_arch_gen.generate.outdated import reached
from vmm_arch_gen.generate.providers import Provider
from vmm_arch_gen.generate.refused import kept
from vmm_arch_gen.generate.render import Templates
from vmm_arch_gen.generate.scopes import Complaint, complaints, unbound
from vmm_arch_gen.generate.whole_state import WholeState

SKELETON = "backend.py.j2"
"""The template of every backend module."""


@dataclass(frozen=True)
class Draft:
    """A backend module as it was rendered: its names may mean anything yet."""

    templates: Path
    inputs: BackendInputs
    rendered: Rendered

    def finished(self) -> str:
        """The module's text; InputError says of each name that it is not what it seems."""
        refuse(_problems(self.templates, self.inputs, self.rendered))
        return format_source(self.rendered.text)


def render_backend_module(templates: Path, abi: VerifiedAbi, marker: str) -> Draft:
    """Render the backend module of a target, whose name is HYPERVISOR_CPU."""
    rendering = Templates(templates, facts=dict(abi_names(abi)))
    inputs = read_backend_inputs(templates, abi, rendering)
    text = _rendered(rendering, inputs, marker)
    return Draft(templates, inputs, unmarked(text, inputs.hypervisor.macros, SECTIONS))


def _rendered(rendering: Templates, inputs: BackendInputs, marker: str) -> str:
    """The module's text, not yet formatted, with marks around what macros made."""
    contract, states, hypervisor = inputs.contract, inputs.states, inputs.hypervisor
    target = inputs.abi.target

    def body(macro: str, *arguments: str) -> str:
        text = rendering.macro(hypervisor.macros[macro].file, macro, *arguments)
        return text if macro in TEXTS or macro == "imports" else marked(macro, text)

    def inline(operation: str, *arguments: str) -> str:
        """An operation's body; by default its arguments are called as the operation calls them."""
        public = contract.operations.get(operation)
        parameters = public.parameters if public else ()
        if reason := hypervisor.unsupported.get(operation):
            return f"raise unsupported({(public.name if public else operation)!r}, {reason!r})"
        if public and public.planned:
            return whole.body(operation)
        return body(operation, *arguments, *parameters[len(arguments) :])

    def section(name: str) -> str:
        return body(name) if name in hypervisor.macros else ""

    emitter = Emitter(contract, states, hypervisor, inputs.abi, inline)
    whole = WholeState(contract, hypervisor, inputs.abi, inline)
    heading = (
        f"{marker} from templates/{SKELETON}, the arch functions of\n"
        f"# {inputs.functions} and the hypervisor's operations: a method's body is the macro\n"
        f"# of its name in {' or '.join(hypervisor.rooms)}. Facts: headers/abi/{target}.abi.\n"
        "# Do not edit: the next run would undo it.\n"
    )
    return rendering.text(
        SKELETON,
        heading,
        target=target,
        section=section,
        contract=contract,
        exports=inputs.exports,
        inline=inline,
        plan=emitter.plan,
        configure=emitter.configure,
        reset=emitter.reset,
        images=emitter.images,
        whole=whole,
        has=lambda operation: operation in hypervisor.macros,
        lacking={
            operation.name: hypervisor.unsupported[operation.macro]
            for operation in contract.operations.values()
            if operation.macro in hypervisor.unsupported
        },
        modes=states.modes.items(),
        init_keeps=states.init_keeps,
        imports=partial(
            _imports, offered=inputs.offered, exports=inputs.exports, user=f"{target}.py"
        ),
        exported=partial(
            _exported, contract=contract, exports=inputs.exports, states=whole.names()
        ),
    )


def _problems(templates: Path, inputs: BackendInputs, rendered: Rendered) -> Iterator[Problem]:
    """What is wrong with a rendered module, with the file and line that it came from."""
    wrong = list(_of_names(templates, inputs, rendered))
    yield from wrong
    if not wrong:
        yield from uncopied(templates, rendered.text, inputs.hypervisor.sinks.values())


def _of_names(templates: Path, inputs: BackendInputs, rendered: Rendered) -> Iterator[Problem]:
    """What is wrong with the names of a rendered module."""
    found: Iterable[Complaint]
    try:
        found = [*complaints(rendered.text), *_beyond_the_abi(rendered.text, inputs)]
    except SyntaxError as error:
        number = error.lineno or 1
        what, line = f"is not Python: {error.msg}", rendered.line(number).strip()
        found = [Complaint(number, "", what, f"correct the line: {line}")]
    for complaint in found:
        macro = rendered.macro(complaint.line)
        line = rendered.line(complaint.line)
        where = macro.where_of(line) if macro else _written(templates, inputs, complaint, line)
        known = chain.from_iterable(provider.names for provider in inputs.offered)
        near, newer = "", ""
        if "bound nowhere" in complaint.what:
            near = did_you_mean(complaint.name, set(known))
            if _of_an_abi(complaint.name, inputs):
                newer = f"; if newer headers than those of {inputs.abi.origin} have it, extract from them"
        place = kept(f"{inputs.abi.target}.py", rendered.text, complaint.line)
        yield Problem(where, complaint.what, f"{near}{complaint.remedy}{newer}; {place}")


def calls_not_made(hypervisor: Hypervisor, text: str) -> Iterator[Problem]:
    """Calls that are declared as state of a sink, so that a snapshot has it, and never made."""
    made: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(args=[*arguments]) if not any(isinstance(a, ast.Set) for a in arguments):
                names = (name for argument in arguments for name in ast.walk(argument))
                made |= {name.id for name in names if isinstance(name, ast.Name)}
            case ast.Attribute(attr=name):
                made.add(name)
    for sink in hypervisor.sinks.values():
        for call in sink.calls:
            if call not in made:
                what = f"{sink.name}: the module never makes the call {call}"
                remedy = f"make it in a macro that reads or writes {sink.name}, or say in NOT_STATE"
                assert hypervisor.table_of_sinks is not None
                yield hypervisor.table_of_sinks.complaint(
                    sink.name, "calls", what=what, remedy=f"{remedy} why it is not its state"
                )


def _beyond_the_abi(text: str, inputs: BackendInputs) -> Iterator[Complaint]:
    """Names that are reached through the raw ABI's module, and are not there."""
    own = {name for name, _ in abi_names(inputs.abi)}
    for name, line in reached(ast.parse(text), inputs.abi.target):
        if name not in own and _of_an_abi(name, inputs):
            yield Complaint(
                line, name, f"the name {name} is bound nowhere in the raw ABI", "correct it"
            )


def _of_an_abi(name: str, inputs: BackendInputs) -> bool:
    """Whether a name begins as those of the target's raw ABI do: with KVM, kvm, WHv."""
    return name[:3] in {own[:3] for own, _ in abi_names(inputs.abi)}


def _written(templates: Path, inputs: BackendInputs, complaint: Complaint, line: str) -> str:
    """Where something is written that no macro made: in the tables, or the template itself."""
    tables = (
        f"{inputs.hypervisor.folder}/state.py",
        inputs.states.table.source.name.removeprefix("templates/"),
    )
    word = re.compile(rf"\b{complaint.name}\b" if complaint.name else re.escape(line.strip()))
    for file in (*tables, inputs.functions, SKELETON):
        for number, text in enumerate(read_text(templates, file).splitlines(), 1):
            if word.search(text):
                return f"templates/{file}:{number}"
    return f"templates/{SKELETON}"


def _imports(
    body: str,
    more: str,
    *,
    offered: Sequence[Provider],
    exports: Mapping[str, Sequence[str]],
    user: str,
) -> str:
    return import_statements(unbound(body), exports, offered, more.strip(), user)


def _exported(
    functions: str,
    *,
    contract: Contract,
    exports: Mapping[str, Sequence[str]],
    states: Iterable[str],
) -> list[str]:
    """What the module is for: what it hands on, and the contract's classes and functions."""
    arch = [node.name for node in ast.parse(functions).body if isinstance(node, ast.FunctionDef)]
    host = [operation.name for operation in contract.of("Host")]
    own = [
        "UNSUPPORTED",
        "MACHINES_PER_PROCESS",
        *contract.types,
        "Vcpu",
        "Vm",
        *states,
        *host,
        *arch,
    ]
    names = {*chain.from_iterable(exports.values()), *own}
    # ruff compares the names of __all__ with their case, and those of imports without.
    public = (name for name in names if not name.startswith("_"))
    return sorted(public, key=lambda name: (order(name)[0], name))
