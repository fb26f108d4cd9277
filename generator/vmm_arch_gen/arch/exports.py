"""What a CPU's backends hand on, so that their users import one module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from vmm_arch_gen.arch.sources import read_python
from vmm_arch_gen.arch.tables import Table, closed, read_table
from vmm_arch_gen.diagnostics import Problem, did_you_mean, refuse


def read_exports(
    templates: Path, cpu: str, offered: Mapping[str, Mapping[str, str]]
) -> dict[str, list[str]]:
    """Read the names that are handed on, by their modules, and compare with what those offer.

    ``offered`` are the names of each module of the package that a backend may import.
    """
    source = read_python(templates, "cpu", cpu, "exports.py")
    table = read_table(source, "EXPORTS")
    refuse([*closed(source, ["EXPORTS"]), *_problems(table, offered)])
    return {module: [str(name) for name in _names(row)] for module, row in table.entries.items()}


def _names(row: object) -> tuple[object, ...]:
    return row if isinstance(row, tuple) else ()


def _problems(table: Table, offered: Mapping[str, Mapping[str, str]]) -> Iterator[Problem]:
    taken: dict[str, str] = {}
    for module, row in table.entries.items():
        if not isinstance(row, tuple) or not row:
            what = f"the names of {module} are {row!r}, not a list of texts"
            remedy = f'write ["{row}"]' if isinstance(row, str) else 'write ["Name", "other_name"]'
            yield table.complaint(module, what=what, remedy=remedy)
        if module not in offered:
            what = f"there is no module {module} that a backend may import"
            near = did_you_mean(module, list(offered))
            remedy = f"{near}write the name of a module below templates/vmm_arch"
            yield table.complaint(module, what=what, remedy=remedy)
            continue
        for index, name in enumerate(_names(row)):
            what, remedy = "", ""
            if not isinstance(name, str):
                what, remedy = f"{module}: {name!r} is not a name", "write it in quotes"
            elif name not in offered[module]:
                what = f"{module} does not define {name}"
                near = did_you_mean(name, list(offered[module]))
                remedy = f"{near}write a name that it binds at its top, or define it there"
            elif name in taken:
                what, remedy = (
                    f"{name} is handed on twice",
                    f"remove one; the first is {taken[name]}",
                )
            if what:
                yield table.complaint(module, str(index), what=what, remedy=remedy)
            else:
                taken[str(name)] = module
