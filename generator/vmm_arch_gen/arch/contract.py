"""The contract of a CPU: operations with their signatures, and the vocabulary of state."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vmm_arch_gen.arch.sources import SourceFile, read_python
from vmm_arch_gen.arch.tables import read_table
from vmm_arch_gen.arch.vocabulary import CompositeType, Element, read_vocabulary
from vmm_arch_gen.diagnostics import InputError, Problem, collecting, did_you_mean, refuse

# The protocols that hypervisors implement, and what a macro calls the object that each belongs to.
PROTOCOLS = {"Vcpu": "vcpu", "Vm": "vm", "Host": ""}
# Where the contract says how a machine is made: as a backend's users make one.
_BACKEND, _VM = "Backend", "Vm"
# The attributes that only machines of this CPU have.
_REQUEST = "VmRequest"
# What an operation of a vCPU may do beside what it is for, as the contract's table EFFECTS says it.
COMPLETES_PENDING, CHANGES_STATE = "completes pending", "changes state"
READS = "reads"  # completes what is pending, unless that waits for an answer
_EFFECTS = (COMPLETES_PENDING, CHANGES_STATE, READS)
# What the arch functions' template has for every hypervisor.
_WRITTEN_ONCE = ("close", "__enter__", "__exit__")
# Operations that are planned, not written: what they are called among all operations.
PLANNED = {
    ("Vcpu", "save"): "save_vcpu",
    ("Vcpu", "restore"): "restore_vcpu",
    ("Vm", "save"): "save_vm",
    ("Vm", "restore"): "restore_vm",
    ("Vm", "take_snapshot"): "take_snapshot",
    ("Vm", "reset_to"): "reset_to",
}
# Operations that vCPUs and machines both have, under one name: their macros, which hypervisors write.
SHARED_NAMES = {
    ("Vcpu", "statistics"): "vcpu_statistics",
    ("Vm", "statistics"): "vm_statistics",
}
# What the frame of every backend module calls, by protocol, and the arguments that it keeps.
_CALLED = (("Vcpu", "run"), ("Vcpu", "kick"), ("Host", "install_kick_signal"))
_KEPT = ("memory", "vcpus", "irqchip", "track_dirty", "device", "prepare")


@dataclass(frozen=True)
class Operation:
    """Something that every hypervisor can do, in its own way."""

    macro: str
    """The macro of a hypervisor's folder that has its body, unless that is planned."""
    name: str
    protocol: str
    parameters: tuple[str, ...]
    """The macro's: the vCPU or machine, and the operation's own."""
    records: tuple[tuple[str, str], ...]
    """The parameters that are records of the backend's own, each with its type."""
    signature: str
    """As Python, from the parenthesis on; without ``self`` for a module's function."""
    doc: str
    where: str
    completes_pending: bool = False
    """Whether the guest's last instruction is completed first."""
    changes_state: bool = False
    """Whether a vCPU is not a new one afterwards."""
    reads: bool = False
    """Whether it only reads state: as completes_pending, unless the guest waits for an answer."""

    @property
    def planned(self) -> bool:
        """Whether its body follows from the tables of state."""
        return (self.protocol, self.name) in PLANNED


@dataclass(frozen=True)
class Contract:
    operations: Mapping[str, Operation]
    """By their macros' names."""
    docs: Mapping[str, str]
    """Of the protocols, and of ``Vm.close``, which is written once for all."""
    types: tuple[str, ...]
    """Every backend's own: ``Regs`` for the type variable ``RegsT``."""
    composites: Mapping[str, CompositeType]
    elements: Mapping[str, Element]
    requests: Mapping[str, str]
    """The attributes that only machines of this CPU have, by name, each with its declaration."""
    bits: bool
    """Whether the vocabulary names the bits of elements."""
    source: SourceFile
    vocabulary: SourceFile
    """The file with the elements."""
    cpu: str

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(element.group for element in self.elements.values()))

    def of(self, protocol: str) -> list[Operation]:
        """The operations of a protocol, in the contract's order."""
        return [o for o in self.operations.values() if o.protocol == protocol]


