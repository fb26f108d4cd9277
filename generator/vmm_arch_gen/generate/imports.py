"""The import statements of a rendered module: exactly what it uses and hands on."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vmm_arch_gen.abi.model import VerifiedAbi
from vmm_arch_gen.arch.literals import read_source
from vmm_arch_gen.generate.names import python_name

# Where the standard library's names are looked for.
_STANDARD = ("collections.abc", "contextlib", "functools", "mmap", "threading", "types", "typing")

Providers = Sequence[tuple[str, Iterable[str]]]
"""Modules with the names that they have; the first that has a name provides it."""


def abi_names(abi: VerifiedAbi) -> set[str]:
    """The names of a target's raw ABI module."""
    names = {constant.name for constant in abi.constants} | {ioctl.name for ioctl in abi.ioctls}
    for enum in abi.enums.values():
        names |= {name for name, _ in enum.enumerators}
    return names | {python_name(key) for key in abi.records}


def public_names(templates: Path, module: Path) -> list[str]:
    """The names that a plain module binds at its top, as far as they do not begin with ``_``."""
    tree = read_source(templates, *module.relative_to(templates).parts).tree
    return [name for name in _bound(tree.body) if not name.startswith("_")]


def _bound(body: Iterable[ast.stmt]) -> Iterator[str]:
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.If() | ast.Try():
                yield from _bound([*node.body, *node.orelse])


def import_statements(names: Iterable[str], providers: Providers, more: str = "") -> str:
    """Import names from the modules that have them, sorted as ruff sorts; the rest is left out.

    ``more`` are import statements of the package's own modules, a line each.
    """
    standard: list[str] = []
    found: dict[str, list[str]] = {}
    libraries = [(name, dir(importlib.import_module(name))) for name in _STANDARD]
    for name in names:
        if name in sys.stdlib_module_names and name not in _STANDARD:
            standard.append(f"import {name}")
            continue
        for module, provided in [*providers, *libraries]:
            if name in provided:
                found.setdefault(module, []).append(name)
                break
    statements = sorted(_statement(module, listed) for module, listed in found.items())
    own = [line for line in statements if line.startswith("from vmm_arch.")]
    standard = [*sorted(standard), *[line for line in statements if line not in own]]
    own = sorted([*own, *more.splitlines()], key=lambda line: line.split()[1])
    return "\n".join([*standard, "", *own])


def _statement(module: str, names: Sequence[str]) -> str:
    return f"from {module} import {', '.join(sorted(names, key=order))}"


def order(name: str) -> tuple[int, list[str | int]]:
    """Constants before classes before functions, and numbers in names by their value."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    # Text and numbers alternate, text first: no number is ever compared with text.
    parts = re.split(r"(\d+)", name.lower())
    return kind, [int(part) if part.isdecimal() else part for part in parts]
