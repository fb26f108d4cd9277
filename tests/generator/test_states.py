"""The vocabulary of state, and the named states over it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from toy import CPU, REGISTER, STATES, write_toy
from toy_folder import problems
from vmm_arch_gen.arch.contract import read_contract
from vmm_arch_gen.arch.states import read_states
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.project import Project


def test_a_state_that_nothing_uses(tmp_path: Path, paths: Project) -> None:
    found = problems(tmp_path, paths, REGISTER, states=STATES)
    assert found == []
    more = STATES.replace("STATES = {", 'STATES = {\n    "odd": {"sp": 1},')
    (problem,) = problems(tmp_path, paths, REGISTER, states=more)
    states = f"templates/cpu/{CPU}/states.py"
    assert problem.startswith(f"{states}:3: STATES: no mode, state or arch function uses odd; ")


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
