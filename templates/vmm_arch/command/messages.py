"""Messages on standard error, which survive a closed pipe."""

from __future__ import annotations

import os
import sys


def say(text: str) -> None:
    """Print a line on standard error; once the reader has closed the pipe, print nothing more."""
    try:
        print(text, file=sys.stderr, flush=True)
    except BrokenPipeError:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until exit


def report_error(command: str, error: BaseException) -> None:
    """Report an error with the notes that were added to it."""
    say("\n".join([f"vmm-arch {command}: {error}", *getattr(error, "__notes__", ())]))
