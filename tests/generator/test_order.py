"""In which order state is read and written: what follows from rules, and rules that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy import CPU, REGISTER, write_toy
from vmm_arch_gen.arch.contract import read_contract
from vmm_arch_gen.arch.hypervisor import read_hypervisor
from vmm_arch_gen.arch.order import Rule, ordered
from vmm_arch_gen.arch.plan import plan
from vmm_arch_gen.arch.states import read_states
from vmm_arch_gen.diagnostics import InputError

STATE = f"templates/hypervisors/made/{CPU}/state.py"


def rule(first: str, second: str, verb: str = "write") -> Rule:
    return Rule(verb, first, second, "it must", "here", f"state.py:{first}")


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], "abcd"),
        ([rule("d", "a")], "bcda"),  # the rest stays as it is
        ([rule("c", "b"), rule("d", "c")], "adcb"),
        ([rule("b", "a"), rule("b", "a", "read")], "bacd"),
        ([rule("x", "a"), rule("d", "c", "read")], "abcd"),  # another step's, another verb's
    ],
)
def test_what_no_rule_orders_stays_as_in_the_table(rules: list[Rule], expected: str) -> None:
    assert "".join(ordered("write", list("abcd"), rules)) == expected


def test_rules_that_contradict_each_other_are_named() -> None:
    rules = [rule("a", "b"), rule("b", "c"), rule("c", "a"), rule("d", "a")]
    with pytest.raises(InputError) as caught:
        ordered("write", list("abcd"), rules)
    said = str(caught.value)
    assert said.startswith("state.py:")
    for named in ("write a before b", "write b before c", "write c before a"):
        assert named in said
    assert "write d before a" not in said


def made(templates: Path, order: str) -> dict[str, str]:
    write_toy(
        templates,
        made={
            **REGISTER,
            "state.py": REGISTER["state.py"].replace("ORDER = ()", f"ORDER = {order}"),
        },
    )
    return REGISTER


REASON = '"because", "where"'


def test_a_plan_follows_the_rules(tmp_path: Path) -> None:
    made(tmp_path, f'(("write modes", "after", "write regs", {REASON}),)')
    contract = read_contract(tmp_path, CPU)
    hypervisor = read_hypervisor(tmp_path, "made", CPU)
    assert not hypervisor.problems
    boot = read_states(tmp_path, CPU, contract).by_name["boot"]
    writes = plan(contract, hypervisor, boot, ["general", "modes"])
    assert [write.sink.name for write in writes] == ["regs", "modes"]


@pytest.mark.parametrize(
    ("order", "complaint"),
    [
        (
            f'(("write mode", "before", "write regs", {REASON}),)',
            "ORDER: there is no sink mode; did",
        ),
        (f'(("write regs", "before", "write regs", {REASON}),)', "regs cannot come before itself"),
        (f'(("write regs", "before", "read modes", {REASON}),)', " is not a rule; write ("),
        (f'(("write regs", "beside", "write modes", {REASON}),)', " is not a rule; write ("),
        ('(("write regs", "before", "write modes", "", "x"),)', " is not a rule; write ("),
        ('("write regs before write modes",)', " is not a rule; write ("),
        ("{}", "ORDER is not a tuple; write ORDER = ("),
        (
            f'(("write regs", "before", "write vcpus", {REASON}),)',
            "regs belongs to a vcpu and vcpus does not",
        ),
        (
            f'(("write regs", "before", "write modes", {REASON}),'
            f' ("write modes", "after", "write regs", {REASON}))',
            "write regs before modes is said twice",
        ),
        (
            f'(("write regs", "before", "write modes", {REASON}),'
            f' ("write modes", "before", "write regs", {REASON}))',
            "ORDER: the rules contradict each other: write ",
        ),
    ],
)
def test_a_rule_that_cannot_be_is_refused(tmp_path: Path, order: str, complaint: str) -> None:
    made(tmp_path, order)
    (problem,) = read_hypervisor(tmp_path, "made", CPU).problems
    assert str(problem).startswith(f"{STATE}:")
    assert complaint in str(problem)
