"""The check that compares a hypervisor's folder with the contract: everything wrong, all at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from toy import BATCH, CPU, REGISTER, TEMPLATE, write_toy
from toy_folder import OPERATIONS, changed, problems
from vmm_arch_gen.arch.contract import frame_problems, read_contract
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.project import Project


@pytest.mark.parametrize("folder", [REGISTER, BATCH], ids=["register", "batch"])
def test_a_whole_hypervisor_has_nothing_to_report(
    tmp_path: Path, paths: Project, folder: dict[str, str]
) -> None:
    assert problems(tmp_path, paths, folder) == []


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("kick", "Vcpu has no operation kick, which the frame"),
        ("install_kick_signal", "Host has no operation install_kick_signal"),
        ("track_dirty", r":\d+: Backend.Vm has no track_dirty, which the frame"),
        ("close", "Vm has no close, which the frame"),
    ],
)
def test_what_the_frame_of_every_backend_needs_of_a_contract(
    tmp_path: Path, paths: Project, name: str, complaint: str
) -> None:
    for file in ("vmm_arch/protocols/x86_64.py", "vmm_arch/x86_64/vocabulary.py"):
        text = (paths.templates / file).read_text()
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text(re.sub(rf"\b{name}\b", "renamed", text))
    (found,) = frame_problems(read_contract(tmp_path, "x86_64"))
    assert re.search(complaint, str(found)), found


def test_the_contracts_that_there_are_have_what_the_frame_needs(paths: Project) -> None:
    assert not list(frame_problems(read_contract(paths.templates, "x86_64")))


def test_everything_wrong_is_reported_at_once_with_file_and_line(
    tmp_path: Path, paths: Project
) -> None:
    incomplete = {
        "operations.py.j2": """

