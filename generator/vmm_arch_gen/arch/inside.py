"""The second contract: what a hypervisor's vCPU and machine have inside, compared with its macros."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vmm_arch_gen.arch.macros import Macro
from vmm_arch_gen.arch.sources import read_python
from vmm_arch_gen.diagnostics import InputError, Problem, did_you_mean

CLASSES = {"vcpu_members": "VcpuInside", "vm_members": "VmInside"}
"""The sections that are class bodies, each with the protocol that lists what it must have."""
_FILE = ("vmm_arch", "protocols", "inside.py")


@dataclass(frozen=True)
class Member:
    """One of a class's statements, with its file and line."""

    node: ast.stmt
    where: str


def read_inside(templates: Path) -> dict[str, tuple[Member, ...]]:
    """Read what each class body must have: attributes and methods; InputError if the file lacks it."""
    source = read_python(templates, *_FILE)
    found = {node.name: node for node in source.tree.body if isinstance(node, ast.ClassDef)}
    if missing := sorted(set(CLASSES.values()) - found.keys()):
        what = f"does not define {', '.join(missing)}"
        raise InputError(Problem(source.name, what, "define the class"))
    return {
        section: tuple(Member(member, source.where(member.lineno)) for member in found[name].body)
        for section, name in CLASSES.items()
    }


def inside_problems(wanted: Iterable[Member], macro: Macro, text: str) -> Iterator[Problem]:
    """Say what a class body that a macro makes lacks, and what is not as it has to be."""
    body = ast.parse(f"class Body:\n{text}\n").body[0]
    assert isinstance(body, ast.ClassDef)
    methods = {node.name: node for node in body.body if isinstance(node, ast.FunctionDef)}
    attributes = set(_attributes(body))
    for member in wanted:
        match member.node:
            case ast.AnnAssign(target=ast.Name(id=name)) if name not in attributes | methods.keys():
                what = f"{macro.name} lacks {name} of {member.where}"
                near = did_you_mean(name, attributes)
                yield Problem(macro.where, what, f"{near}write {ast.unparse(member.node)}")
            case ast.FunctionDef(name=name) as node if name not in methods:
                what = f"{macro.name} lacks the method {name} of {member.where}"
                near = did_you_mean(name, list(methods))
                yield Problem(macro.where, what, f"{near}write {_signature(node)}")
            case ast.FunctionDef(name=name) as node if _signature(methods[name]) != _signature(
                node
            ):
                line = text.splitlines()[methods[name].lineno - 2]
                what = f"{name} is not as {member.where} has it"
                yield Problem(macro.where_of(line), what, f"write {_signature(node)}")


def _attributes(body: ast.ClassDef) -> Iterator[str]:
    """What a class body annotates, or assigns to ``self``."""
    for node in ast.walk(body):
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


def _signature(node: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"def {node.name}({ast.unparse(node.args)}){returns}:"
