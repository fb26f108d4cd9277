"""The self-test's guests: code and scenarios are compared when modules are generated."""

from __future__ import annotations

from pathlib import Path

import pytest
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.generate.guests import check_guests
from vmm_arch_gen.project import Project

FOLDER = "vmm_arch/selftest/slate"


def write(templates: Path, code: str, *scenarios: str) -> Path:
    folder = templates / FOLDER / "scenarios"
    folder.mkdir(parents=True)
    (folder.parent / "code.py").write_text(code)
    for name in ("__init__", *scenarios):
        (folder / f"{name}.py").write_text("")
    return templates


def test_every_guest_has_code_and_a_scenario(tmp_path: Path, paths: Project) -> None:
    check_guests(write(tmp_path, 'CODE = {"adds": "00", "halts": "00"}', "adds", "halts"))
    check_guests(paths.templates)


@pytest.mark.parametrize(
    ("code", "scenarios", "complaints"),
    [
        (
            '# The code.\nCODE = {"ads": "00"}',
            ["adds"],
            [
                f"{FOLDER}/code.py:2: CODE: the guest ads has no scenario; did you mean adds?",
                f"{FOLDER}/scenarios/adds.py: the scenario adds has no guest's code; did you mean ads?",
            ],
        ),
        (
            "CODE = {}",
            ["adds"],
            [
                f"the scenario adds has no guest's code; add it to CODE in templates/{FOLDER}/code.py"
            ],
        ),
        (
            'CODE = {"halts": "00"}',
            [],
            [f"the guest halts has no scenario; write templates/{FOLDER}/scenarios/halts.py"],
        ),
        ("CODE = 1", ["adds"], [f"{FOLDER}/code.py:1: CODE is not a dictionary"]),
        ("", ["adds"], [f"{FOLDER}/code.py"]),
    ],
)
def test_what_lacks_one_of_them_is_refused(
    tmp_path: Path, code: str, scenarios: list[str], complaints: list[str]
) -> None:
    with pytest.raises(InputError) as refused:
        check_guests(write(tmp_path, code, *scenarios))
    assert len(refused.value.problems) == len(complaints)
    for problem, complaint in zip(refused.value.problems, complaints, strict=True):
        assert complaint in str(problem)
