"""The self-test's guests: each has code and a scenario, of one name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vmm_arch_gen.arch.sources import read_python
from vmm_arch_gen.arch.tables import read_table
from vmm_arch_gen.diagnostics import Problem, collecting, did_you_mean, refuse

_FOLDER = "vmm_arch/selftest"


def check_guests(templates: Path) -> None:
    """Raise InputError for each guest of a CPU that lacks its code or its scenario."""
    problems: list[Problem] = []
    for code in sorted((templates / _FOLDER).glob("*/code.py")):
        with collecting(problems):
            problems += _unpaired(templates, code.parent.name)
    refuse(problems)


def _unpaired(templates: Path, cpu: str) -> Iterator[Problem]:
    folder = f"{_FOLDER}/{cpu}"
    codes = read_table(read_python(templates, *folder.split("/"), "code.py"), "CODE")
    modules = (templates / folder / "scenarios").glob("*.py")
    scenarios = {path.stem for path in modules if path.stem != "__init__"}
    for name in codes.entries.keys() - scenarios:
        what = f"the guest {name} has no scenario"
        remedy = f"{did_you_mean(name, scenarios)}write templates/{folder}/scenarios/{name}.py"
        yield codes.complaint(name, what=what, remedy=remedy)
    for name in sorted(scenarios - codes.entries.keys()):
        where = f"templates/{folder}/scenarios/{name}.py"
        near = did_you_mean(name, list(codes.entries))
        remedy = f"{near}add it to CODE in templates/{folder}/code.py"
        yield Problem(where, f"the scenario {name} has no guest's code", remedy)
