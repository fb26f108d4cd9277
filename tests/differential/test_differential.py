"""The fixed part of differential fuzzing; what runs longer is runner.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from vmm_arch.x86_64.vocabulary import BITS

from differential.compare import Comparison, Finding, RulesError, read_rules, rules
from differential.disassembly import instruction
from differential.executors import Elements, Executor, Step
from differential.guests import DATA, Guest
from differential.pinned import PINNED
from differential.recorded import RECORDED, Player, read
from differential.runner import EXECUTORS, guest_of, shrunk
from differential.shrink import ready_to_paste

SEED = 2026
STEPS = {("kvm,unicorn", "all"): 6000, ("kvm,whp", "accesses"): 300, ("kvm,whp", "all"): 300}
"""How many steps are taken, by the executors and the kinds of instructions."""

pytestmark = pytest.mark.xdist_group("differential")


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Made(dict[str, Executor]):
    """Executors by their names, made when they are asked for: a process has one of whp at most."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __missing__(self, name: str) -> Executor:
        self[name] = executor = EXECUTORS[name]()
        self._stack.callback(executor.close)
        return executor

    def comparing(self, *names: str) -> Comparison:
        return Comparison([self[name] for name in names], RULES, instruction, BITS)


RULES = rules(BITS)
USED: set[str] = set()


@pytest.fixture(scope="module")
def made(stack: ExitStack) -> Made:
    return Made(stack)


def assert_alike(made: Made, guest: Guest, *names: str) -> None:
    """Run a guest, and fail with a ready test if there is a difference that no rule explains."""
    comparing = made.comparing(*names)
    finding = comparing.run(guest)
    USED.update(comparing.tally.used)
    assert finding is None, ready_to_paste(shrunk(finding, comparing))


@pytest.mark.parametrize(("names", "kinds"), STEPS, ids="-".join)
def test_random_guests_are_alike(names: str, kinds: str, made: Made) -> None:
    comparing = made.comparing(*names.split(","))
    number = 0
    while comparing.tally.steps < STEPS[names, kinds]:
        finding = comparing.run(guest_of(SEED, number, kinds=kinds))
        assert finding is None, ready_to_paste(shrunk(finding, comparing))
        number += 1
    USED.update(comparing.tally.used)
    assert sum(comparing.tally.compared.values()) > 0.8 * comparing.tally.steps


@pytest.mark.parametrize("name", PINNED)
def test_guests_that_were_found_are_alike_or_explained(name: str, made: Made) -> None:
    guest, *names = PINNED[name]
    assert_alike(made, guest, *names)


def test_every_rule_is_needed() -> None:
    """Run after the others: what explains nothing in them has to go, or needs a pinned guest."""
    ran = USED & {rule.name for rule in RULES}
    assert ran, "the other tests of this file were not run"
    stale = sorted({rule.name for rule in RULES if not rule.executors & NESTED} - ran)
    assert not stale


NESTED = frozenset({"kvm-amd", "kvm-intel"})


def test_recorded_guests_do_the_same_again(made: Made) -> None:
    recordings = [one for one in read(RECORDED.read_bytes()) if one.executor == "kvm"]
    player = Player(recordings)
    comparing = Comparison([player, made["kvm"]], RULES, player.instruction, BITS)
    for one in recordings:
        finding = comparing.run(one.guest)
        assert finding is None, str(finding)
    assert comparing.tally.compared["kvm and kvm"] > 1000


def test_a_guest_is_the_same_for_the_same_seed() -> None:
    assert guest_of(1, 2) == guest_of(1, 2) != guest_of(1, 3) != guest_of(2, 3)


def test_a_guest_is_printed_as_what_makes_it() -> None:
    guest = guest_of(1, 2)
    assert eval(str(guest), {"Guest": Guest}) == guest


class Mutant:
    """An executor with a fault."""

    def __init__(self, executor: Executor, fault: Callable[[Mutant, str], None]) -> None:
        self._executor = executor
        self._fault = fault
        self.name = "mutant"
        self.found: Elements = {}

    def start(self, guest: Guest) -> None:
        self._executor.start(guest)
        self._mode = guest.mode

    def step(self, following: int | None) -> Step:
        place = self._executor.elements()["rip"]
        before = instruction(self.read(place, 15), self._mode, place)
        self.result = self._executor.step(following)
        self._fault(self, before)
        return self.result

    def set(self, **elements: int) -> None:
        self._executor.adopt(elements)

    def elements(self) -> Elements:
        return self._executor.elements()

    def adopt(self, elements: Mapping[str, int]) -> None:
        self._executor.adopt(elements)

    def read(self, address: int, size: int) -> bytes:
        return self._executor.read(address, size)

    def write(self, address: int, data: bytes) -> None:
        self._executor.write(address, data)

    def close(self) -> None:
        pass


