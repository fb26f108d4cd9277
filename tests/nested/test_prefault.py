"""Pages that are mapped before a guest uses them, on the first of Debian's kernels that can."""

from __future__ import annotations

from pathlib import Path

import prefaults
import pytest

from nested.architecture import AMD
from nested.scenarios import PRODUCT
from nested.test_nested import machine_of


@pytest.mark.xdist_group("platform")
def test_all_of_memory_is_mapped_at_once() -> None:
    files: dict[str, bytes | Path] = {
        "vmm_arch": PRODUCT,
        "prefaults.py": Path(prefaults.__file__),
    }
    result = machine_of(AMD, "trixie").run(files, ["python3", "prefaults.py"])
    assert result.status == 0, result.stdout + result.stderr
    pages = prefaults.SIZE >> 12
    assert result.stdout == f"{pages} pages of {pages}\n"