def read_contract(templates: Path, cpu: str) -> Contract:
    """Read the contract of a CPU; InputError if a part of it is missing."""
    source = read_python(templates, "vmm_arch", "protocols", f"{cpu}.py")
    classes = {node.name: node for node in source.tree.body if isinstance(node, ast.ClassDef)}
    if missing := {*PROTOCOLS, _BACKEND} - classes.keys():
        what = f"does not define {', '.join(sorted(missing))}"
        raise InputError(Problem(source.name, what, "define the class; another contract shows how"))
    problems: list[Problem] = []
    types = tuple(_types(classes["Vcpu"]))
    operations: dict[str, Operation] = {}
    for protocol in PROTOCOLS:
        for node in classes[protocol].body:
            match node:
                case ast.FunctionDef(name=name, decorator_list=[]) if name not in _WRITTEN_ONCE:
                    with collecting(problems):
                        operation = _operation(source, protocol, node, types)
                        operations[operation.macro] = operation
    with collecting(problems):
        operations |= _with_effects(source, operations)
    with collecting(problems):
        operations["create_vm"] = _creation(source, classes[_BACKEND], types)
    with collecting(problems):
        vocabulary = read_vocabulary(templates, cpu)
    refuse(problems)
    docs = {name: ast.get_docstring(classes[name]) or "" for name in PROTOCOLS}
    docs |= {
        f"Vm.{node.name}": ast.get_docstring(node) or ""
        for node in classes["Vm"].body
        if isinstance(node, ast.FunctionDef) and node.name in _WRITTEN_ONCE
    }
    return Contract(
        operations,
        docs,
        types,
        vocabulary.composites,
        vocabulary.elements,
        _requests(classes),
        vocabulary.has_bits,
        source,
        vocabulary.source,
        cpu,
    )


def _requests(classes: Mapping[str, ast.ClassDef]) -> dict[str, str]:
    """The attributes of the class VmRequest, if there is one, as statements with their docstrings."""
    requests: dict[str, str] = {}
    name = ""
    for node in classes[_REQUEST].body if _REQUEST in classes else ():
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)):
                requests[name] = ast.unparse(node)
            case ast.Expr(value=ast.Constant(value=str() as doc)) if name:
                requests[name] += f'\n"""{doc}"""'
    return requests


def frame_problems(contract: Contract) -> Iterator[Problem]:
    """What the frame of every backend module needs of a contract, and this one does not have."""
    for protocol, name in _CALLED:
        if name not in (operation.name for operation in contract.of(protocol)):
            what = f"{protocol} has no operation {name}, which the frame of a backend calls"
            yield Problem(contract.source.name, what, f"add it to {protocol}")
    made = contract.operations["create_vm"]
    arguments = ast.parse(f"def made{made.signature}: ...").body[0]
    assert isinstance(arguments, ast.FunctionDef)
    named = {node.arg for node in ast.walk(arguments) if isinstance(node, ast.arg)}
    if missing := [name for name in _KEPT if name not in named]:
        what = f"{_BACKEND}.{_VM} has no {', '.join(missing)}, which the frame of a backend keeps"
        yield Problem(made.where, what, "add the parameter")
    if "Vm.close" not in contract.docs:
        what = "Vm has no close, which the frame of a backend writes"
        yield Problem(contract.source.name, what, "add it to Vm, with its docstring")


def _with_effects(source: SourceFile, operations: Mapping[str, Operation]) -> dict[str, Operation]:
    """The vCPU's operations with their effects, which the table EFFECTS gives for each of them."""
    table = read_table(source, "EFFECTS")
    wanted = {o.name: o for o in operations.values() if o.protocol == "Vcpu"}
    problems = []
    for name, effects in table.entries.items():
        if name not in wanted:
            what, remedy = f"there is no operation {name}", f"{did_you_mean(name, wanted)}remove it"
            problems.append(table.complaint(name, what=what, remedy=remedy))
        elif not isinstance(effects, tuple) or set(effects) - set(_EFFECTS):
            what = f"the effects of {name} are not a tuple of {' and '.join(map(repr, _EFFECTS))}"
            problems.append(table.complaint(name, what=what, remedy="write some of them or ()"))
    for name in wanted.keys() - table.entries.keys():
        what, remedy = f"EFFECTS lacks {name}", f'write "{name}": a tuple of {", ".join(_EFFECTS)}'
        problems.append(Problem(wanted[name].where, what, remedy))
    refuse(problems)
    found = {name: effects for name, effects in table.entries.items() if isinstance(effects, tuple)}
    return {
        operation.macro: replace(
            operation,
            completes_pending=COMPLETES_PENDING in found[name],
            changes_state=CHANGES_STATE in found[name],
            reads=READS in found[name],
        )
        for name, operation in wanted.items()
    }


