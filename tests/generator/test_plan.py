"""From wanted state to calls: what the planner promises, and the statements that come out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from toy import BATCH, CPU, REGISTER, write_toy
from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.arch.contract import read_contract
from vmm_arch_gen.arch.hypervisor import read_hypervisor
from vmm_arch_gen.arch.plan import Parts, Write, plan
from vmm_arch_gen.arch.states import known_at_run_time, read_states
from vmm_arch_gen.arch.vocabulary import CompositeType
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.generate.arch_functions import Emitter
from vmm_arch_gen.generate.render import Templates
from vmm_arch_gen.project import Project

Planned: TypeAlias = tuple[Write, ...]
Plan: TypeAlias = Callable[..., Planned]


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    return write_toy(tmp_path, register=REGISTER, batch=BATCH)


@pytest.fixture
def planned(templates: Path) -> Plan:
    def of(hypervisor: str, state: str, *groups: str) -> Planned:
        contract = read_contract(templates, CPU)
        states = read_states(templates, CPU, contract)
        folder = read_hypervisor(templates, hypervisor, CPU)
        return plan(contract, folder, states.by_name[state], groups)

    return of


@pytest.fixture
def emitter(templates: Path, paths: Project) -> Callable[[str], Emitter]:
    contract = read_contract(templates, CPU)
    states = read_states(templates, CPU, contract)
    abi = read_abi_file(paths.abi / "kvm_x86_64.abi")

    def of(hypervisor: str) -> Emitter:
        operations = f"hypervisors/{hypervisor}/{CPU}/operations.py.j2"
        folder = read_hypervisor(templates, hypervisor, CPU)

        def inline(operation: str, *arguments: str) -> str:
            return Templates(templates).macro(operations, operation, *arguments)

        return Emitter(contract, states, folder, abi, inline)

    return of


def segment(*values: int) -> Parts:
    return Parts(CompositeType("SegmentValue", ("selector", "base", "limit", "attributes")), values)


def test_wanting_one_element_writes_its_whole_group(planned: Plan) -> None:
    (write,) = planned("register", "boot", "general")
    assert write.constants == {"sp": 0}  # not wanted: its value after a reset
    assert write.filled_in == {"pc": "entry.address"}


def test_groups_that_nobody_asks_for_are_not_written(planned: Plan) -> None:
    assert [write.sink.name for write in planned("register", "boot", "modes")] == ["modes"]
    assert planned("register", "boot") == ()


def test_each_call_is_made_once_in_the_order_of_the_table(planned: Plan) -> None:
    writes = planned("register", "boot", "general", "modes")
    assert [write.sink.name for write in writes] == ["modes", "regs"]


def test_a_hypervisor_that_takes_everything_at_once_is_called_once(planned: Plan) -> None:
    (write,) = planned("batch", "boot", "general", "modes")
    assert write.constants == {"CODE": segment(8, 0, 0xFFFF, 0x9B), "PAGING": "PAGING_OFF"}
    assert write.filled_in == {"PC": "entry.address"}


def test_what_a_hypervisor_declares_unsupported_is_left_out(planned: Plan) -> None:
    (write,) = planned("batch", "boot", "general")
    assert not write.constants.keys() & {"sp", "SP"}


def test_a_part_of_a_segment_is_filled_in_its_member(planned: Plan) -> None:
    (write,) = planned("batch", "paged", "modes")
    assert write.constants["CODE"] == segment(16, 0, 0xFFFF, 0x9B)
    assert write.filled_in == {"CODE.Base": "entry.base"}


def test_a_state_has_what_the_state_that_it_extends_has(planned: Plan) -> None:
    (write,) = planned("register", "paged", "general")
    assert write.filled_in == {"pc": "entry.address"}


@pytest.mark.parametrize("expression", ["entry.address", "vcpu.index << 24", "X | entry.flags"])
def test_expressions_over_what_is_known_at_run_time(expression: str) -> None:
    assert known_at_run_time(expression)


@pytest.mark.parametrize("constant", [0, 0x1F80, "PAGING_ON", "A | B"])
def test_constants_are_numbers_and_names_in_capitals(constant: int | str) -> None:
    assert not known_at_run_time(constant)


def test_constants_are_laid_out_once_and_others_filled_into_a_copy(
    emitter: Callable[[str], Emitter],
) -> None:
    batch = emitter("batch")
    assert batch.reset("paged").splitlines() == [
        "values = Table.from_buffer_copy(_PAGED_ALL)",
        "values[PC] = entry.address",
        "values[CODE].Base = entry.base",
        "write(vcpu, values)",
    ]
    assert batch.images() == [
        "_GENERAL = table({PC: 0})",  # a table has a place for what is filled in
        "_PAGED_MODES = table({CODE: segment(0x10, 0, 0xFFFF, 0x9B), PAGING: PAGING_ON})",
        "_PAGED_ALL = _GENERAL | _PAGED_MODES",
    ]


def test_a_call_with_constants_only_writes_the_image_itself(
    emitter: Callable[[str], Emitter],
) -> None:
    register = emitter("register")
    assert register.plan("boot", "modes") == "write(vcpu.fd, MODES, _MODES)"
    image = "modes_image(code=segment(8, 0, 0xFFFF, 0x9B), paging=PAGING_OFF)"
    assert register.images() == [f"_MODES = {image}"]


def test_states_that_write_the_same_share_an_image(emitter: Callable[[str], Emitter]) -> None:
    register = emitter("register")
    assert register.plan("paged", "general") == register.plan("boot", "general")
    assert len(register.images()) == 1


def test_configure_leaves_out_what_creation_guarantees_and_reset_nothing(
    emitter: Callable[[str], Emitter],
) -> None:
    batch = emitter("batch")
    batch.configure("boot")
    assert batch.images() == ["_GENERAL = table({PC: 0})"]  # "modes" are guaranteed
    batch.reset("boot")
    assert batch.images()[1:] == [
        "_MODES = table({CODE: segment(8, 0, 0xFFFF, 0x9B), PAGING: PAGING_OFF})",
        "_ALL = _GENERAL | _MODES",
    ]


def test_slots_that_are_members_make_one_value_and_are_filled_in_one_by_one(
    templates: Path, emitter: Callable[[str], Emitter]
) -> None:
    state = templates / f"hypervisors/batch/{CPU}/state.py"
    members = '"pc": "GDTR.gdt.base", "sp": "GDTR.gdt.limit"'
    text = state.read_text().replace('"pc": "PC", "sp": unsupported("it has no stack")', members)
    text = text.replace('"PAGING"', '"SREGS.cr0"')
    state.write_text(
        text.replace('"shape": "table",', '"shape": "table", "value": "struct kvm_sregs",')
    )
    assert emitter("batch").plan("boot", "general").splitlines() == [
        "values = Table.from_buffer_copy(_GENERAL)",
        "values[GDTR].gdt.base = entry.address",
        "write(vcpu, values)",
    ]
    batch = emitter("batch")
    batch.plan("boot", "modes")
    code = "CODE: segment(8, 0, 0xFFFF, 0x9B)"
    assert batch.images() == [f"_MODES = table({{{code}, SREGS: kvm_sregs(cr0=PAGING_OFF)}})"]


def test_a_group_that_there_is_not(planned: Plan) -> None:
    with pytest.raises(InputError, match="there is no group generals"):
        planned("register", "boot", "generals")


def test_what_cannot_be_filled_in_at_run_time_is_refused(templates: Path, planned: Plan) -> None:
    states = templates / f"cpu/{CPU}/states.py"
    states.write_text(states.read_text().replace("(16, ", '("entry.selector", '))
    with pytest.raises(InputError, match="the selector of code is filled in at run time; say in"):
        planned("batch", "paged", "modes")


def test_state_that_not_every_machine_has_is_written_where_it_is(
    emitter: Callable[[str], Emitter],
) -> None:
    register = emitter("register")
    assert register.configure("boot").splitlines()[:2] == [
        "if vcpu.has_modes:",
        "    write(vcpu.fd, MODES, _MODES)",
    ]
    # Who asks for this state alone wants an error where there is none.
    assert "if" not in register.plan("boot", "modes")


RECORD = """
SINKS = {
    "all": {
        "operation": "set_regs",
        "shape": "record",
        "constructor": "RECORD",
        "variable": "regs",
        "composites": {"SegmentValue": ("segment", {"base": "base"})},
    },
}
SLOTS = {
    "general": ("all", {"pc": "PC_SLOT", "sp": "SP_SLOT"}),
    "modes": ("all", {"code": "CODE_SLOT", "paging": "PAGING_SLOT"}),
}
CREATION_GUARANTEES = ()
"""


@pytest.mark.parametrize(
    ("state", "record", "slots", "image", "filled_in"),
    [
        (
            "boot",
            "kvm_sregs",
            ("interrupt_bitmap[1]", "interrupt_bitmap[3]", "cs", "cr0"),
            "kvm_sregs(cs=segment(8, 0, 0xFFFF, 0x9B), cr0=PAGING_OFF)",
            "regs.interrupt_bitmap[1] = entry.address",
        ),
        (
            "boot",
            "kvm_sregs",
            ("cr2", "cr3", "cs", "interrupt_bitmap[KVM_MP_STATE_INIT_RECEIVED]"),
            "kvm_sregs(cs=segment(8, 0, 0xFFFF, 0x9B), interrupt_bitmap=(0, 0, PAGING_OFF))",
            "regs.cr2 = entry.address",
        ),
        (
            "boot",
            "kvm_xcrs",
            ("flags", "nr_xcrs", "xcrs[2].value", "xcrs[1].xcr"),
            "kvm_xcrs(xcrs=(kvm_xcr(), kvm_xcr(xcr=PAGING_OFF),"
            " kvm_xcr(value=segment(8, 0, 0xFFFF, 0x9B))))",
            "regs.flags = entry.address",
        ),
    ],
)
def test_elements_of_arrays_are_slots(
    templates: Path,
    emitter: Callable[[str], Emitter],
    state: str,
    record: str,
    slots: tuple[str, str, str, str],
    image: str,
    filled_in: str,
) -> None:
    text = RECORD.replace("RECORD", record)
    for name, slot in zip(("PC", "SP", "CODE", "PAGING"), slots, strict=True):
        text = text.replace(f"{name}_SLOT", slot)
    (templates / f"hypervisors/register/{CPU}/state.py").write_text(text)
    made = emitter("register")
    assert made.plan(state, "general", "modes").splitlines() == [
        f"regs = {record}.from_buffer_copy(_ALL)",
        filled_in,
        "write(vcpu.fd, REGS, regs)",
    ]
    assert made.images() == [f"_ALL = {image}"]
