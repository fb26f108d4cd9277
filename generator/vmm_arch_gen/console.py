"""What the command prints: results, progress, and what went wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vmm_arch_gen.diagnostics import FAILED, InputError, Problem
from vmm_arch_gen.signals import answered_by

if TYPE_CHECKING:
    from vmm_arch_gen.outputs import Change

CHANGED = 1
"""The exit status of --check if something would change."""


class Commands(click.Group):
    """Reports bad input and interrupts the same way for every command."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with answered_by(_interrupt):
                return super().invoke(ctx)
        except InputError as error:
            problems = error.problems
        except ModuleNotFoundError as error:
            what = "this package is not installed, and the command needs it"
            problems = (Problem(str(error.name), what, "pip install 'vmm-arch[extract]'"),)
        except KeyboardInterrupt:
            # It may have come when all was written, but never between two files.
            what = "interrupted; the files are all as they were or all new"
            problems = (Problem("vmm-arch-gen", what, "run it again"),)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception:  # so that exit status 1 only ever means that something differs
            import traceback

            traceback.print_exc()
            what = "an error of vmm-arch-gen itself; nothing was written"
            problems = (Problem("vmm-arch-gen", what, "report it with what is printed above"),)
        for problem in problems:
            click.echo(f"{styled('error', fg='red', bold=True)}: {problem}", err=True)
        sys.exit(FAILED)


def _interrupt(*_: object) -> None:
    """Let the other signals that end a program clean up as Ctrl-C does."""
    raise KeyboardInterrupt


def styled(text: str, **style: Any) -> str:
    """Colours for a terminal; click drops them elsewhere."""
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    return text if plain else click.style(text, **style)


def print_lines(lines: Iterable[tuple[str, str | None]]) -> None:
    """Print lines that each have a colour, or "bold", or None."""
    styles: dict[str | None, dict[str, Any]] = {None: {}, "bold": {"bold": True}}
    print_text(
        "\n".join(styled(line, **styles.get(c, {"fg": c})) if c else line for line, c in lines)
    )


def print_text(text: str) -> None:
    try:
        click.echo(text)
    except BrokenPipeError:  # the reader has closed it
        _discard_output()
    except OSError as error:
        _discard_output()
        what = f"cannot be written: {error.strerror}"
        raise InputError(Problem("standard output", what, "send it elsewhere")) from None


def _discard_output() -> None:
    """Have what is left in the buffer go nowhere, or Python complains when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def warn_left_out(missing: Mapping[str, Sequence[Problem]]) -> None:
    """Say which targets were left out, and why: each reason once."""
    names: dict[Problem, list[str]] = {}
    for name, problems in missing.items():
        for problem in problems:
            names.setdefault(problem, []).append(name)
    for problem, left_out in names.items():
        said = f"{', '.join(left_out)}: left out, so that the facts stay as they are: {problem}"
        click.echo(f"{styled('warning', fg='yellow', bold=True)}: {said}", err=True)


def progress(quiet: bool) -> Callable[[str], None]:
    def say(line: str) -> None:
        if not quiet:
            with suppress(BrokenPipeError):  # the reader has closed it; the work goes on
                click.echo(line, err=True)

    return say


def finish(changes: list[Change], root: Path, mode: Mapping[str, bool]) -> None:
    """Write the changes, or show them with --diff or --check."""
    import shlex

    from vmm_arch_gen.outputs import apply, unified_diff

    say = progress(mode["quiet"])
    count = f"{len(changes)} file{'s' * (len(changes) != 1)}"
    for change in changes:
        if change.after is None:
            say(f"orphan: {change.path}: nothing generates it")
    if not mode["check"] and not mode["diff"]:
        apply(changes)
        say(f"{count} written below {root}" if changes else "nothing changed")
        return
    if mode["diff"] or not mode["quiet"]:
        colours = {"+": "green", "-": "red", "@": "cyan"}
        lines = [(line, colours.get(line[:1])) for line in unified_diff(changes, root)]
        if lines:
            print_lines(lines)
    if mode["check"] and changes:
        for change in changes:
            click.echo(f"differs: {change.path}", err=True)
        given = [
            word for word in sys.argv[1:] if word not in ("--check", "--diff", "-q", "--quiet")
        ]
        mend = shlex.join(["vmm-arch-gen", *given])
        click.echo(f"{count} would be written differently; run: {mend}", err=True)
        sys.exit(CHANGED)
