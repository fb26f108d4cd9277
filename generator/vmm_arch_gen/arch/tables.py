"""Tables in Python files that are not run: dictionaries and tuples of literals, with their lines."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from vmm_arch_gen.arch.sources import SourceFile
from vmm_arch_gen.diagnostics import InputError, Problem, did_you_mean, refuse

_LITERALS = 'use numbers, texts, tuples, lists, dictionaries and unsupported("reason")'


@dataclass(frozen=True)
class Unsupported:
    """``unsupported("reason")``: what a hypervisor does not have."""

    reason: str


@dataclass(frozen=True)
class Composite:
    """``SegmentValue(1, 2, 3, 4)``: a value of several parts, of a type that the contract defines."""

    type: str
    parts: tuple[Literal, ...]


Literal = int | str | Unsupported | Composite | tuple["Literal", ...] | Mapping[str, "Literal"]


@dataclass(frozen=True)
class Table:
    """A dictionary that a file assigns to a name."""

    name: str
    entries: Mapping[str, Literal]
    source: SourceFile
    lines: Mapping[tuple[str, ...], int]
    """Of each key and item, by the keys and indices that lead to it."""

    def where(self, *path: str) -> str:
        """The file and line of an entry, or of what is nearest around it."""
        while path not in self.lines:
            path = path[:-1]
        return self.source.where(self.lines[path])

    def complaint(self, *path: str, what: str, remedy: str) -> Problem:
        """What is wrong with an entry."""
        return Problem(self.where(*path), f"{self.name}: {what}", remedy)


def read_table(source: SourceFile, name: str, composites: Collection[str] = ()) -> Table:
    """Read the dictionary assigned to a name; InputError says everything that is wrong with it.

    ``composites`` are the types of values with several parts.
    """
    value = _assigned(source, name)
    if not isinstance(value, ast.Dict):
        what, remedy = f"{name} is not a dictionary", f'write {name} = {{"key": value, …}}'
        raise InputError(Problem(source.where(value.lineno), what, remedy))
    reader = _Reader(source, name, composites)
    entries = reader.literal(value, ())
    refuse(reader.problems)
    assert isinstance(entries, Mapping)
    return Table(name, entries, source, reader.lines)


def read_names(source: SourceFile, name: str) -> Mapping[str, str]:
    """Read the tuple of texts assigned to a name: each text, and its file and line."""
    value = _assigned(source, name)
    reader = _Reader(source, name)
    items = reader.literal(value, ())
    refuse(reader.problems)
    texts = [item for item in items if isinstance(item, str)] if isinstance(items, tuple) else []
    if not isinstance(items, tuple) or len(texts) < len(items) or len(set(texts)) < len(texts):
        what = f"{name} is not a tuple of different texts"
        remedy = f'write {name} = ("one", "another"), or ()'
        raise InputError(Problem(source.where(value.lineno), what, remedy))
    return {text: source.where(reader.lines[(str(i),)]) for i, text in enumerate(texts)}


Rows = tuple[tuple[Literal, str], ...]
"""The items of a tuple, each with its file and line."""


def read_rows(source: SourceFile, name: str) -> Rows:
    """Read the tuple of rows assigned to a name; InputError says everything that is wrong."""
    value = _assigned(source, name)
    reader = _Reader(source, name)
    items = reader.literal(value, ())
    refuse(reader.problems)
    if not isinstance(items, tuple):
        what, remedy = f"{name} is not a tuple", f"write {name} = ((…), (…)), or ()"
        raise InputError(Problem(source.where(value.lineno), what, remedy))
    return tuple((item, source.where(reader.lines[(str(i),)])) for i, item in enumerate(items))


def closed(source: SourceFile, names: Collection[str]) -> Iterator[Problem]:
    """Yield what a file of tables has beside its tables and what they say of themselves."""
    assigned: set[str] = set()
    for statement in source.tree.body:
        match statement:
            case ast.Expr(value=ast.Constant(value=str())):
                continue
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                if name in names and name not in assigned:
                    assigned.add(name)
                    continue
                what = f"{name} is assigned twice" if name in names else f"has no table {name}"
                remedy = f"{did_you_mean(name, names)}the tables are {', '.join(names)}"
            case _:
                what = f"{ast.unparse(statement).splitlines()[0]} is not a table"
                remedy = f"the tables are {', '.join(names)}"
        yield Problem(source.where(statement.lineno), what, remedy)


def _assigned(source: SourceFile, name: str) -> ast.expr:
    for statement in source.tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) | ast.AnnAssign(
                target=ast.Name(id=target), value=ast.expr() as value
            ) if (target == name):
                return value
    what = f"does not define {name}"
    raise InputError(Problem(source.name, what, f"write {name} = …; another CPU's file shows how"))


class _Reader:
    """Turns expressions into literals, noting where each is and what is none."""

    def __init__(self, source: SourceFile, name: str, composites: Collection[str] = ()) -> None:
        self._source = source
        self._name = name
        self._composites = composites
        self.lines: dict[tuple[str, ...], int] = {}
        self.problems: list[Problem] = []

    def literal(self, node: ast.expr, path: tuple[str, ...]) -> Literal:
        self.lines.setdefault(path, node.lineno)
        match node:
            case ast.Constant(value=int() | str() as value) if not isinstance(value, bool):
                return value
            case ast.Tuple(elts=items) | ast.List(elts=items):
                return self._items(items, path)
            case ast.Dict(keys=keys, values=values):
                return self._dictionary(zip(keys, values, strict=True), path)
            case ast.Call(
                func=ast.Name(id="unsupported"), args=[ast.Constant(value=str() as reason)]
            ):
                return Unsupported(reason)
            case ast.Call(func=ast.Name(id=type), args=parts, keywords=[]) if (
                type in self._composites
            ):
                return Composite(type, self._items(parts, path))
        self._complain(node, f"{ast.unparse(node)} is not a literal", _LITERALS)
        return 0

    def _items(self, items: Iterable[ast.expr], path: tuple[str, ...]) -> tuple[Literal, ...]:
        return tuple(self.literal(item, (*path, str(i))) for i, item in enumerate(items))

    def _dictionary(
        self, pairs: Iterable[tuple[ast.expr | None, ast.expr]], path: tuple[str, ...]
    ) -> Mapping[str, Literal]:
        entries: dict[str, Literal] = {}
        for key, value in pairs:
            match key:
                case ast.Constant(value=str() as text) if text not in entries:
                    self.lines[*path, text] = key.lineno
                    entries[text] = self.literal(value, (*path, text))
                case ast.Constant(value=str() as text):
                    self._complain(key, f"duplicate key {text!r}", "remove one of the two")
                case _:
                    found = ast.unparse(key) if key else "**"
                    self._complain(key or value, f"the key {found} is not a text", _LITERALS)
        return entries

    def _complain(self, node: ast.expr, what: str, remedy: str) -> None:
        where = self._source.where(node.lineno)
        self.problems.append(Problem(where, f"{self._name}: {what}", remedy))
