"""The check that compares a hypervisor's folder with the contract: every hole, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy import BATCH, CPU, REGISTER, TEMPLATE, write_toy
from vmm_arch_gen.abi.text import read_abi_file
from vmm_arch_gen.arch.check import check
from vmm_arch_gen.arch.contract import read_contract
from vmm_arch_gen.arch.hypervisor import read_hypervisor
from vmm_arch_gen.arch.states import read_states
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.project import Project


def problems(
    templates: Path, paths: Project, folder: dict[str, str], template: str = TEMPLATE
) -> list[str]:
    write_toy(templates, made=folder)
    path = f"arch/{CPU}/backend.py.j2"
    (templates / path).write_text(template)
    contract = read_contract(templates, CPU)
    hypervisor = read_hypervisor(templates, f"made/{CPU}")
    abi = read_abi_file(paths.abi / "kvm_x86_64.abi")
    return [str(problem) for problem in check(contract, hypervisor, abi, templates, path)]


def changed(folder: dict[str, str], file: str, old: str, new: str) -> dict[str, str]:
    assert old in folder[file]
    return folder | {file: folder[file].replace(old, new)}


@pytest.mark.parametrize("folder", [REGISTER, BATCH], ids=["register", "batch"])
def test_a_whole_hypervisor_has_no_holes(
    tmp_path: Path, paths: Project, folder: dict[str, str]
) -> None:
    assert problems(tmp_path, paths, folder) == []


def test_all_holes_are_reported_at_once_with_file_and_line(tmp_path: Path, paths: Project) -> None:
    holed = {
        "operations.py.j2": """