def _creation(source: SourceFile, backend: ast.ClassDef, types: Iterable[str]) -> Operation:
    """How a machine is made: its macro takes only the machine, whose attributes say the rest."""
    for node in backend.body:
        if isinstance(node, ast.FunctionDef) and node.name == _VM:
            node = _without_aliases(source, node)
            node.returns = ast.Constant(None)
            made = _operation(source, _VM, node, types)
            return replace(made, macro="create_vm", name="__init__", parameters=(PROTOCOLS[_VM],))
    what = f"{_BACKEND} has no method {_VM}"
    raise InputError(Problem(source.where(backend.lineno), what, "say how a machine is made"))


def _without_aliases(source: SourceFile, node: ast.FunctionDef) -> ast.FunctionDef:
    """A function that names types as a backend module does.

    Inside the class some names mean its methods, so that types have aliases there.
    """
    aliases = {}
    for statement in source.tree.body:
        match statement:
            case ast.AnnAssign(
                target=ast.Name(id=alias),
                annotation=ast.Name(id="TypeAlias"),
                value=ast.Name(id=name) | ast.Subscript(value=ast.Name(id=name)),
            ):
                aliases[alias] = name

    class Named(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.Name:
            return ast.Name(aliases.get(node.id, node.id))

        def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
            match node.value:
                case ast.Name(id=alias) if alias in aliases:  # its parameter is the backend's own
                    return ast.Name(aliases[alias])
            self.generic_visit(node)
            return node

    named = Named().visit(node)
    assert isinstance(named, ast.FunctionDef)
    return named


def _operation(
    source: SourceFile, protocol: str, node: ast.FunctionDef, types: Iterable[str]
) -> Operation:
    doc = ast.get_docstring(node)
    where = source.where(node.lineno)
    if not doc:
        raise InputError(Problem(where, f"{node.name} has no docstring", "say in one what it does"))
    owner = PROTOCOLS[protocol]
    own = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)][1:]
    if not owner:
        node.args.args = node.args.args[1:]  # a module's function
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    annotated = [(a.arg, ast.unparse(a.annotation)) for a in node.args.args if a.annotation]
    return Operation(
        macro=(PLANNED | SHARED_NAMES).get((protocol, node.name), node.name),
        name=node.name,
        protocol=protocol,
        parameters=tuple([owner] * bool(owner) + own),
        records=tuple(
            (name, annotation.removesuffix("T"))
            for name, annotation in annotated
            if annotation.removesuffix("T") in types and annotation.endswith("T")
        ),
        signature=_own_types(
            f"({ast.unparse(node.args)}){_planned(protocol, node, returns)}", types
        ),
        doc=doc,
        where=where,
    )


def _planned(protocol: str, node: ast.FunctionDef, returns: str) -> str:
    """What a planned operation returns, by the backend's name for it."""
    if (protocol, node.name) not in PLANNED:
        return returns
    return returns.replace("SavedState", f"{protocol}State").replace("MachineSnapshot", "Snapshot")


def _types(vcpu: ast.ClassDef) -> Iterator[str]:
    """What the protocol of a vCPU is generic in, without the ``T``."""
    for base in vcpu.bases:
        if isinstance(base, ast.Subscript):
            parameters = [node for node in ast.walk(base.slice) if isinstance(node, ast.Name)]
            yield from (parameter.id.removesuffix("T") for parameter in parameters)


def _own_types(signature: str, types: Iterable[str]) -> str:
    for name in types:
        signature = re.sub(rf"\b{name}T\b", name, signature)
    return signature
