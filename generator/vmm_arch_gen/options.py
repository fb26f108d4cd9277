"""The options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])

MORE_TARGETS = click.option(
    "--targets",
    "more_targets",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Know these targets too: tables as in headers/targets.toml.",
)
TEMPLATES = click.option(
    "--templates",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Lay these templates over the package's: a file takes the place of the one with its name.",
)


def writing(function: _F) -> _F:
    """The options of the commands that write files."""
    for option in (
        click.option("--check", is_flag=True, help="Write nothing; exit with 1 if a file differs."),
        click.option("--diff", is_flag=True, help="Write nothing; show what would change."),
        click.option(
            "--only", "only", multiple=True, metavar="TARGET", help="This target; may be repeated."
        ),
        MORE_TARGETS,
        click.option("-q", "--quiet", is_flag=True, help="Say nothing unless something is wrong."),
    ):
        function = option(function)
    return function


FOLDER = click.Path(path_type=Path, file_okay=False)