{% macro set_regs(vcpu) %}{% endmacro %}
{% macro sing(vcpu, song) %}{% endmacro %}
""",
        "module.py.j2": "{% macro summary() %}{% endmacro %}",
        "state.py": REGISTER["state.py"].replace('"general": ("regs", {"*": "*"}),', ""),
    }
    folder = f"templates/hypervisors/made/{CPU}"
    operations = f"templates/hypervisors/made/{CPU}/operations.py.j2"
    state = f"templates/hypervisors/made/{CPU}/state.py"
    contract = f"templates/vmm_arch/protocols/{CPU}.py"
    found = problems(tmp_path, paths, incomplete)
    assert f"{operations}:3: set_regs has the parameters (vcpu); {contract}:9 asks for " in found[0]
    assert [line.partition(";")[0] for line in found] == [
        f"{operations}:3: set_regs has the parameters (vcpu)",
        f"{operations}: lacks the operation run of {contract}:12",
        f"{operations}: lacks the operation probe of {contract}:26",
        f"{operations}: lacks the operation create_vm of {contract}:32",
        *[
            f"{folder}/module.py.j2: lacks the section {section}"
            for section in ("machines_per_process", "records")
        ],
        f"{folder}/vcpu.py.j2: lacks the section vcpu_members",
        f"{state}:20: SLOTS: lacks the group general",
        f"{state}:4: SINKS: the sink modes is written by set_modes, which is not a macro here",
        f"{state}:12: SINKS: no group is stored in the sink regs",
        f"{operations}:4: sing is not an operation of the contract, and nothing names it",
    ]
    assert '{% set probe = unsupported("reason") %}' in found[2]  # what to do is said too


def test_both_there_and_unsupported(tmp_path: Path, paths: Project) -> None:
    macro = '\n{% set set_regs = unsupported("no") %}'
    folder = REGISTER | {"operations.py.j2": REGISTER["operations.py.j2"] + macro}
    (problem,) = problems(tmp_path, paths, folder)
    assert "set_regs is both there and unsupported" in problem


def test_something_else_declared_unsupported(tmp_path: Path, paths: Project) -> None:
    macro = '\n{% set wings = unsupported("no") %}'
    folder = REGISTER | {"operations.py.j2": REGISTER["operations.py.j2"] + macro}
    (problem,) = problems(tmp_path, paths, folder)
    assert "wings is declared unsupported, but is not an operation" in problem


def test_a_hypervisors_own_operation_is_its_sinks_and_nobody_elses(
    tmp_path: Path, paths: Project
) -> None:
    """BATCH has no set_modes and says nothing of it; REGISTER has it for a sink."""
    assert "set_modes" in REGISTER["operations.py.j2"]
    assert "set_modes" not in BATCH["operations.py.j2"]
    assert problems(tmp_path, paths, BATCH) == []
    more = "{% macro set_moods(vcpu, moods) %}{% endmacro %}\n"
    folder = REGISTER | {"operations.py.j2": REGISTER["operations.py.j2"] + more}
    (problem,) = problems(tmp_path, paths, folder)
    assert problem == (
        f"{OPERATIONS}:8: set_moods is not an operation of the contract, and nothing names it;"
        " did you mean set_modes? remove it, or name it in SINKS"
    )


def test_a_sinks_operation_takes_the_vcpu_and_what_is_written(
    tmp_path: Path, paths: Project
) -> None:
    folder = changed(REGISTER, "operations.py.j2", "set_modes(vcpu, modes)", "set_modes(vcpu)")
    (problem,) = problems(tmp_path, paths, folder)
    assert problem == (
        f"{OPERATIONS}:7: set_modes has the parameters (vcpu);"
        " write {% macro set_modes(vcpu, modes) %}"
    )


def test_what_a_template_asks_for_a_hypervisor_may_have(tmp_path: Path, paths: Project) -> None:
    template = TEMPLATE + '{% if has("rest") %}{{ inline("rest", "vcpu") }}{% endif %}\n'
    assert problems(tmp_path, paths, BATCH, template) == []
    macro = "{% macro rest(vcpu) %}{% endmacro %}\n"
    folder = BATCH | {"operations.py.j2": BATCH["operations.py.j2"] + macro}
    assert problems(tmp_path, paths, folder, template) == []
    folder["operations.py.j2"] = folder["operations.py.j2"].replace("rest(vcpu)", "rest()")
    (problem,) = problems(tmp_path, paths, folder, template)
    assert "rest has the parameters (); write {% macro rest(vcpu) %}" in problem


def test_what_an_arch_function_uses_every_hypervisor_has_or_declines(
    tmp_path: Path, paths: Project
) -> None:
    template = f'{TEMPLATE}\n{{{{ inline("set_wings", "vcpu", "wings") }}}}\n'
    (problem,) = problems(tmp_path, paths, REGISTER, template=template)
    assert problem == (
        f"{OPERATIONS}: lacks set_wings, which templates/cpu/{CPU}/functions.py.j2:5 uses; did you"
        " mean set_regs? write {% macro set_wings(vcpu, wings) %}, or declare it:"
        ' {% set set_wings = unsupported("reason") %}'
    )
    for line in (
        "{% macro set_wings(vcpu, w) %}{% endmacro %}",
        '{% set set_wings = unsupported("") %}',
    ):
        folder = REGISTER | {"operations.py.j2": REGISTER["operations.py.j2"] + line}
        assert problems(tmp_path, paths, folder, template=template) == []


def test_a_template_that_asks_for_what_there_is_not(tmp_path: Path, paths: Project) -> None:
    template = f'{TEMPLATE}{{{{ plan("boots", "generals") }}}}\n'
    where = f"templates/cpu/{CPU}/functions.py.j2:4"
    assert [line.partition("see")[0] for line in problems(tmp_path, paths, REGISTER, template)] == [
        f"{where}: there is no state boots; did you mean boot? ",
        f"{where}: there is no group generals; did you mean general? ",
    ]


def test_a_contract_without_a_part(tmp_path: Path) -> None:
    templates = write_toy(tmp_path)
    file = templates / f"vmm_arch/protocols/{CPU}.py"
    file.write_text(file.read_text().replace("class Host", "class Hostess"))
    with pytest.raises(InputError, match="does not define Host"):
        read_contract(templates, CPU)


def test_signatures_have_the_backends_own_types(tmp_path: Path) -> None:
    contract = read_contract(write_toy(tmp_path), CPU)
    assert contract.operations["set_regs"].signature == "(self, regs: Regs) -> None"
    assert contract.operations["probe"].signature == "() -> str"
    assert contract.types == ("Regs",)
