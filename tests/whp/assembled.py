"""Guests' code for a Python that cannot run the assembler: a plugin of pytest's, ``-p whp.assembled``.

``assemble_all`` writes the code of all guests to a folder, where there is an assembler. Loaded as a
plugin this reads it from the folder that the environment names, and what the tests import from
``guests.assemble`` is that.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import cast

import guests.assemble
from guests.assemble import AssemblyError
from guests.harness import Scenario

FOLDER = "VMM_ARCH_GUESTS"
"""The environment variable that names the folder."""

GUESTS = Path(guests.assemble.__file__).parent


def assemble_all(folder: Path) -> None:
    """Write every guest's code, for the address that its scenario loads it to."""
    for source in GUESTS.glob("*.S"):
        scenario = cast(Scenario, importlib.import_module(f"guests.{source.stem}"))
        origin = scenario.MACHINE.origin
        _file(folder, source, origin).write_bytes(guests.assemble.assemble(source, origin))


def assembled(source: Path, origin: int) -> bytes:
    """A guest's code, assembled before."""
    file = _file(Path(os.environ[FOLDER]), source, origin)
    if not file.is_file():
        raise AssemblyError(f"{source}: nobody has assembled it for {origin:#x}")
    return file.read_bytes()


def pytest_configure() -> None:
    guests.assemble.assemble = assembled  # type: ignore[assignment]


def _file(folder: Path, source: Path, origin: int) -> Path:
    return folder / f"{source.stem}-{origin:x}.bin"
