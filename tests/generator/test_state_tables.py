"""SINKS and SLOTS: what is malformed, missing, impossible or unused in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy import BATCH, CPU, REGISTER
from toy_folder import OPERATIONS, STATE, changed, problems, refusal
from vmm_arch_gen.project import Project


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


def test_two_elements_in_one_slot(tmp_path: Path, paths: Project) -> None:
    folder = changed(BATCH, "state.py", '"paging": "PAGING"', '"paging": "CODE"')
    (problem,) = problems(tmp_path, paths, folder)
    assert "state.py:14: SLOTS: paging and code have the same slot: CODE" in problem


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
        (
            '"variable": "regs"',
            '"variable": "regs", "kind": "timer"',
            "SINKS: the kind of regs is 'timer'; write, for example, \"clock\"",
        ),
        (
            '"variable": "regs"',
            '"variable": "regs", "ticks": {"tsc": "1 +"}',
            "SINKS: the ticks of regs is {'tsc': '1 +'}; write, for example, {\"tsc\": ",
        ),
        (
            '"variable": "regs"',
            '"variable": "regs", "resets": "reset it"',
            "SINKS: the resets of regs is 'reset it'; write, for example, \"reset_regs\", ",
        ),
        (
            '"variable": "regs"',
            '"variable": "regs", "prepares": "bytes("',
            "SINKS: the prepares of regs is 'bytes('; write, for example, \"bytearray(fpu)\"",
        ),
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
