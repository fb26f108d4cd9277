"""Finds kernel modules and the order to load them in."""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable
from pathlib import Path

from vmm_arch_gen.fetch.debian import Unavailable


def load_order(root: Path, wanted: Iterable[str]) -> list[tuple[str, bytes]]:
    """Names and contents of these modules, each after the modules that it depends on.

    They are looked for below a folder. What is built into the kernel is left out. The package has
    no modules.dep: depmod makes it where a kernel is installed.
    """
    files = {_name(path): path for path in sorted(root.rglob("*.ko*"))}
    built_in = {
        _name(Path(line))
        for path in root.rglob("modules.builtin")
        for line in path.read_text().splitlines()
    }
    order: dict[str, bytes] = {}

    def visit(name: str) -> None:
        if name in order or name in built_in:
            return
        path = files.get(name)
        if path is None:
            raise Unavailable(f"the kernel's package has no module {name}")
        data = path.read_bytes()
        module = lzma.decompress(data) if path.suffix == ".xz" else data
        for needed in dependencies(module):
            visit(needed.replace("-", "_"))
        order[name] = module

    for name in wanted:
        visit(name.replace("-", "_"))
    return list(order.items())


def _name(path: Path) -> str:
    """A module's name by the path of its file, in which it may be written with dashes."""
    return path.name.partition(".")[0].replace("-", "_")


def dependencies(module: bytes) -> list[str]:
    """The names in a module's ``depends=``, one of the strings of its section .modinfo."""
    found = re.search(rb"\0depends=([\w,-]*)\0", module)
    return found[1].decode().split(",") if found and found[1] else []
