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


def complaints(text: str) -> Iterator[str]:
    """Say what is wrong with a module's names and tests."""
    for name in sorted(unbound(text)):
        yield f"the name {name} is bound nowhere"
    top = symtable.symtable(text, "module", "exec")
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    for table in _tables(top):
        if table.get_type() != "function":
            continue
        for symbol in table.get_symbols():
            name = symbol.get_name()
            if symbol.is_local() and (name in bound or hasattr(builtins, name)):
                where = f"{table.get_name()}, line {table.get_lineno()}"
                yield f"in {where}, the local name {name} hides another thing of that name"
            if symbol.is_parameter() and symbol.is_assigned():
                where = f"{table.get_name()}, line {table.get_lineno()}"
                yield f"in {where}, the parameter {name} is given another meaning"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.If | ast.IfExp) and _decided(node.test):
            yield f"line {node.lineno} tests what is known: if {ast.unparse(node.test)}"


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)


def _decided(test: ast.expr) -> bool:
    """Whether a test's outcome does not depend on anything that has a name."""
    return not any(isinstance(node, ast.Name | ast.Attribute | ast.Call) for node in ast.walk(test))
