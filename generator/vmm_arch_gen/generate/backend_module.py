"""A backend module, as its template sees it: the arch functions of one hypervisor on one CPU.

Reads the contract, the named states and a hypervisor's folder, which must agree. Gives the text of
a module whose names all mean what they seem to.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from vmm_arch_gen.abi.model import VerifiedAbi
from vmm_arch_gen.arch.check import check
from vmm_arch_gen.arch.contract import Contract, read_contract
from vmm_arch_gen.arch.hypervisor import OPERATIONS, PARTS, read_hypervisor
from vmm_arch_gen.arch.literals import read_source
from vmm_arch_gen.arch.states import read_states
from vmm_arch_gen.diagnostics import Problem, refuse
from vmm_arch_gen.generate.arch_functions import Emitter
from vmm_arch_gen.generate.imports import import_statements, order
from vmm_arch_gen.generate.providers import Provider, providers
from vmm_arch_gen.generate.render import Templates
from vmm_arch_gen.generate.scopes import complaints, unbound


def render_backend_module(templates: Path, abi: VerifiedAbi, marker: str) -> str:
    """Render the backend module of a target, whose name is HYPERVISOR_CPU."""
    name, _, cpu = abi.target.partition("_")
    template = f"arch/{cpu}/backend.py.j2"
    contract = read_contract(templates, cpu)
    states = read_states(templates, cpu, contract)
    hypervisor = read_hypervisor(templates, f"{name}/{cpu}")
    refuse(check(contract, hypervisor, abi, templates, template))
    rendering = Templates(templates)

    def inline(operation: str, *arguments: str) -> str:
        """An operation's body; by default its arguments are called as the operation calls them."""
        parameters = contract.operations[operation].parameters
        if reason := hypervisor.absent.get(operation):
            return f"raise absent({operation!r}, {reason!r})"
        given = [*arguments, *parameters[len(arguments) :]]
        return rendering.macro(f"{hypervisor.folder}/{OPERATIONS}", operation, *given)

    emitter = Emitter(contract, states, hypervisor, abi, inline)
    table, _ = read_source(templates, "arch", cpu, "exports.py").table("EXPORTS")
    exports = {
        module: [str(name) for name in names]
        for module, names in table.items()
        if isinstance(names, tuple)
    }
    offered = providers(templates, name, cpu, abi)
    heading = (
        f"{marker} from templates/{template}, templates/hypervisors/{name}/{cpu}\n"
        f"# and headers/abi/{abi.target}.abi. Do not edit: the next run would undo it.\n"
    )
    text = rendering.render(
        template,
        heading,
        target=abi.target,
        part=lambda part: rendering.macro(f"{hypervisor.folder}/{PARTS[part]}", part),
        contract=contract,
        exports=exports,
        inline=inline,
        plan=emitter.plan,
        configure=emitter.configure,
        reset=emitter.reset,
        images=emitter.images,
        has=lambda operation: operation not in hypervisor.absent,
        lacking={
            operation.name: hypervisor.absent[operation.macro]
            for operation in contract.operations.values()
            if operation.public and operation.macro in hypervisor.absent
        },
        modes=states.modes.items(),
        init_keeps=states.init_keeps,
        imports=partial(_imports, offered=offered, exports=exports, user=f"{abi.target}.py"),
        exported=partial(_exported, contract=contract, exports=exports),
    )
    remedy = "mend the templates that its first line names"
    refuse(Problem(f"{abi.target}.py", what, remedy) for what in complaints(text))
    return text


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
    functions: str, *, contract: Contract, exports: Mapping[str, Sequence[str]]
) -> list[str]:
    """What the module is for: what it hands on, and the contract's classes and functions."""
    arch = [node.name for node in ast.parse(functions).body if isinstance(node, ast.FunctionDef)]
    host = [operation.name for operation in contract.of("Host")]
    own = ["ABSENT", *contract.types, "Vcpu", "Vm", *host, *arch]
    names = {*chain.from_iterable(exports.values()), *own}
    # ruff compares the names of __all__ with their case, and those of imports without.
    public = (name for name in names if not name.startswith("_"))
    return sorted(public, key=lambda name: (order(name)[0], name))
