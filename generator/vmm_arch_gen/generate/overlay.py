"""Templates of a user's own, laid over the package's."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def overlaid(templates: Path, own: Path | None) -> Iterator[Path]:
    """A folder of templates in which a user's files take the place of those with their names."""
    if own is None:
        yield templates
        return
    with tempfile.TemporaryDirectory(prefix="vmm-arch-") as temporary:
        folder = Path(temporary, "templates")
        for layer in (templates, own):
            shutil.copytree(
                layer, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        yield folder
