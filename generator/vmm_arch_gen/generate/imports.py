"""The import statements of a rendered module: exactly what it uses and hands on."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from vmm_arch_gen.diagnostics import Problem, refuse
from vmm_arch_gen.generate.providers import Provider


def import_statements(
    names: Iterable[str],
    exports: Mapping[str, Sequence[str]],
    providers: Iterable[Provider],
    more: str,
    user: str,
) -> str:
    """The import statements for names, from the modules that define them, sorted as ruff sorts.

    ``exports`` are the names that are re-exported, by module; they decide between two definitions.
    So does ``more``, import statements that are written out, a line each. A name that no module
    defines is left out; InputError for one that two define. ``user`` is the importing module.
    """
    explicit = {alias.asname or alias.name for alias in _aliases(more)}
    wanted = set(names) - explicit - set(chain.from_iterable(exports.values()))
    offered: dict[str, list[Provider]] = {}
    for provider in providers:
        for name in wanted & provider.names.keys():
            offered.setdefault(name, []).append(provider)
    refuse(
        _ambiguous(name, [provider.names[name] for provider in several], user)
        for name, several in sorted(offered.items())
        if len(several) > 1
    )
    found: dict[str | None, list[str]] = {module: [*listed] for module, listed in exports.items()}
    for name, (provider,) in offered.items():
        found.setdefault(provider.module, []).append(name)
    modules = [f"import {name}" for name in sorted(found.pop(None, []))]
    statements = sorted(_statement(str(module), listed) for module, listed in found.items())
    own = [line for line in statements if line.startswith("from vmm_arch.")]
    standard = [*modules, *(line for line in statements if line not in own)]
    own = sorted([*own, *more.splitlines()], key=lambda line: line.split()[1])
    return "\n".join([*standard, "", *own])


def _aliases(statements: str) -> list[ast.alias]:
    return [node for node in ast.walk(ast.parse(statements)) if isinstance(node, ast.alias)]


def _ambiguous(name: str, places: Sequence[str], user: str) -> Problem:
    first, *others = sorted(places, reverse=True)
    what = f"{name}, which {user} uses, is also defined in {' and in '.join(others)}"
    remedy = (
        "rename one, or say which is meant: in the macro imports() of the hypervisor's module.py.j2,"
        " or in exports.py if it is handed on"
    )
    return Problem(first, what, remedy)


def _statement(module: str, names: Sequence[str]) -> str:
    return f"from {module} import {', '.join(sorted(names, key=order))}"


def order(name: str) -> tuple[int, list[str | int]]:
    """Constants before classes before functions, and numbers in names by their value."""
    rank = 0 if name.isupper() else 1 if name[0].isupper() else 2
    # Text and numbers alternate, text first: no number is ever compared with text.
    parts = re.split(r"(\d+)", name.lower())
    return rank, [int(part) if part.isdecimal() else part for part in parts]
