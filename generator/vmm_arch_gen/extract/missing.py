"""Names that a header uses without including what declares them, and which header does."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from vmm_arch_gen.diagnostics import InputError, Problem

_DEPTHS = ("*.h", "*/*.h", "*/*/*.h")  # not all of it: a folder may be somebody's home
_DECLARATIONS = (
    r"^[ \t]*#[ \t]*define[ \t]+{}\b",
    r"\btypedef\b[^;{{}}]*\b{}\s*[;\[]",
    r"\}}\s*{}\s*;",
    r"\b(?:struct|union|enum)\s+{}\s*\{{",
    r"(?:^|[{{,])\s*{}\s*[,=}}]",
)
"""How a name is declared, the likeliest first."""
_INCLUDE = r"^[ \t]*#[ \t]*include(?:_next)?[ \t]*[<\"](?:[^>\"]*/)?{}[>\"]"
_FIRST = ["stddef.h", "stdint.h", "linux/ioctl.h", "sys/ioctl.h", "linux/types.h", "sys/types.h"]
"""Headers whose purpose is to declare what many others declare, too."""
_INNER = {"asm", "asm-generic", "bits", "machine"}
"""Folders whose headers are for others to include."""


@dataclass(frozen=True)
class MissingName(Problem):
    """A problem that is due to a name that nothing declared."""

    name: str


def headers_in(folders: Iterable[Path]) -> dict[str, Path]:
    """The headers of some folders by the names that they are included by."""
    found: dict[str, Path] = {}
    for folder in folders:
        for depth in _DEPTHS:
            for header in folder.glob(depth):
                found.setdefault(header.relative_to(folder).as_posix(), header)
    return found


@contextmanager
def suggesting(folders: Sequence[Path]) -> Iterator[None]:
    """Say of the names that the block finds missing which header in some folders declares them."""
    try:
        yield
    except InputError as error:
        names = {problem.name for problem in error.problems if isinstance(problem, MissingName)}
        if not names:
            raise
        users = {problem.where.rpartition(":")[0] for problem in error.problems}
        declared = _declaring(names, folders, users)
        raise InputError(*(_suggest(problem, declared) for problem in error.problems)) from None


def _suggest(problem: Problem, declared: dict[str, str]) -> Problem:
    header = declared.get(problem.name) if isinstance(problem, MissingName) else None
    if header is None:
        return problem
    assert isinstance(problem, MissingName)
    own = problem.where.rpartition(":")[0]
    return replace(problem, remedy=f"{header} declares {problem.name}: include it before {own}")


def _declaring(
    names: Collection[str], folders: Sequence[Path], users: Collection[str]
) -> dict[str, str]:
    """Of each name that a header in the folders declares, other than those that use it, that one."""
    texts = {
        name: path.read_bytes().decode(errors="replace")
        for name, path in headers_in(folders).items()
        if path.is_file() and name not in users
    }
    found: dict[str, str] = {}
    for name in names:
        with_it = [header for header, text in texts.items() if name in text]
        for form in _DECLARATIONS:
            pattern = re.compile(form.format(re.escape(name)), re.M)
            if declaring := [header for header in with_it if pattern.search(texts[header])]:
                outer = [_outermost(header, texts) for header in declaring]
                found[name] = min(outer, key=_rank)
                break
    return found


def _outermost(header: str, texts: dict[str, str]) -> str:
    """The header that includes an inner one under its own name, or one that is for everybody."""
    for _ in range(3):
        if not _is_inner(header):
            break
        path = PurePosixPath(header)
        pattern = re.compile(_INCLUDE.format(re.escape(path.name)), re.M)
        including = [other for other, text in texts.items() if pattern.search(text)]
        same = [h for h in including if PurePosixPath(h).name == path.name and h != header]
        others = [h for h in including if path.name.startswith("_") and not _is_inner(h)]
        if not (wider := same or others):
            break
        header = min(wider, key=_rank)
    return header


def _is_inner(header: str) -> bool:
    path = PurePosixPath(header)
    return path.name.startswith("_") or path.parts[0] in _INNER


def _rank(header: str) -> tuple[int, bool, int, int, str]:
    first = _FIRST.index(header) if header in _FIRST else len(_FIRST)
    return first, _is_inner(header), header.count("/"), len(header), header
