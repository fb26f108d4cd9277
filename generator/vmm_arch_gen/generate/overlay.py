"""A user's own templates, overlaid on the package's."""

from __future__ import annotations

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
            for source in layer.rglob("*"):
                file = folder / source.relative_to(layer)
                if source.is_file() and "__pycache__" not in file.parts:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    # Without its mode: a package's files may be there to be read only.
                    file.write_bytes(source.read_bytes())
        yield folder
