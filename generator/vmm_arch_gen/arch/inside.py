"""The second contract: what a hypervisor's vCPU and machine have inside, compared with its macros."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmm_arch_gen.arch.macros import Macro
from vmm_arch_gen.arch.sources import SourceFile, read_python
from vmm_arch_gen.diagnostics import InputError, Problem, did_you_mean

CLASSES = {"vcpu_members": "VcpuInside", "vm_members": "VmInside"}
"""The sections that are class bodies, each with the protocol that lists what it must have."""
_FILE = ("vmm_arch", "protocols", "inside.py")


@dataclass(frozen=True)
class Inside:
    """What a class body must have."""

    wanted: tuple[Member, ...]
    """Attributes with their types, and methods."""
    slots: tuple[Member, ...]
    """Attributes that are written once for all: a class with ``__slots__`` must list them."""


@dataclass(frozen=True)
class Member:
    """One of a class's statements, with its file and line."""

    node: ast.stmt
    where: str


def read_inside(templates: Path, cpu: str) -> dict[str, Inside]:
    """Read what each class body must have on a CPU; InputError if the file does not say."""
    source = read_python(templates, *_FILE)
    found = _classes(source)
    own = _classes(read_python(templates, "vmm_arch", "protocols", f"{cpu}.py"))
    if missing := sorted(set(CLASSES.values()) - found.keys()):
        what = f"does not define {', '.join(missing)}"
        raise InputError(Problem(source.name, what, "define the class"))
    return {
        section: Inside(
            found[name].members,
            tuple(
                member
                for base in found[name].node.bases
                if isinstance(base, ast.Name) and base.id in found
                for of in (found, own)
                if base.id in of
                for member in of[base.id].members
            ),
        )
        for section, name in CLASSES.items()
    }


@dataclass(frozen=True)
class _Class:
    node: ast.ClassDef
    members: tuple[Member, ...]


def _classes(source: SourceFile) -> dict[str, _Class]:
    return {
        node.name: _Class(
            node, tuple(Member(member, source.where(member.lineno)) for member in node.body)
        )
        for node in source.tree.body
        if isinstance(node, ast.ClassDef)
    }


def inside_problems(inside: Inside, macro: Macro, text: str) -> Iterator[Problem]:
    """Say what a class body that a macro makes lacks, and what is not as it has to be."""
    body = ast.parse(f"class Body:\n{text}\n").body[0]
    assert isinstance(body, ast.ClassDef)
    methods = {node.name: node for node in body.body if isinstance(node, ast.FunctionDef)}
    attributes = set(_attributes(body))
    slots = _slots(body)
    for member in inside.wanted if slots is None else (*inside.wanted, *inside.slots):
        match member.node:
            case ast.AnnAssign(target=ast.Name(id=name)) if name not in attributes | methods.keys():
                what = f"{macro.name} lacks {name} of {member.where}"
                near = did_you_mean(name, attributes)
                yield Problem(macro.where, what, f"{near}write {ast.unparse(member.node)}")
            case ast.AnnAssign(target=ast.Name(id=name)) if slots is not None and (
                name not in slots | methods.keys()
            ):
                what = f"{macro.name} has __slots__ without {name} of {member.where}"
                near = did_you_mean(name, slots)
                yield Problem(macro.where, what, f'{near}add "{name}"')
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
    """What a class body annotates, lists as a slot, or assigns to ``self``."""
    yield from _slots(body) or ()
    for node in ast.walk(body):
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


def _slots(body: ast.ClassDef) -> set[str] | None:
    """The names in ``__slots__``; None if there are none, and any attribute can be set."""
    for node in body.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__slots__")], value=value):
                constants = (item for item in ast.walk(value) if isinstance(item, ast.Constant))
                return {str(item.value) for item in constants}
    return None


def _signature(node: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"def {node.name}({ast.unparse(node.args)}){returns}:"
