"""What the names of a rendered module mean: which are bound nowhere, which by accident.

A template can go wrong in ways that are still Python. A name that no statement binds, a local
variable that hides a global one of the same name, and a test whose outcome was known when the
module was generated are all refused.
"""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterator
from dataclasses import dataclass

_MODULE_NAMES = {"__name__", "__file__", "__doc__", "__all__"}


def unbound(text: str) -> set[str]:
    """The global names that a module uses and neither it nor Python binds."""
    top = symtable.symtable(text, "module", "exec")
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    used = {
        symbol.get_name()
        for table in _tables(top)
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (symbol.is_global() or table is top)
    }
    return used - bound - set(dir(builtins)) - _MODULE_NAMES | _annotated(text, bound)


def _annotated(text: str, bound: set[str]) -> set[str]:
    """Names that only annotations use, which the symbol table does not see."""
    tree = ast.parse(text)
    annotations = [
        annotation
        for node in ast.walk(tree)
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if isinstance(annotation, ast.expr)
    ]
    names = {n.id for a in annotations for n in ast.walk(a) if isinstance(n, ast.Name)}
    return names - bound - set(dir(builtins))


@dataclass(frozen=True)
class Complaint:
    """Something wrong with a line of a module."""

    line: int
    name: str
    """The name that it is about; empty if it is about none."""
    what: str
    remedy: str


def complaints(text: str) -> Iterator[Complaint]:
    """Say what is wrong with a module's names and tests."""
    tree = ast.parse(text)
    missing = unbound(text)
    lines: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in missing:
            lines[node.id] = min(node.lineno, lines.get(node.id, node.lineno))
    for name in sorted(missing):
        what = f"the name {name} is bound nowhere"
        yield Complaint(lines.get(name, 1), name, what, "correct it, or define it in a module")
    top = symtable.symtable(text, "module", "exec")
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    for table in _tables(top):
        if table.get_type() != "function":
            continue
        function = table.get_name()
        for symbol in table.get_symbols():
            name = symbol.get_name()
            if symbol.is_local() and (name in bound or hasattr(builtins, name)):
                line = _binding(tree, table.get_lineno(), name)
                what = f"in {function}, the local name {name} hides another thing of that name"
                yield Complaint(line, name, what, "give the local one another name")
            if symbol.is_parameter() and symbol.is_assigned():
                line = _binding(tree, table.get_lineno(), name)
                what = f"in {function}, the parameter {name} is given another meaning"
                yield Complaint(line, name, what, "give what is assigned another name")
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.IfExp) and _decided(node.test):
            what = f"tests what is known when it is generated: if {ast.unparse(node.test)}"
            yield Complaint(node.lineno, "", what, "test it in the template: {% if … %}")


def _binding(tree: ast.Module, line: int, name: str) -> int:
    """The line in which the function that begins at a line binds a name."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.Lambda) and function.lineno == line:
            lines = [
                node.lineno
                for node in ast.walk(function)
                if isinstance(node, ast.Name)
                and isinstance(node.ctx, ast.Store)
                and node.id == name
            ]
            return min(lines, default=line)
    return line


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)


def _decided(test: ast.expr) -> bool:
    """Whether a test's outcome does not depend on anything that has a name."""
    return not any(isinstance(node, ast.Name | ast.Attribute | ast.Call) for node in ast.walk(test))
