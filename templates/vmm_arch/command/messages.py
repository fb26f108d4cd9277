"""What the commands say on standard error, also where nobody listens any more."""

from __future__ import annotations

import os
import sys


def say(text: str) -> None:
    """Print a line on standard error; if its reader is gone, nothing more is said there."""
    try:
        print(text, file=sys.stderr, flush=True)
    except BrokenPipeError:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the end


def complain(command: str, error: BaseException) -> None:
    """Say what went wrong, with the notes of everybody whom the error passed."""
    say("\n".join([f"vmm-arch {command}: {error}", *getattr(error, "__notes__", ())]))
