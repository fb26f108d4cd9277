"""Folders that are made once and kept outside the checkout, each checked whenever it is used."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path

_log = logging.getLogger(__name__)

DIGESTS = "SHA256SUMS"
"""The file of a folder that says what the others are; ``sha256sum -c`` reads it as well."""
FORGOTTEN = 30 * 24 * 3600
"""Seconds without any use after which a folder is deleted."""


def kept(name: str, key: str, make: Callable[[Path], None], where: Path | None = None) -> Path:
    """The folder of this name and key, whose files ``make`` writes if it is missing or damaged."""
    parent = where or user_cache_path("vmm-arch") / "nested"
    folder = parent / f"{name}-{key}"
    trouble = damage(folder)
    if trouble is None:
        os.utime(folder)
        return folder
    if folder.exists():
        _log.warning("%s: %s; it is made anew", folder, trouble)
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix="making-") as temporary:
        made = Path(temporary, "made")
        made.mkdir()
        make(made)
        sums = [f"{_digest(path)}  {path.name}\n" for path in sorted(made.iterdir())]
        (made / DIGESTS).write_text("".join(sums))
        # Somebody else may be making the same one: whoever is first is right.
        if damage(folder) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            try:
                made.rename(folder)
            except OSError:
                if damage(folder) is not None:
                    raise
    _forget(parent)
    return folder


def damage(folder: Path) -> str | None:
    """What is wrong with a folder, if anything is."""
    try:
        lines = (folder / DIGESTS).read_text().splitlines()
    except OSError:
        return f"it has no {DIGESTS}"
    for line in lines:
        digest, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if _digest(path) != digest:
            return f"{name} is not what was written"
    return None


def _forget(parent: Path) -> None:
    for folder in parent.iterdir():
        if folder.stat().st_mtime < time.time() - FORGOTTEN:
            shutil.rmtree(folder, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
