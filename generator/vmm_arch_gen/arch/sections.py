"""The files of a hypervisor's folders, and the sections of a module that are macros in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vmm_arch_gen.diagnostics import Problem, did_you_mean

OPERATIONS = "operations.py.j2"
"""The file of the contract's operations."""
TABLES = "state.py"
"""The file of the tables of state, in the folder for one CPU."""
SECTIONS = {
    "summary": "module.py.j2",
    "machines_per_process": "module.py.j2",
    "imports": "module.py.j2",
    "records": "module.py.j2",
    "definitions": "module.py.j2",
    "calls": "calls.py.j2",
    "host": "host.py.j2",
    "vcpu_state": "vcpu_state.py.j2",
    "resetting": "reset.py.j2",
    "exits": "exits.py.j2",
    "exit_reported": "exits.py.j2",
    "vcpu_slots": "vcpu.py.j2",
    "vcpu_members": "vcpu.py.j2",
    "vm_slots": "vm.py.j2",
    "vm_members": "vm.py.j2",
}
"""The sections of a module that are no operations: macros without parameters, by their file."""
OPTIONAL = (
    *(
        "imports",
        "definitions",
        "calls",
        "host",
        "vcpu_state",
        "resetting",
        "exits",
        "exit_reported",
    ),
    *("vcpu_slots", "vm_slots", "vm_members"),
)
"""The sections that a hypervisor may do without."""
TEXTS = ("summary", "machines_per_process", "exit_reported", "vcpu_slots", "vm_slots")
"""The sections that are put into a statement: the text of a docstring, a value, names."""

_TEMPLATES = tuple(dict.fromkeys([OPERATIONS, *SECTIONS.values()]))


def unread_files(templates: Path, name: str, cpu: str) -> Iterator[Problem]:
    """The files of a hypervisor's folders that nothing reads: most likely their names are misspelt."""
    for folder, known in (
        (f"hypervisors/{name}", _TEMPLATES),
        (f"hypervisors/{name}/{cpu}", (*_TEMPLATES, TABLES)),
    ):
        for file in sorted((templates / folder).glob("*.*")):
            if file.suffix in (".j2", ".py") and file.name not in known:
                what = "is no file of a hypervisor's folder, so nothing reads it"
                remedy = f"{did_you_mean(file.name, known)}the files are {', '.join(known)}"
                yield Problem(f"templates/{folder}/{file.name}", what, remedy)
