"""Files out of Debian's packages, kept once they were fetched."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from vmm_arch_gen.fetch import debian
from vmm_arch_gen.fetch.kept import cache_folder, kept


def packaged(package: str, path: str, suite: str = "bookworm") -> Path:
    """A file of a package of Debian's; raises debian.Unavailable if it cannot be had."""
    name = Path(path).name

    def fill(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="vmm-arch-") as temporary:
            with debian.suite(suite) as packages:
                packages.unpack([package], Path(temporary))
            shutil.copy(Path(temporary, path), folder / name)

    return kept("packaged", f"{package}-{suite}-{name}", fill, cache_folder("nested")) / name
