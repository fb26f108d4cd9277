"""Reads the templates: tables in Python files, which are not run, and the structure of templates."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2
from jinja2 import nodes

from vmm_arch_gen.diagnostics import InputError, Problem


@dataclass(frozen=True)
class Absent:
    """``absent("reason")``: what a hypervisor does not have."""

    reason: str


Literal = int | str | Absent | tuple["Literal", ...] | Mapping[str, "Literal"]


@dataclass(frozen=True)
class SourceFile:
    """A Python file of the templates, parsed and never run."""

    name: str
    """As it is called in messages."""
    tree: ast.Module

    def where(self, line: int) -> str:
        return f"{self.name}:{line}"

    def table(self, name: str) -> tuple[Mapping[str, Literal], Mapping[str, int]]:
        """The dictionary assigned to a name, and the line of each of its keys."""
        value = self._assigned(name)
        if not isinstance(value, ast.Dict):
            raise InputError(self._odd(value, f"{name} is no dictionary"))
        entries = self._literal(value)
        assert isinstance(entries, Mapping)
        return entries, {str(self._literal(key)): key.lineno for key, _ in _items(value)}

    def names(self, name: str) -> tuple[str, ...]:
        """The tuple of texts assigned to a name."""
        value = self._literal(self._assigned(name))
        if not isinstance(value, tuple) or not all(isinstance(item, str) for item in value):
            raise InputError(self._odd(self._assigned(name), f"{name} is no tuple of texts"))
        return tuple(str(item) for item in value)

    def _assigned(self, name: str) -> ast.expr:
        for statement in self.tree.body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=target)], value=value) | ast.AnnAssign(
                    target=ast.Name(id=target), value=ast.expr() as value
                ) if (target == name):
                    return value
        what = f"does not define {name}"
        raise InputError(Problem(self.name, what, "compare it with another file of its kind"))

    def _literal(self, node: ast.expr) -> Literal:
        match node:
            case ast.Constant(value=int() | str() as value) if not isinstance(value, bool):
                return value
            case ast.Tuple(elts=items) | ast.List(elts=items):
                return tuple(self._literal(item) for item in items)
            case ast.Dict():
                entries = [(str(self._literal(k)), self._literal(v)) for k, v in _items(node)]
                if None in node.keys or len(dict(entries)) < len(entries):
                    raise InputError(self._odd(node, "a key is there twice, or is none"))
                return dict(entries)
            case ast.Call(func=ast.Name(id="absent"), args=[ast.Constant(value=str() as reason)]):
                return Absent(reason)
        raise InputError(self._odd(node, f"{ast.unparse(node)} is no literal"))

    def _odd(self, node: ast.expr, what: str) -> Problem:
        remedy = 'use numbers, texts, tuples, dictionaries and absent("reason")'
        return Problem(self.where(node.lineno), what, remedy)


def _items(node: ast.Dict) -> list[tuple[ast.expr, ast.expr]]:
    return [(key, value) for key, value in zip(node.keys, node.values, strict=True) if key]


def read_text(templates: Path, name: str) -> str:
    """Read a file below the templates; InputError if that cannot be done."""
    try:
        return (templates / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise InputError(Problem(f"templates/{name}", what, "write it, in UTF-8")) from None


def read_source(templates: Path, *path: str) -> SourceFile:
    """Parse a Python file below the templates; InputError if it cannot be read."""
    name = f"templates/{'/'.join(path)}"
    try:
        return SourceFile(name, ast.parse(read_text(templates, "/".join(path))))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        where = name if line is None else f"{name}:{line}"
        raise InputError(Problem(where, f"is no Python: {error}", "mend it")) from None


def parse_template(templates: Path, name: str) -> nodes.Template:
    """Parse a Jinja template; InputError if it cannot be read."""
    try:
        return jinja2.Environment().parse(read_text(templates, name))
    except jinja2.TemplateSyntaxError as error:
        where = f"templates/{name}:{error.lineno}"
        raise InputError(Problem(where, str(error.message), "mend the template")) from None
