"""Finds kernel modules and the order to load them in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from debian import Unavailable


def load_order(root: Path, wanted: Iterable[str]) -> list[Path]:
    """The files of these modules below a folder, each after the modules that it depends on.

    The package has no modules.dep: depmod makes it where a kernel is installed.
    """
    files = {path.stem.replace("-", "_"): path for path in sorted(root.rglob("*.ko"))}
    order: list[Path] = []

    def visit(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None:
            raise Unavailable(f"the kernel's package has no module {name}")
        if path not in order:
            for needed in dependencies(path.read_bytes()):
                visit(needed)
            order.append(path)

    for name in wanted:
        visit(name)
    return order


def dependencies(module: bytes) -> list[str]:
    """The names in a module's ``depends=``, one of the strings of its section .modinfo."""
    found = re.search(rb"\0depends=([\w,-]*)\0", module)
    return found[1].decode().split(",") if found and found[1] else []
