"""The files of a hypervisor's two folders: which macro belongs where, and what nothing reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy import BATCH, CPU, REGISTER, write_toy
from toy_folder import OPERATIONS, changed, problems, refusal
from vmm_arch_gen.arch.hypervisor import read_hypervisor
from vmm_arch_gen.project import Project

EVERYWHERE = {
    "operations.py.j2": "{% macro run(vcpu) %}\n{{ on_cpu('before', vcpu) }}\nreturn 1{% endmacro %}\n",
}
"""A hypervisor's folder for every CPU."""


def on_every_cpu(templates: Path, paths: Project, here: str, everywhere: str = "") -> list[str]:
    """What is wrong with a toy whose ``run`` lies in the folder for every CPU."""
    folder = changed(
        REGISTER,
        "operations.py.j2",
        "{% macro run(vcpu) %}return go({{ vcpu }}){% endmacro %}",
        here,
    )
    for file, text in EVERYWHERE.items():
        path = templates / "hypervisors/made" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + everywhere * (file == "operations.py.j2"))
    return problems(templates, paths, folder)


def test_a_folder_for_every_cpu_puts_in_what_one_has(tmp_path: Path, paths: Project) -> None:
    before = "{% macro before(vcpu) %}look({{ vcpu }}){% endmacro %}"
    assert on_every_cpu(tmp_path, paths, before) == []
    hypervisor = read_hypervisor(tmp_path, "made", CPU)
    assert hypervisor.macros["run"].file == "hypervisors/made/operations.py.j2"


@pytest.mark.parametrize(
    ("here", "everywhere", "complaint"),
    [
        (
            "",
            "",
            "operations.py.j2: lacks before, which templates/hypervisors/made/operations.py.j2:2 puts in; write {% macro before(vcpu) %}",
        ),
        (
            "{% macro before(a, b) %}{% endmacro %}",
            "",
            "before has the parameters (a, b); write {% macro before(vcpu) %}",
        ),
        (
            "{% macro before(vcpu) %}{% endmacro %}{% macro run(vcpu) %}{% endmacro %}",
            "",
            "run is written twice; remove one of the two; the other is in templates/hypervisors/made/operations.py.j2:1",
        ),
        (
            "{% macro before(vcpu) %}{% endmacro %}",
            "{% macro kick(vcpu) %}\nx = {{ on_cpu('before', vcpu) }}\n{% endmacro %}",
            ":5: on_cpu('before') is not on a line of its own; let the macro make whole lines",
        ),
        (
            "{% macro before(vcpu) %}{% endmacro %}",
            "{% macro kick(vcpu) %}\n{{ on_cpu('before', vcpu=vcpu) }}\n{% endmacro %}",
            ":5: expected the name of a macro and its arguments: {{ on_cpu('before', vcpu=vcpu) }}",
        ),
        (
            "{% macro before(vcpu) %}\n{{ on_cpu('run') }}\n{% endmacro %}",
            "",
            "on_cpu('run') belongs in the folder for every CPU; this is one CPU's",
        ),
        (
            "{% macro before(vcpu) %}{% endmacro %}{% set set_regs = unsupported('') %}",
            "{% set set_regs = unsupported('') %}",
            "set_regs is declared unsupported twice",
        ),
    ],
)
def test_what_the_two_folders_of_a_hypervisor_disagree_about(
    tmp_path: Path, paths: Project, here: str, everywhere: str, complaint: str
) -> None:
    found = "\n".join(on_every_cpu(tmp_path, paths, here, everywhere))
    assert complaint in found, found


# What is wrong with a macro is said where the macro is.


def test_a_macro_that_is_written_twice(tmp_path: Path, paths: Project) -> None:
    again = REGISTER["operations.py.j2"] + "{% macro run(vcpu) %}{% endmacro %}\n"
    (problem,) = problems(tmp_path, paths, REGISTER | {"operations.py.j2": again})
    assert problem == (
        f"{OPERATIONS}:8: run is written twice; remove one of the two; the first is in {OPERATIONS}:2"
    )


@pytest.mark.parametrize("file", ["module.py.j2", "vcpu.py.j2"])
def test_a_macro_in_the_wrong_file(tmp_path: Path, paths: Project, file: str) -> None:
    macro = "{% macro run(vcpu) %}return go({{ vcpu }}){% endmacro %}\n"
    folder = changed(REGISTER, "operations.py.j2", macro, "")
    folder[file] = macro + folder[file]
    (problem,) = problems(tmp_path, paths, folder)
    where = f"templates/hypervisors/made/{CPU}"
    assert problem == (
        f"{where}/{file}:1: run belongs in operations.py.j2; move it to {OPERATIONS}"
    )


