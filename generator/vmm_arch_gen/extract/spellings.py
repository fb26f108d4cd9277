"""Headers that are included by names in other case than their files': Windows takes no notice."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from vmm_arch_gen.extract.missing import headers_in


class Spellings:
    """Two folders with a header for each such name, which includes the one that is meant.

    They are temporary, and go with this object.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        made = tempfile.mkdtemp(prefix="vmm-arch-")
        weakref.finalize(self, shutil.rmtree, made, ignore_errors=True)
        self._of_shims = Path(made, "shims")
        self._of_others = Path(made, "others")
        self.folders = (self._of_shims, self._of_others)

    def before(self, shims: Sequence[Path]) -> tuple[Path, ...]:
        """What to search first so that shims are found by every name of the headers they are for."""
        by_lower_case = {name.lower(): path for name, path in headers_in(shims).items()}
        for name, real in self._others.items():
            if (shim := by_lower_case.get(name.lower())) and shim.name != real.name:
                _forward(self._of_shims / name, shim)
        return (self._of_shims,) if shims else ()

    def after(self) -> tuple[Path, ...]:
        """What to search last."""
        return (self._of_others,)

    def add(self, names: Iterable[str], shims: Sequence[Path]) -> bool:
        """Make some names of headers known that were not found; whether that is possible."""
        added = False
        for folder, headers in (
            (self._of_shims, headers_in(shims)),
            (self._of_others, self._others),
        ):
            by_lower_case = {name.lower(): path for name, path in headers.items()}
            for name in names:
                real = by_lower_case.get(name.lower())
                if real is not None and not (folder / name).exists():
                    _forward(folder / name, real)
                    added = True
        return added

    @cached_property
    def _others(self) -> dict[str, Path]:
        return headers_in(self._folders)


def _forward(header: Path, real: Path) -> None:
    header.parent.mkdir(parents=True, exist_ok=True)
    header.write_text(f'#include "{real.resolve().as_posix()}"\n', encoding="utf-8")
