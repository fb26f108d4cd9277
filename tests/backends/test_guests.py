"""Guests on every backend that this machine can run: each one plays its scenario."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from guests.assemble import CPUS, AssemblyError, assemble, assembled, code_file, code_module
from vmm_arch.errors import ClosedError
from vmm_arch.selftest.harness import ScenarioFailed, play
from vmm_arch.selftest.play import Suite
from vmm_arch.selftest.x86_64.harness import AnyBackend, Guest, Machine
from vmm_arch.selftest.x86_64.instructions import missing_instructions
from vmm_arch.x86_64.entry import Long64, RealMode

SUITE = Suite("x86_64")


@pytest.mark.parametrize("name", SUITE.names)
def test_guest(arch: AnyBackend, name: str) -> None:
    """A hypervisor that emulates instructions leaves some guests out; nested machines play them all."""
    (outcome,) = SUITE.play(arch, [name])
    assert not outcome.failure, outcome.failure
    if outcome.lacking:
        lacking = missing_instructions(arch)
        machine = SUITE.scenario(name).MACHINE
        assert isinstance(machine, Machine)
        unsupported = machine.operations and arch.UNSUPPORTED.keys() & machine.operations
        instructions = machine.every_instruction and lacking
        assert instructions or machine.features or unsupported, outcome.lacking


@pytest.mark.parametrize("cpu", CPUS)
def test_the_code_of_the_guests_is_what_their_sources_say(cpu: str) -> None:
    module = code_file(cpu).read_text(encoding="utf-8")
    assert module == code_module(cpu, assembled(cpu)), "run tests/guests/assemble.py"


# The harness itself: what does not keep to its scenario fails, and says how.


@dataclass(frozen=True)
class Small:
    """A scenario without files."""

    MACHINE: Machine
    scenario: Callable[[Guest], None]


REAL_MODE = Machine(RealMode(0x1000))
SENDS_AND_HALTS = bytes.fromhex("b0 28 e6 11 f4")  # mov al, 0x28; out 0x11, al; hlt
ASKS_AND_HALTS = bytes.fromhex("e4 10 f4")  # in al, 0x10; hlt
SPINS = bytes.fromhex("eb fe")  # jmp to itself


def failure(arch: AnyBackend, scenario: Small, code: bytes) -> str:
    with pytest.raises(ScenarioFailed) as caught:
        play(arch, scenario, code)
    return str(caught.value)


def test_another_exit_than_expected_is_named_with_its_place(arch: AnyBackend) -> None:
    said = failure(arch, Small(REAL_MODE, lambda guest: guest.halts()), SENDS_AND_HALTS)
    assert said == (
        "expected a halt, but vCPU 0 returned IoOut(port=0x11, data=b'(', size=1), value"
        " 0x28; RIP is now 0x1004 (code +0x4), next bytes f4 00 00 00 00 00 00 00"
    )


def test_a_read_that_nobody_expected_is_named_with_its_place(arch: AnyBackend) -> None:
    said = failure(arch, Small(REAL_MODE, lambda guest: guest.halts()), ASKS_AND_HALTS)
    assert said.startswith("expected a halt, but vCPU 0 returned IoIn(port=0x10, size=1, count=")
    assert "RIP is now 0x1000 (code +0x0)" in said


def test_another_value_than_expected_is_named(arch: AnyBackend) -> None:
    said = failure(
        arch, Small(REAL_MODE, lambda guest: guest.expects_out(0x11, 1, 0x29)), SENDS_AND_HALTS
    )
    assert said.startswith("expected OUT of 1 to port 0x11 with 0x29, but vCPU 0 returned")


def test_registers_that_differ_are_named(arch: AnyBackend) -> None:
    said = failure(
        arch, Small(REAL_MODE, lambda guest: guest.has_registers(rax=0, rbx=1, rcx=2)), SPINS
    )
    assert said == "registers: expected rbx 0x1, rcx 0x2, found rbx 0x0, rcx 0x0"


def test_memory_that_differs_is_shown(arch: AnyBackend) -> None:
    said = failure(
        arch, Small(REAL_MODE, lambda guest: guest.has_memory(0x1000, b"\xeb\xff")), SPINS
    )
    assert said == "memory at 0x1000: expected eb ff, found eb fe"


def test_a_guest_that_never_exits_is_stopped(arch: AnyBackend) -> None:
    impatient = Machine(RealMode(0x1000), patience=0.2)
    said = failure(arch, Small(impatient, lambda guest: guest.halts()), SPINS)
    assert said.startswith("the scenario did not end within 0.2 s: vCPU 0 returned Kicked()")
    assert "RIP is now 0x1000" in said


def test_a_kick_that_never_comes_is_not_waited_for(arch: AnyBackend) -> None:
    impatient = Machine(RealMode(0x1000), patience=0.2)
    said = failure(arch, Small(impatient, lambda guest: guest.is_kicked(lambda: False)), SPINS)
    assert said.startswith("the scenario did not end within 0.2 s")


def test_one_vcpu_that_fails_ends_the_others(arch: AnyBackend) -> None:
    def scenario(guest: Guest) -> None:
        guest.together(guest.shuts_down, guest.on(1).halts)  # nobody ever starts the second

    said = failure(
        arch, Small(Machine(Long64(0x10000), vcpus=2, irqchip=True), scenario), SENDS_AND_HALTS
    )
    assert said.startswith("expected a shutdown, but vCPU 0 returned IoOut(port=0x11")


def test_the_machine_is_closed_whatever_happens(arch: AnyBackend) -> None:
    guests = []

    def scenario(guest: Guest) -> None:
        guests.append(guest)
        guest.shuts_down()

    failure(arch, Small(REAL_MODE, scenario), SENDS_AND_HALTS)
    with pytest.raises(ClosedError):
        guests[0].vcpu.get_regs()
    assert guests[0].memory.closed


# The assembler.


def test_symbols_are_absolute_in_code_of_every_width(tmp_path: Path) -> None:
    source = tmp_path / "guest.S"
    source.write_text("""
        .intel_syntax noprefix
        .code16
        mov ax, [data]
        .code32
        mov eax, [data]
        .code64
        mov eax, [data]
        mov eax, [rip + data]
    data:
        .byte 0xd
    """)
    assert assemble(source, 0x1000) == bytes.fromhex(
        "a1 15 10" "a1 15 10 00 00" "8b 04 25 15 10 00 00" "8b 05 00 00 00 00" "0d"
    )


def test_what_cannot_be_assembled_is_named_by_file_and_line(tmp_path: Path) -> None:
    source = tmp_path / "guest.S"
    source.write_text(".intel_syntax noprefix\nmov eax, nothing here\n")
    with pytest.raises(AssemblyError, match=r"guest\.S:2:\d+: error: "):
        assemble(source, 0x1000)


def test_a_symbol_beyond_16_bits_is_refused_in_16_bit_code(tmp_path: Path) -> None:
    source = tmp_path / "guest.S"
    source.write_text(".intel_syntax noprefix\n.code16\nhere: mov ax, [here]\n")
    with pytest.raises(AssemblyError, match="R_X86_64_16 out of range"):
        assemble(source, 0x12345)
