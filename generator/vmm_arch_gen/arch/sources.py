"""Files of the templates, read as text or as Python that is never run."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from vmm_arch_gen.diagnostics import InputError, Problem


@dataclass(frozen=True)
class SourceFile:
    """A Python file of the templates, parsed and never run."""

    name: str
    """As it is called in messages."""
    tree: ast.Module

    def where(self, line: int) -> str:
        return f"{self.name}:{line}"


def read_text(templates: Path, name: str) -> str:
    """Read a file below the templates; InputError if that cannot be done."""
    try:
        return (templates / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise InputError(Problem(f"templates/{name}", what, "write it, in UTF-8")) from None


def read_python(templates: Path, *path: str) -> SourceFile:
    """Parse a Python file below the templates; InputError if it cannot be read."""
    name = f"templates/{'/'.join(path)}"
    text = read_text(templates, "/".join(path))
    try:
        return SourceFile(name, ast.parse(text))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        where = name if line is None else f"{name}:{line}"
        lines = text.splitlines()
        found = lines[line - 1].strip() if line and line <= len(lines) else ""
        what = f"is not Python: {getattr(error, 'msg', None) or error}"
        remedy = f"correct the line: {found}" if found else "write Python"
        raise InputError(Problem(where, what, remedy)) from None
