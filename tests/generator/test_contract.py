"""The check that compares a hypervisor's folder with the contract: everything wrong, all at once."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from toy import BATCH, CPU, REGISTER, STATES, TEMPLATE, write_toy
from vmm_arch_gen.abi.model import VerifiedAbi
from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.arch.check import check
from vmm_arch_gen.arch.contract import frame_problems, read_contract
from vmm_arch_gen.arch.hypervisor import read_hypervisor
from vmm_arch_gen.arch.states import read_states
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.project import Project

OPERATIONS = f"templates/hypervisors/made/{CPU}/operations.py.j2"


def problems(
    templates: Path,
    paths: Project,
    folder: dict[str, str],
    template: str = TEMPLATE,
    states: str = STATES,
) -> list[str]:
    write_toy(templates, made=folder)
    (templates / f"cpu/{CPU}/states.py").write_text(states)
    path = f"cpu/{CPU}/functions.py.j2"
    (templates / path).write_text(template)
    contract = read_contract(templates, CPU)
    named = read_states(templates, CPU, contract)
    hypervisor = read_hypervisor(templates, "made", CPU)
    abi = without_calls(read_abi_file(paths.abi / "kvm_x86_64.abi"))
    return [str(problem) for problem in check(contract, named, hypervisor, abi, templates, path)]


def without_calls(abi: VerifiedAbi) -> VerifiedAbi:
    """Facts whose calls need not be declared; test_complete.py has the others."""
    return VerifiedAbi(replace(abi, ioctls=(), functions=()))


def changed(folder: dict[str, str], file: str, old: str, new: str) -> dict[str, str]:
    assert old in folder[file]
    return folder | {file: folder[file].replace(old, new)}


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


def test_an_element_without_a_slot_is_reported(tmp_path: Path, paths: Project) -> None:
    folder = changed(BATCH, "state.py", '"pc": "PC", ', "")
    (problem,) = problems(tmp_path, paths, folder)
    assert "state.py:13: SLOTS: general has no slot for pc" in problem


def test_a_slot_that_the_hypervisors_record_does_not_have(tmp_path: Path, paths: Project) -> None:
    folder = changed(REGISTER, "state.py", '"shape": "keywords",\n        "constructor": "regs_image"',
                     '"shape": "record",\n        "constructor": "kvm_dtable"')  # fmt: skip
    found = problems(tmp_path, paths, folder)
    assert [line.partition(";")[0].partition(": ")[2] for line in found] == [
        "SLOTS: pc: struct kvm_dtable has no member pc",
        "SLOTS: sp: struct kvm_dtable has no member sp",
    ]


def test_a_segment_needs_a_sink_that_lays_segments_out(tmp_path: Path, paths: Project) -> None:
    folder = changed(
        REGISTER, "state.py", '"composites": {"SegmentValue": ("segment", {"base": "base"})},', ""
    )
    (problem,) = problems(tmp_path, paths, folder)
    assert (
        "state.py:3: SINKS: modes does not say how it lays out the SegmentValue of code" in problem
    )


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


def test_two_elements_in_one_slot(tmp_path: Path, paths: Project) -> None:
    folder = changed(BATCH, "state.py", '"paging": "PAGING"', '"paging": "CODE"')
    (problem,) = problems(tmp_path, paths, folder)
    assert "state.py:14: SLOTS: paging and code have the same slot: CODE" in problem


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


def refusal(templates: Path, folder: dict[str, str]) -> str:
    write_toy(templates, made=folder)
    hypervisor = read_hypervisor(templates, "made", CPU)
    assert hypervisor.problems
    return "\n".join(map(str, hypervisor.problems))


STATE = f"templates/hypervisors/made/{CPU}/state.py"


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            '"constructor": "regs_image",',
            "",
            ":12: SINKS: regs lacks the entry 'constructor'; add, for example, \"constructor\": ",
        ),
        (
            '"shape": "keywords",',
            '"shape": "round",',
            ":5: SINKS: the shape of modes is 'round'; write, for example, \"record\" or ",
        ),
        (
            '"variable": "regs",',
            '"variable": "regs", "sort": 1,',
            ":17: SINKS: regs has the unknown entry 'sort'; the entries are operation, ",
        ),
        (
            '"variable": "regs",',
            '"varaible": "regs",',
            ":17: SINKS: regs has the unknown entry 'varaible'; did you mean variable or value? ",
        ),
        ('"variable": "regs"', '"variable": 3', ":17: SINKS: the variable of regs is 3; write"),
        ('"variable": "regs"', '"variable": "2s"', "SINKS: the variable of regs is '2s'; write"),
        ('"variable": "regs"', '"variable": unsupported("")', "of regs is unsupported(''); write"),
        ('"when": "vcpu.has_modes"', '"when": "vcpu."', ":10: SINKS: the when of modes is 'vcpu.'"),
        ('"when": "vcpu.has_modes"', '"fixed": {"a": 1}', "the fixed of modes is {'a': 1}; write"),
        (
            '"general": ("regs",',
            '"general": ("nowhere",',
            ":20: SLOTS: general names the sink nowhere, which SINKS does not have; there are modes,",
        ),
        ('"general": ("regs",', '"general": (1 + 1,', ":20: SLOTS: 1 + 1 is not a literal; use"),
        ('("modes", {"*": "*"})', '("modes",)', "SLOTS: modes is not a sink and its slots; write"),
        ('("modes", {"*": "*"})', '("modes", {"*": 1})', "SLOTS: * of modes is 1; write"),
        ('("modes", {"*": "*"})', '("modes", {"**": "*"})', "** of modes has more than one *"),
        ("CREATION_GUARANTEES = ()", "", "state.py: does not define CREATION_GUARANTEES; write"),
        (
            "CREATION_GUARANTEES = ()",
            "CREATION_GUARANTEE = ()",
            ":22: has no table CREATION_GUARANTEE; did you mean CREATION_GUARANTEES? ",
        ),
        ("CREATION_GUARANTEES = ()", "CREATION_GUARANTEES = ('a' 'b')", "is not a tuple of diff"),
        ("SINKS = {", "import os\nSINKS = {", ":2: import os is not a table; the tables are SINKS"),
        ('("segment", {"base": "base"})', '("segment",)', "the composites of modes is "),
        ('"modes": {\n', '"modes": {**OTHERS,\n', "the key ** is not a text"),
        (
            '"shape": "keywords",',
            '"shape": "keywords", "shape": "table",',
            ":5: SINKS: duplicate key 'shape'; remove one of the two",
        ),
        ("SINKS = {", "SINKS = []\nX = {", ":2: SINKS is not a dictionary; write SINKS = {"),
        ("SINKS = {", "SINKS = {{", "is not Python: "),
    ],
)
def test_a_malformed_table_is_refused(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    found = refusal(tmp_path, changed(REGISTER, "state.py", old, new))
    assert complaint in found, found
    assert found.startswith(STATE)


def test_all_that_is_malformed_is_said_at_once_with_what_is_missing(
    tmp_path: Path, paths: Project
) -> None:
    folder = changed(REGISTER, "state.py", '"shape": "keywords",', '"shape": "round",')
    folder = changed(folder, "state.py", '("modes", {"*": "*"})', '("modes", 3)')
    folder = changed(folder, "state.py", "CREATION_GUARANTEES = ()", "CREATION_GUARANTEES = 3")
    folder = changed(folder, "operations.py.j2", "macro run(", "macro runn(")
    assert [line.partition("; ")[0] for line in problems(tmp_path, paths, folder)] == [
        f"{STATE}:22: CREATION_GUARANTEES is not a tuple of different texts",
        f"{STATE}:5: SINKS: the shape of modes is 'round'",
        f"{STATE}:14: SINKS: the shape of regs is 'round'",
        f"{STATE}:20: SLOTS: modes is not a sink and its slots",
        f"{OPERATIONS}: lacks the operation run of templates/vmm_arch/protocols/{CPU}.py:12",
        f"{OPERATIONS}:2: runn is not an operation of the contract, and nothing names it",
    ]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            '"modes": ("modes", {"*": "*"})',
            '"modes": ("regs", {"*": "*"})',
            ":3: SINKS: no group is stored in the sink modes; name it in SLOTS",
        ),
        (
            '"general": ("regs", {"*": "*"})',
            '"general": ("regs", {"*": "*", "spp": "sp"})',
            ":20: SLOTS: no element of general is called spp, or an earlier pattern has it; did you",
        ),
        ("CREATION_GUARANTEES = ()", 'CREATION_GUARANTEES = ("mods",)', "group mods; did you mean"),
        (
            '"general": ("regs"',
            '"generals": ("regs", {}), "general": ("regs"',
            "there is no group generals; did you mean general? ",
        ),
        ('{"base": "base"}', '{"bass": "base"}', "SegmentValue has no part bass; did you mean bas"),
        (
            '{"SegmentValue": ("segment", ',
            '{"SegmentValues": ("segment", ',
            "modes lays out SegmentValues, of which it has none; did you mean SegmentValue? remove",
        ),
        (
            '"operation": "set_regs"',
            '"operation": "set_reg"',
            "the sink regs is written by set_reg, which is not a macro here; did you mean set_regs",
        ),
        (
            '"shape": "keywords",\n        "constructor": "regs_image",',
            '"shape": "table", "value": "struct kvm_reg", "constructor": "regs_image",',
            "the value of regs: no such record in the headers: struct kvm_reg; did you mean struct",
        ),
        (
            '"variable": "regs",',
            '"variable": "regs", "value": "struct kvm_regs",',
            "regs has a value, but is not a table; remove it",
        ),
    ],
)
def test_what_nothing_uses_and_what_there_is_not(
    tmp_path: Path, paths: Project, old: str, new: str, complaint: str
) -> None:
    found = problems(tmp_path, paths, changed(REGISTER, "state.py", old, new))
    assert any(complaint in line for line in found), found
    assert all(line.startswith(f"{STATE}:") for line in found)


def test_a_state_that_nothing_uses(tmp_path: Path, paths: Project) -> None:
    found = problems(tmp_path, paths, REGISTER, states=STATES)
    assert found == []
    more = STATES.replace("STATES = {", 'STATES = {\n    "odd": {"sp": 1},')
    (problem,) = problems(tmp_path, paths, REGISTER, states=more)
    states = f"templates/cpu/{CPU}/states.py"
    assert problem.startswith(f"{states}:3: STATES: no mode, state or arch function uses odd; ")


def test_a_template_that_asks_for_what_there_is_not(tmp_path: Path, paths: Project) -> None:
    template = f'{TEMPLATE}{{{{ plan("boots", "generals") }}}}\n'
    where = f"templates/cpu/{CPU}/functions.py.j2:4"
    assert [line.partition("see")[0] for line in problems(tmp_path, paths, REGISTER, template)] == [
        f"{where}: there is no state boots; did you mean boot? ",
        f"{where}: there is no group generals; did you mean general? ",
    ]


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


# Slots of records are paths, array elements too.

RECORD = {
    **REGISTER,
    "state.py": REGISTER["state.py"]
    .replace('"shape": "keywords",\n        "constructor": "regs_image"',
             '"shape": "record",\n        "constructor": "kvm_sregs"')
    .replace('("regs", {"*": "*"})', '("regs", {"pc": "PC_SLOT", "sp": "SP_SLOT"})'),
}  # fmt: skip


@pytest.mark.parametrize(
    ("pc", "sp", "complaint"),
    [
        ("gdt.base", "gdt.limit", None),
        ("interrupt_bitmap[0]", "interrupt_bitmap[3]", None),
        ("interrupt_bitmap[KVM_MP_STATE_HALTED]", "cr0", None),
        (
            "cr0",
            "interrupt_bitmap[4]",
            "sp: struct kvm_sregs.interrupt_bitmap has 4 elements, and 4",
        ),
        ("cr0", "interrupt_bitmap[NONE]", "sp: no such constant in the headers: NONE"),
        (
            "cr0",
            "interrupt_bitmap",
            "is an array: name an element of it, as in interrupt_bitmap[0]",
        ),
        ("cr0", "cr2[0]", "sp: struct kvm_sregs.cr2 is not an array"),
        ("cr0", "gdt", "sp: struct kvm_sregs.gdt is a record: name a member of it"),
        ("cr0", "cr2.low", "sp: struct kvm_sregs.cr2 has no members"),
        ("cr0", "cr1", "sp: struct kvm_sregs has no member cr1"),
        ("cr0", "cr[", "'cr[' is not a path of members"),
        ("interrupt_bitmap[3]", "interrupt_bitmap[KVM_MP_STATE_HALTED]", "have the same slot"),
    ],
)
def test_slots_are_paths_into_the_record(
    tmp_path: Path, paths: Project, pc: str, sp: str, complaint: str | None
) -> None:
    folder = changed(RECORD, "state.py", "PC_SLOT", pc)
    folder = changed(folder, "state.py", "SP_SLOT", sp)
    found = problems(tmp_path, paths, folder)
    assert len(found) == (complaint is not None), found
    assert complaint is None or complaint in found[0]


def test_an_element_inside_another_ones_slot(tmp_path: Path, paths: Project) -> None:
    folder = changed(BATCH, "state.py", '"paging": "PAGING"', '"paging": "CODE.Base"')
    folder = changed(folder, "state.py", '"type":', '"value": "struct kvm_segment", "type":')
    folder = changed(folder, "state.py", "Base", "base")
    (problem,) = problems(tmp_path, paths, folder)
    assert ":14: SLOTS: paging and code have the same slot: CODE.base" in problem


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"pc": "entry.address"', '"pd": 1', "boot: there is no element pd"),
        ('"pc": "entry.address"', '"pc": (1, 2, 3, 4)', "pc is a tuple; write a number or an expr"),
        (
            '"code": (16, ',
            '"code": (16, 16, ',
            "code is a SegmentValue with 5 parts; write (selecto",
        ),
        ('"paging": "PAGING_ON"', '"code": 3', "duplicate key 'code'"),
        ('"paging": "PAGING_OFF"', '"code": 3', "code is not a SegmentValue; write (selector, ba"),
        ('"pc": "entry.address"', '"pc": "entry."', "pc is 'entry.', which is not Python: inva"),
        ('"extends": "boot"', '"extends": "later"', "paged extends later"),
        ('"extends": "boot"', '"extends": {}', "paged extends {}"),
        ('{"pc": "entry.address", "paging": "PAGING_OFF"}', '"pc"', "boot is not a dictionary"),
        ('"entry.address"', '{"a": 1}', "pc is {'a': 1}, neither a number nor an expression"),
        ('INIT_KEEPS = ("modes",)', 'INIT_KEEPS = ("moods",)', "there is no group moods"),
        ('"paged": "Paged"', '"flat": "Flat"', "there is no state flat"),
        ('"paged": "Paged"', '"paged": 1', "MODES: the entry of paged is 1; write the name of"),
        ("INIT_KEEPS =", "INIT_KEPT =", "has no table INIT_KEPT; did you mean INIT_KEEPS?"),
    ],
)
def test_states_are_compared_with_the_vocabulary(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    templates = write_toy(tmp_path)
    file = templates / f"cpu/{CPU}/states.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(InputError) as refused:
        read_states(templates, CPU, read_contract(templates, CPU))
    assert complaint in str(refused.value)
    assert f"templates/cpu/{CPU}/states.py:" in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"sp": 0}', '"sp": "0"}', "the value of sp is not a number; write its value after a res"),
        ('"sp": 0}', '"sp": 0, "paging": 1}', "paging is an element of general already; give"),
        ('"sp": 0}', '"sp": (1, 2)}', "the value of sp is not a number; write its value"),
        ('"sp": 0}', '"sp": SegmentValue(1, 2)}', "sp has 2 parts; write SegmentValue(selector, b"),
        (
            '"general": {',
            '"odd": {}, "general": {',
            "the group odd is not a dictionary of elements",
        ),
    ],
)
def test_a_vocabulary_whose_values_are_none(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    templates = write_toy(tmp_path)
    file = templates / f"vmm_arch/{CPU}/vocabulary.py"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(InputError) as refused:
        read_contract(templates, CPU)
    assert f"STATE: {complaint}" in str(refused.value)
    assert re.search(rf"^templates/vmm_arch/{CPU}/vocabulary.py:\d+: ", str(refused.value))


def test_files_that_are_no_text(tmp_path: Path) -> None:
    templates = write_toy(tmp_path, made=REGISTER)
    for file in (f"hypervisors/made/{CPU}/operations.py.j2", f"hypervisors/made/{CPU}/state.py"):
        before = (templates / file).read_bytes()
        (templates / file).write_bytes(b"\xff\xfe")
        (problem,) = read_hypervisor(templates, "made", CPU).problems
        assert "cannot be read: 'utf-8' codec" in str(problem)
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
