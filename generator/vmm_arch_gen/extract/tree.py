"""Queries of pycparser's tree: what a node defines, what it declares, where it is."""

from __future__ import annotations

from pycparser import c_ast

Definition = c_ast.Struct | c_ast.Union | c_ast.Enum


def defines(node: c_ast.Node) -> bool:
    """Whether a node defines a record or an enum."""
    match node:
        case c_ast.Struct() | c_ast.Union():
            return node.decls is not None
        case c_ast.Enum():
            return node.values is not None
    return False


def definition(node: c_ast.Node) -> Definition | None:
    """The record or enum that a declaration defines, if any."""
    while not defines(node):
        if isinstance(node, c_ast.IdentifierType) or not hasattr(node, "type"):
            return None
        node = node.type
    assert isinstance(node, Definition)
    return node


def unnamed_record(defined: c_ast.Node | None) -> bool:
    """Whether it is a record without a tag, whose members become those of the record around it."""
    return isinstance(defined, c_ast.Struct | c_ast.Union) and defined.name is None


def declared(node: c_ast.Node) -> c_ast.Node:
    """The innermost part of a declarator: the one with the name."""
    while isinstance(node, c_ast.PtrDecl | c_ast.ArrayDecl | c_ast.FuncDecl):
        node = node.type
    return node


def qualifiers(node: c_ast.Node) -> list[str]:
    while isinstance(node, c_ast.ArrayDecl):
        node = node.type
    return getattr(node, "quals", None) or []


def header(node: c_ast.Node) -> str:
    return str(node.coord.file) if node.coord else ""


def where(node: c_ast.Node) -> str:
    """The header and line of a node, as errors give them."""
    return f"{node.coord.file}:{node.coord.line}" if node.coord else "preprocessed headers"
