"""Folders that are made once and kept outside the checkout, each checked whenever it is used.

Headers from Debian's packages are such folders, and everything that the tests fetch or build
beforehand. A process that finds one missing creates it under a lock; others that need it wait for
it, in whatever process they are.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

_log = logging.getLogger(__name__)

DIGESTS = "SHA256SUMS"
"""The file of a folder that says what the others are; ``sha256sum -c`` reads it as well."""
LOCK = ".lock"
"""What the name of a lock's file ends in. It has a folder's name without the key, and stays."""
FORGOTTEN = 30 * 24 * 3600
"""Seconds without any use after which a folder is deleted."""


def cache_folder(name: str) -> Path:
    """Where one kind of folders is kept."""
    return user_cache_path("vmm-arch") / name


def kept(name: str, key: str, make: Callable[[Path], None], parent: Path) -> Path:
    """The folder of this name and key, which ``make`` fills if it is missing or damaged.

    ``make`` is given another path than the folder will have.
    """
    folder = parent / f"{name}-{key}"
    if damage(folder) is not None:
        parent.mkdir(parents=True, exist_ok=True)
        with _locked(parent / f"{name}{LOCK}"):
            # Somebody else may have been quicker.
            if (trouble := damage(folder)) is not None:
                if folder.exists():
                    _log.warning("%s: %s; it is created again", folder, trouble)
                _make(folder, make)
                _forget(parent)
    os.utime(folder)
    return folder


def is_kept(name: str, key: str, parent: Path) -> bool:
    """Whether the folder of this name and key has been made, be it damaged by now."""
    return (parent / f"{name}-{key}").is_dir()


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


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process at the latest."""
    import fcntl  # Windows has none; what is kept comes from programs that it lacks as well

    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("%s: waiting for another process that makes it", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="making-") as temporary:
        made = Path(temporary, "made")
        made.mkdir()
        make(made)
        files = sorted(path for path in made.rglob("*") if path.is_file() and not path.is_symlink())
        sums = [f"{_digest(path)}  {path.relative_to(made)}\n" for path in files]
        (made / DIGESTS).write_text("".join(sums))
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)


def _forget(parent: Path) -> None:
    for folder in parent.iterdir():
        if folder.is_dir() and folder.stat().st_mtime < time.time() - FORGOTTEN:
            shutil.rmtree(folder, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
