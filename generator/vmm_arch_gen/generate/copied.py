"""The types of images that sinks copy, to fill in what is known at run time: each must be able to."""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path

from vmm_arch_gen.arch.sinks import Sink
from vmm_arch_gen.arch.sources import read_python
from vmm_arch_gen.diagnostics import Problem

COPY = "from_buffer_copy"
"""What an arch function calls, with an image; ctypes' own types have it."""


def uncopied(templates: Path, text: str, sinks: Iterable[Sink]) -> Iterator[Problem]:
    """The types that cannot copy an image, in a rendered module."""
    module = _Module(templates, ast.parse(text))
    for sink in sinks:
        if sink.type is not None and not module.copies(sink.type):
            what = f"SINKS: the type of {sink.name}, {sink.type}, has no {COPY}"
            remedy = f"give it the class method {COPY}(cls, image), which copies an image"
            yield Problem(sink.where, what, remedy)


class _Module:
    def __init__(self, templates: Path, tree: ast.Module) -> None:
        self._templates = templates
        self._bound = dict(_bindings(tree))

    def copies(self, name: str) -> bool:
        """Whether a class can copy an image; true also if that is unknown."""
        match self._bound.get(name):
            case ast.ClassDef(body=body, bases=bases):
                methods = {node.name for node in body if isinstance(node, ast.FunctionDef)}
                return COPY in methods or any(map(self._copies, bases))
            case (str() as module, str() as imported):
                return self._imported(module, imported)
            case ast.expr() as value:
                return self._copies(value)
        return not hasattr(builtins, name)

    def _copies(self, value: ast.expr) -> bool:
        return not isinstance(value, ast.Name) or self.copies(value.id)

    def _imported(self, module: str, name: str) -> bool:
        path = Path(*module.split(".")).with_suffix(".py")
        if (self._templates / path).is_file():
            source = read_python(self._templates, *path.parts)
            return _Module(self._templates, source.tree).copies(name)
        if module.partition(".")[0] in sys.stdlib_module_names:
            return hasattr(getattr(import_module(module), name, None), COPY)
        return True  # a record of the raw ABI


def _bindings(
    tree: ast.Module,
) -> Iterator[tuple[str, ast.ClassDef | ast.expr | tuple[str, str]]]:
    """What a module binds: classes, other values, and what it imports from which module."""
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name):
                yield name, node
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, value
            case ast.ImportFrom(module=str() as module, names=names):
                yield from ((alias.asname or alias.name, (module, alias.name)) for alias in names)
