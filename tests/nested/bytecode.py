"""Compiles Python modules here for the Python inside, which would take minutes to do it itself."""

from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path

from interpreters import interpreter

_log = logging.getLogger(__name__)


def compile_tree(root: Path, version: str) -> None:
    """Compile every module below a folder for the place that it has from there on."""
    if os.uname().machine != "x86_64":
        _log.warning("no Python %s for this host: the machine compiles, and is slow", version)
        return
    # Unchecked, since times of change are not the same inside. Twice quiet, since a module that
    # cannot be compiled is for whoever imports it to complain about.
    options = ["-q", "-q", "-s", str(root), "-p", "/", "--invalidation-mode", "unchecked-hash"]
    command = [str(interpreter(version)), "-S", "-m", "compileall", *options, str(root)]
    subprocess.run(command, check=False)