def test_an_absence_in_the_wrong_file_or_twice(tmp_path: Path, paths: Project) -> None:
    macro = "{% macro run(vcpu) %}return go({{ vcpu }}){% endmacro %}\n"
    unsupported = '{% set run = unsupported("it does not run") %}\n'
    folder = changed(BATCH, "operations.py.j2", macro, unsupported)
    assert problems(tmp_path, paths, folder) == []
    twice = folder | {"operations.py.j2": folder["operations.py.j2"] + unsupported}
    (problem,) = problems(tmp_path, paths, twice)
    assert ":7: run is declared unsupported twice; remove one of the two; the first" in problem
    moved = changed(BATCH, "operations.py.j2", macro, "")
    moved["module.py.j2"] = unsupported + moved["module.py.j2"]
    (problem,) = problems(tmp_path, paths, moved)
    assert "module.py.j2:1: what is unsupported belongs in operations.py.j2; move it to" in problem


@pytest.mark.parametrize("mistake", ["{% macro", "{% macro run(vcpu %}", "{{ 1 + }}", "{% if %}"])
def test_an_operations_file_that_is_no_template(tmp_path: Path, mistake: str) -> None:
    folder = REGISTER | {"operations.py.j2": f"\n\n{mistake}\n"}
    found = refusal(tmp_path, folder)
    assert f"{OPERATIONS}:3: not Jinja: " in found
    assert f"; correct the line: {mistake}" in found


def test_a_macro_that_is_not_closed(tmp_path: Path) -> None:
    text = (
        "{# {% macro shown() %} #}\n\n{% macro run(vcpu) %}\n{% macro kick(vcpu) %}{% endmacro %}\n"
    )
    found = refusal(tmp_path, REGISTER | {"operations.py.j2": text})
    assert found == (
        f"{OPERATIONS}:3: the macro run is not closed before kick; write {{% endmacro %}} above line 4"
    )


def test_a_missing_folder(tmp_path: Path, paths: Project) -> None:
    found = "\n".join(problems(tmp_path, paths, {}))
    assert "state.py: cannot be read: No such file" in found
    for section in ("summary", "machines_per_process", "records", "vcpu_members"):
        assert f"lacks the section {section}; write {{% macro {section}() %}}" in found


def test_a_folder_for_one_cpu_needs_no_file_whose_macros_are_all_in_the_other(
    tmp_path: Path, paths: Project
) -> None:
    folder = dict(REGISTER)
    shared = tmp_path / "hypervisors/made"
    shared.mkdir(parents=True)
    for file in ("module.py.j2", "vcpu.py.j2", "operations.py.j2"):
        (shared / file).write_text(folder.pop(file))
    assert problems(tmp_path, paths, folder) == []


@pytest.mark.parametrize("room", ["hypervisors/made", f"hypervisors/made/{CPU}"])
@pytest.mark.parametrize(
    ("file", "near"),
    [
        ("operation.py.j2", "operations.py.j2"),
        ("machine.py.j2", ""),
        ("vcpus.py.j2", "vcpu.py.j2"),
        ("states.py", "state.py"),
        ("modul.j2", "module.py.j2"),
    ],
)
def test_a_file_that_nothing_reads_is_refused(
    tmp_path: Path, paths: Project, room: str, file: str, near: str
) -> None:
    extra = tmp_path / room / file
    extra.parent.mkdir(parents=True, exist_ok=True)
    extra.write_text("")
    (tmp_path / room / "notes.txt").write_text("Not a template.")
    (problem,) = problems(tmp_path, paths, REGISTER)
    assert problem.startswith(f"templates/{room}/{file}: is no file of a hypervisor's folder, so")
    if near and not (near == "state.py" and room == "hypervisors/made"):
        assert f"; did you mean {near}" in problem


def test_files_that_are_no_text(tmp_path: Path) -> None:
    templates = write_toy(tmp_path, made=REGISTER)
    for file in (f"hypervisors/made/{CPU}/operations.py.j2", f"hypervisors/made/{CPU}/state.py"):
        before = (templates / file).read_bytes()
        (templates / file).write_bytes(b"\xff\xfe")
        (problem,) = read_hypervisor(templates, "made", CPU).problems
        assert "cannot be read: 'utf-8' codec" in str(problem)
        (templates / file).write_bytes(before)