{% macro set_regs(vcpu) %}{% endmacro %}
{% macro sing(vcpu, song) %}{% endmacro %}
""",
        "module.py.j2": "{% macro summary() %}{% endmacro %}",
        "machine.py.j2": "",
        "state.py": REGISTER["state.py"].replace('"general": ("regs", {"*": "*"}),', ""),
    }
    folder = f"templates/hypervisors/made/{CPU}"
    operations = f"templates/hypervisors/made/{CPU}/operations.py.j2"
    state = f"templates/hypervisors/made/{CPU}/state.py"
    contract = f"templates/vmm_arch/protocols/{CPU}.py"
    found = problems(tmp_path, paths, holed)
    assert f"{operations}:3: set_regs has the parameters (vcpu); {contract}:9 asks for " in found[0]
    assert [line.partition(";")[0] for line in found] == [
        f"{operations}:3: set_regs has the parameters (vcpu)",
        f"{operations}: lacks the operation run of {contract}:12",
        f"{operations}: lacks the operation set_modes of {contract}:18",
        f"{operations}: lacks the operation probe of {contract}:30",
        f"{operations}: lacks the operation create_vm of {contract}:36",
        *[
            f"{folder}/module.py.j2: lacks the part {part}"
            for part in ("imports", "records", "module_parts", "calls")
        ],
        *[f"{folder}/machine.py.j2: lacks the part {part}" for part in ("vcpu_parts", "vm_parts")],
        f"{operations}:4: sing is no operation of the contract",
        f"{state}: SLOTS lacks the group general",
        f"{state}:3: the sink modes is written by set_modes, which is no operation here",
    ]
    assert '{% set probe = absent("reason") %}' in found[3]  # what to do is said too


def test_an_element_without_a_slot_is_a_hole(tmp_path: Path, paths: Project) -> None:
    folder = changed(BATCH, "state.py", '"pc": "PC", ', "")
    (problem,) = problems(tmp_path, paths, folder)
    assert "state.py:13: general has no slot for pc" in problem


def test_a_slot_that_the_hypervisors_record_does_not_have(tmp_path: Path, paths: Project) -> None:
    folder = changed(REGISTER, "state.py", '"shape": "keywords",\n        "image": "regs_image"',
                     '"shape": "record",\n        "image": "kvm_dtable"')  # fmt: skip
    found = problems(tmp_path, paths, folder)
    assert [line.partition(";")[0].partition(": ")[2] for line in found] == [
        "pc: struct kvm_dtable has no member pc",
        "sp: struct kvm_dtable has no member sp",
    ]


def test_a_segment_needs_a_sink_that_lays_segments_out(tmp_path: Path, paths: Project) -> None:
    folder = changed(REGISTER, "state.py", '"segments": ("segment", {"base": "base"}),', "")
    (problem,) = problems(tmp_path, paths, folder)
    assert "state.py:3: the sink modes does not say how it lays out the segment code" in problem


def test_both_there_and_absent(tmp_path: Path, paths: Project) -> None:
    macro = '\n{% set set_regs = absent("no") %}'
    folder = REGISTER | {"operations.py.j2": REGISTER["operations.py.j2"] + macro}
    (problem,) = problems(tmp_path, paths, folder)
    assert "set_regs is both there and absent" in problem


def test_something_else_declared_absent(tmp_path: Path, paths: Project) -> None:
    macro = '\n{% set wings = absent("no") %}'
    folder = REGISTER | {"operations.py.j2": REGISTER["operations.py.j2"] + macro}
    (problem,) = problems(tmp_path, paths, folder)
    assert "wings is declared absent, but is no operation" in problem


def test_an_operation_that_nothing_uses(tmp_path: Path, paths: Project) -> None:
    """Private ones are only for arch functions; what a hypervisor declares absent need not be."""
    assert problems(tmp_path, paths, BATCH, template="") == []
    unabsent = "{% macro set_modes(vcpu, modes) %}{% endmacro %}"
    absent = '{% set set_modes = absent("the registers are all there is") %}'
    folder = changed(BATCH, "operations.py.j2", absent, unabsent)
    (problem,) = problems(tmp_path, paths, folder, template="")
    contract = f"templates/vmm_arch/protocols/{CPU}.py:18"
    assert problem.startswith(f"{contract}: set_modes is not public, and no arch function uses it")


def test_an_arch_function_that_uses_what_is_not_in_the_contract(
    tmp_path: Path, paths: Project
) -> None:
    template = f'{TEMPLATE}\n{{{{ inline("set_wings", "vcpu") }}}}\n'
    (problem,) = problems(tmp_path, paths, REGISTER, template=template)
    assert problem.startswith(f"templates/arch/{CPU}/backend.py.j2:5: uses set_wings")


def test_two_elements_in_one_slot(tmp_path: Path, paths: Project) -> None:
    folder = changed(BATCH, "state.py", '"paging": "PAGING"', '"paging": "CODE"')
    (problem,) = problems(tmp_path, paths, folder)
    assert "state.py:14: paging and code have the same slot: CODE" in problem


def refusal(templates: Path, folder: dict[str, str]) -> str:
    write_toy(templates, made=folder)
    with pytest.raises(InputError) as refused:
        read_hypervisor(templates, f"made/{CPU}")
    return str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            '"image": "regs_image",',
            "",
            "state.py:12: the sink regs is wrong or incomplete: 'image'",
        ),
        ('"shape": "keywords",', '"shape": "round",', "there is no shape 'round'"),
        ('"variable": "regs",', '"variable": "regs", "x": 1,', "there is no entry 'x'"),
        ('"general": ("regs",', '"general": ("nowhere",', "general does not name a sink"),
        ('"general": ("regs",', '"general": (1 + 1,', "1 + 1 is no literal"),
        ("CREATION_GUARANTEES = ()", "", "does not define CREATION_GUARANTEES"),
        ('{"base": "base"}', '{"bass": "base"}', "members of selector, base, limit, attributes"),
        ('("segment", {"base": "base"})', '("segment",)', "segments are a function and members"),
        ('"shape": "keywords",', '"shape": "keywords", "shape": "table",', "is there twice"),
        ("SINKS = {", "SINKS = {{", "state.py:"),
    ],
)
def test_a_malformed_table_is_refused(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    assert complaint in refusal(tmp_path, changed(REGISTER, "state.py", old, new))


def test_an_operations_file_that_is_no_template(tmp_path: Path) -> None:
    folder = REGISTER | {"operations.py.j2": "{% macro"}
    assert "operations.py.j2:1: " in refusal(tmp_path, folder)


def test_a_missing_folder(tmp_path: Path) -> None:
    assert "operations.py.j2: cannot be read: No such file" in refusal(tmp_path, {})


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"pc": "entry.address"', '"pd": 1', "boot: there is no element pd"),
        ('"pc": "entry.address"', '"pc": (1, 2, 3, 4)', "pc is a segment with four parts, or is"),
        ('"pc": "entry.address"', '"pc": "entry."', "entry. is no expression"),
        ('"extends": "boot"', '"extends": "later"', "paged extends later"),
        ('"extends": "boot"', '"extends": {}', "paged extends {}"),
        ('{"pc": "entry.address", "paging": "PAGING_OFF"}', '"pc"', "boot is no dictionary"),
        ('"entry.address"', '{"a": 1}', "pc: {'a': 1} is neither a number nor an expression"),
        ('INIT_KEEPS = ("modes",)', 'INIT_KEEPS = ("moods",)', "there is no group moods"),
        ('"paged": "Paged"', '"flat": "Flat"', "there is no state flat"),
    ],
)
def test_states_are_compared_with_the_vocabulary(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    templates = write_toy(tmp_path)
    file = templates / f"arch/{CPU}/states.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(InputError) as refused:
        read_states(templates, CPU, read_contract(templates, CPU))
    assert complaint in str(refused.value)
    assert f"templates/arch/{CPU}/states.py:" in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"sp": 0}', '"sp": "0"}'),
        ('"sp": 0}', '"sp": 0, "paging": 1}'),
        ('"sp": 0}', '"sp": (1, 2)}'),
    ],
)
def test_a_vocabulary_whose_values_are_none(tmp_path: Path, old: str, new: str) -> None:
    templates = write_toy(tmp_path)
    file = templates / f"vmm_arch/protocols/{CPU}.py"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(InputError, match=rf"{CPU}.py:\d+: STATE: .* is no element with its value"):
        read_contract(templates, CPU)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    templates = write_toy(tmp_path, made=REGISTER)
    for file in (f"hypervisors/made/{CPU}/operations.py.j2", f"hypervisors/made/{CPU}/state.py"):
        before = (templates / file).read_bytes()
        (templates / file).write_bytes(b"\xff\xfe")
        with pytest.raises(InputError, match="cannot be read: 'utf-8' codec"):
            read_hypervisor(templates, f"made/{CPU}")
        (templates / file).write_bytes(before)


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