def carry_of_adc(mutant: Mutant, executed: str) -> None:
    if executed.startswith("adc "):
        mutant.set(rflags=mutant.elements()["rflags"] ^ 1)


def byte_of_mov(mutant: Mutant, executed: str) -> None:
    if executed.startswith("mov ") and (pages := mutant.result.pages):
        page = min(pages)
        mutant.write(page, bytes([mutant.read(page, 1)[0] ^ 1]))


def register_of_xchg(mutant: Mutant, executed: str) -> None:
    if executed.startswith("xchg "):
        mutant.set(rdx=mutant.elements()["rdx"] ^ 0x100)


def port_of_out(mutant: Mutant, executed: str) -> None:
    if executed.startswith("out "):
        ((kind, port, size, value),) = mutant.result.accesses
        mutant.result.accesses[:] = [(kind, port ^ 1, size, value)]


FAULTS: Mapping[str, Callable[[Mutant, str], None]] = {
    "adc": carry_of_adc,
    "mov": byte_of_mov,
    "xchg": register_of_xchg,
    "out": port_of_out,
}


@pytest.mark.parametrize("mnemonic", FAULTS)
def test_a_fault_is_found_and_shrunk(mnemonic: str, made: Made) -> None:
    mutant = Mutant(made["unicorn"], FAULTS[mnemonic])
    comparing = Comparison([made["kvm"], mutant], for_mutants(), instruction, BITS)
    finding = first_finding(comparing)
    assert finding.instruction.split()[0] == mnemonic
    small = shrunk(finding, comparing)
    assert small.instruction.split()[0] == mnemonic
    assert small.guest.steps == 1
    assert len(small.guest.code) <= 10
    assert sum(map(len, small.guest.memory.values())) <= 16
    text = ready_to_paste(small)
    assert "def test_found() -> None:" in text
    assert mnemonic in text


def for_mutants() -> list[Any]:
    """The rules, for which a mutant counts as what it is made of."""
    return [
        replace(
            rule,
            executors=(
                rule.executors | {"mutant"} if "unicorn" in rule.executors else rule.executors
            ),
        )
        for rule in RULES
    ]


def first_finding(comparing: Comparison) -> Finding:
    for number in range(400):
        if finding := comparing.run(guest_of(SEED, number, modes=("protected", "long"))):
            return finding
    raise AssertionError("nothing was found")


RULE = """
[[rule]]
name = "{name}"
kind = "{kind}"
instructions = "{instructions}"
because = "so"
source = "there"
{more}
"""


def rule(name: str = "a", kind: str = "memory", instructions: str = ".*", more: str = "") -> str:
    return RULE.format(name=name, kind=kind, instructions=instructions, more=more)


def test_wrong_rules_are_told_all_at_once() -> None:
    text = (
        rule()
        + rule()
        + rule("b", kind="magic")
        + rule("c", instructions="(")
        + rule("d", kind="undefined", more='elements = "rflags"\nbits = ["XF"]')
        + rule("e", more='elements = "rax"')
        + rule("f", more="colour = 3")
        + '[[rule]]\nname = "g"\n'
    )
    with pytest.raises(RulesError) as caught:
        read_rules(text, BITS)
    said = str(caught.value).splitlines()
    assert len(said) == 10
    for start in (
        "a: a duplicate name",
        "b: kind is one of undefined, cannot",
        "c: ",
        "d: XF is no bit of rflags",
        "e: elements are what an undefined one needs",
        "f: colour is unknown",
        "g: because is missing",
    ):
        assert any(line.startswith(start) for line in said), start


def test_a_rule_that_explains_nothing_is_told(made: Made) -> None:
    extra = read_rules(rule("never", instructions="no such instruction"), BITS)
    comparing = Comparison([made["kvm"], made["unicorn"]], extra, instruction, BITS)
    assert comparing.run(Guest("long", bytes.fromhex("90"), memory={DATA: b"\1"})) is None
    assert comparing.unused() == ["never"]
