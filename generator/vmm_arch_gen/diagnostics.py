"""Errors in the input: where it is, what is wrong, what to do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

FAILED = 2
"""The exit status when something is wrong with the input, or the work was interrupted."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the input."""

    where: str
    """A header and line, a fact, a file or a command-line option."""
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


class InputError(Exception):
    """A stage found its input wrong; it carries everything that the stage found."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems

    def __reduce__(self) -> tuple[type[InputError], tuple[Problem, ...]]:
        return type(self), self.problems  # it has to cross from worker processes


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The known names nearest to one that is not known, as the beginning of a remedy."""
    from difflib import get_close_matches  # not at the top: few runs need it

    near = get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(near)}? " if near else ""


def refuse(problems: Iterable[Problem]) -> None:
    """Raise :class:`InputError` if there are any problems; each is reported once."""
    if unique := tuple(dict.fromkeys(problems)):
        raise InputError(*unique)


@contextmanager
def collecting(problems: list[Problem]) -> Iterator[None]:
    """Add what the block finds wrong to the problems, and continue after the block."""
    try:
        yield
    except InputError as error:
        problems += error.problems
