"""Instructions that are emulated access by access: the same on KVM, which does it in the kernel.

Each program is run on both backends with devices that answer alike; what is compared is what the
devices saw, and the memory and the registers that it left.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any

import pytest
from backends import backend_module
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vmm_arch.errors import HypervisorError, UnansweredReadError
from vmm_arch.exits import Failure, Halt, MmioRead, MmioWrite
from vmm_arch.whp.x86_64 import emulation
from vmm_arch.x86_64.entry import Protected32
from vmm_arch.x86_64.exits import IoIn, IoOut

MEMORY = 0x100000
CODE = 0x1000
DATA = 0x20000  # filled with bytes that tell their place
DEVICE = 0x200000
PORT = 0x60
HLT = b"\xf4"
RAX, RCX, RDX, RBX, RSI, RDI = 0, 1, 2, 3, 6, 7
AF = 0x10
"""Undefined after logical instructions."""


def load(register: int, value: int) -> bytes:
    """mov register, value"""
    return bytes([0xB8 + register]) + (value & 0xFFFFFFFF).to_bytes(4, "little")


def repeated(opcode: int, size: int, count: int, source: int, to: int, down: bool = False) -> bytes:
    """A repeated string instruction: its opcode for bytes, the size of an element."""
    prefix, wide = (b"\x66" if size == 2 else b""), size > 1
    return (
        load(RSI, source)
        + load(RDI, to)
        + load(RCX, count)
        + (b"\xfd" if down else b"\xfc")
        + prefix
        + bytes([0xF3, opcode + wide])
    )


MOVS, STOS, LODS, INS, OUTS = 0xA4, 0xAA, 0xAC, 0x6C, 0x6E


def memory_operand(opcode: bytes, size: int, at: int, extension: int = RAX) -> bytes:
    """An instruction on [edi], by its opcode for bytes; with EAX or an extension of the opcode."""
    prefix, wide = (b"\x66" if size == 2 else b""), size > 1
    return load(RDI, at) + prefix + opcode[:-1] + bytes([opcode[-1] + wide, extension << 3 | RDI])


@dataclass
class Devices:
    """Answer reads with bytes that never repeat soon, and write down every access."""

    ports: list[tuple[int, int, bytes]] = field(default_factory=list)
    memory: list[tuple[str, int, bytes]] = field(default_factory=list)
    said: int = 0

    def bytes(self, count: int) -> bytes:
        self.said += count
        return bytes((self.said - count + n) * 7 + 1 & 0xFF for n in range(count))

    def serve(self, exit: Any) -> None:
        """Do what an exit asks for."""
        match exit:
            case IoIn(port=port, size=size):
                data = self.bytes(size * exit.count)
                exit.complete(data)
            case IoOut(port=port, data=data):
                size = exit.size
            case MmioRead(address=address, size=size):
                data = self.bytes(size)
                exit.complete(data)
                self.memory.append(("read", address, data))
                return
            case MmioWrite(address=address, data=data):
                self.memory.append(("write", address, data))
                return
            case _:
                raise AssertionError(f"not expected: {exit}")
        # However many go through one exit.
        self.ports += [(port, size, data[at : at + size]) for at in range(0, len(data), size)]


@dataclass
class Result:
    """What a program did."""

    ports: list[tuple[int, int, bytes]]
    accesses: list[tuple[str, int, bytes]]
    memory: bytes
    registers: dict[str, int]


GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "rip")


@dataclass
class Machine:
    """A machine that runs one program after the other."""

    arch: Any
    vm: Any
    entry = Protected32(CODE, rsp=0x8000)

    def start(self, program: bytes) -> Any:
        """Give the vCPU a program, and memory its beginning."""
        memory = self.vm.memory
        memory.write(CODE, program + HLT)
        memory.write(DATA, bytes(range(256)) * 64)
        memory.write(MEMORY - 0x2000, bytes(range(256)) * 32)
        vcpu = self.vm.vcpus[0]
        self.arch.configure_system(self.vm, self.entry)
        self.arch.reset_vcpu(vcpu, self.entry)
        return vcpu

    def result(self, devices: Devices) -> Result:
        regs = self.vm.vcpus[0].get_regs()
        registers = {name: getattr(regs, name) for name in GENERAL} | {"rflags": regs.rflags & ~AF}
        memory = self.vm.memory
        seen = memory.read(DATA, 0x4000) + memory.read(MEMORY - 0x2000, 0x2000)
        return Result(devices.ports, devices.memory, seen, registers)

    def run(self, program: bytes) -> Result:
        vcpu, devices = self.start(program), Devices()
        while not isinstance(exit := vcpu.run(), Halt):
            devices.serve(exit)
        return self.result(devices)


@pytest.fixture(scope="module")
def machines() -> Iterator[list[Machine]]:
    """A machine on KVM, and one on WHP."""
    made = []
    for name in ("kvm_x86_64", "whp_x86_64"):
        arch = backend_module(name)
        made.append(Machine(arch, arch.Vm(arch.GuestMemory(MEMORY))))
    yield made
    for machine in made:
        machine.vm.close()


@pytest.fixture
def whp(machines: list[Machine]) -> Machine:
    return machines[1]


def agreed(machines: list[Machine], program: bytes) -> Result:
    """What a program does, which is the same on both."""
    on_kvm, on_whp = (machine.run(program) for machine in machines)
    assert on_whp == on_kvm
    return on_whp


# What a program does is known here; that it is the same everywhere is asserted with it.

EDGE = MEMORY - 2  # four bytes from here are half memory's, half the device's
BOTH = DEVICE + 0xFFE  # a device on both sides of a page's end


def test_a_string_from_a_device_to_memory(machines: list[Machine]) -> None:
    did = agreed(machines, repeated(MOVS, 1, 5, DEVICE, DATA))
    assert [access[:2] for access in did.accesses] == [("read", DEVICE + n) for n in range(5)]
    assert did.memory[:6] == bytes([1, 8, 15, 22, 29, 5])
    assert (did.registers["rsi"], did.registers["rdi"]) == (DEVICE + 5, DATA + 5)
    assert did.registers["rcx"] == 0


def test_a_string_from_memory_to_a_device(machines: list[Machine]) -> None:
    did = agreed(machines, repeated(MOVS, 4, 3, DATA + 8, DEVICE + 8, down=True))
    assert [access[1] for access in did.accesses] == [DEVICE + 8, DEVICE + 4, DEVICE]
    assert did.accesses[2][2] == bytes(range(4))


def test_a_string_from_a_device_to_a_device(machines: list[Machine]) -> None:
    did = agreed(machines, repeated(MOVS, 2, 2, DEVICE, DEVICE + 0x100))
    assert did.accesses == [
        ("read", DEVICE, bytes([1, 8])),
        ("write", DEVICE + 0x100, bytes([1, 8])),
        ("read", DEVICE + 2, bytes([15, 22])),
        ("write", DEVICE + 0x102, bytes([15, 22])),
    ]


@pytest.mark.parametrize("at", [EDGE, BOTH], ids=["memory and device", "device and device"])
@pytest.mark.parametrize("opcode", [b"\x88", b"\x8a", b"\x00", b"\x86"], ids=bytes.hex)
def test_an_access_across_a_pages_end(machines: list[Machine], at: int, opcode: bytes) -> None:
    did = agreed(machines, load(RAX, 0x11223344) + memory_operand(opcode, 4, at))
    reads, writes = (
        [access[1:] for access in did.accesses if access[0] == kind] for kind in ("read", "write")
    )
    places = [DEVICE + 0xFFE, DEVICE + 0x1000] if at == BOTH else [MEMORY]
    assert [place for place, _ in reads] == (places if opcode != b"\x88" else [])
    assert [place for place, _ in writes] == (places if opcode != b"\x8a" else [])


@pytest.mark.parametrize("opcode", [INS, OUTS])
def test_a_port_string_longer_than_a_page(machines: list[Machine], opcode: int) -> None:
    count = 0x1234
    did = agreed(machines, load(RDX, PORT) + repeated(opcode, 1, count, DATA, DATA))
    assert [port[:2] for port in did.ports] == [(PORT, 1)] * count
    assert did.memory[:count] == b"".join(data for _, _, data in did.ports)


def test_reading_before_writing(machines: list[Machine]) -> None:
    did = agreed(machines, load(RAX, 0x10) + memory_operand(b"\x00", 1, DEVICE))  # add [edi], al
    assert did.accesses == [("read", DEVICE, b"\x01"), ("write", DEVICE, b"\x11")]


def test_no_repetition_at_all(machines: list[Machine]) -> None:
    did = agreed(machines, repeated(MOVS, 4, 0, DEVICE, DATA))
    assert did.accesses == []
    assert did.registers["rsi"] == DEVICE


@contextmanager
def control_c(at: int) -> Iterator[list[str]]:
    """Raise KeyboardInterrupt where the ``at``th call of a Python function begins, as a signal may.

    In the package's own functions; yields the name of the one that it was. An exception in a
    callback before its first line is lost to ctypes: nobody can catch it there.
    """
    calls = 0
    interrupted: list[str] = []

    def trace(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        inside = "/vmm_arch/" in frame.f_code.co_filename and frame.f_code.co_name != "guarded"
        if event == "call" and inside and not interrupted:
            calls += 1
            if calls == at:
                interrupted.append(frame.f_code.co_name)
                raise KeyboardInterrupt

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield interrupted
    finally:
        sys.settrace(before)


def interrupted_run(machine: Machine, program: bytes, at: int) -> tuple[Result, list[str]]:
    """Run a program with one KeyboardInterrupt, after which the same thing is tried again."""
    vcpu, devices = machine.start(program), Devices()
    with control_c(at) as interrupted:
        while True:
            try:
                exit = vcpu.run()
            except KeyboardInterrupt:
                continue
            if isinstance(exit, Halt):
                break
            said = devices.said
            try:
                devices.serve(exit)
            except KeyboardInterrupt:
                devices.said = said
                devices.serve(exit)
            with suppress(UnansweredReadError, KeyboardInterrupt):
                vcpu.get_regs()
    return machine.result(devices), interrupted


INTERRUPTED = [
    repeated(MOVS, 1, 2, DEVICE, DATA),
    repeated(MOVS, 4, 2, DEVICE, BOTH),
    load(RDX, PORT) + repeated(OUTS, 1, 3, DATA, DATA),
    load(RDX, PORT) + repeated(INS, 2, 2, DATA, BOTH),
    load(RAX, 0x1234) + memory_operand(b"\x00", 4, EDGE),
    memory_operand(b"\xf6", 4, BOTH, 3),
    load(RAX, 7) + b"\xe6\x60\xe4\x61",  # out 0x60, al; in al, 0x61
]
interrupted_programs = pytest.mark.parametrize("program", INTERRUPTED, ids=bytes.hex)


@interrupted_programs
def test_an_exception_anywhere_loses_nothing_and_does_nothing_twice(
    whp: Machine, program: bytes
) -> None:
    wanted = whp.run(program)
    for at in range(1, 1000):
        result, interrupted = interrupted_run(whp, program, at)
        assert result == wanted, interrupted
        if not interrupted:
            break
    assert at > 5


@pytest.mark.parametrize("where", ["before", "behind"])
@interrupted_programs
def test_an_exception_at_any_call_of_the_platform(
    whp: Machine, program: bytes, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = whp.run(program)
    calls = failing = 0

    def watched(real: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != failing:
            return real(*arguments)
        if where == "behind":
            real(*arguments)
        raise KeyboardInterrupt

    while failing <= calls:
        vcpu, devices = whp.start(program), Devices()
        failing, calls = failing + 1, 0
        with monkeypatch.context() as patch:
            for library, name in (
                (whp.arch.platform, "WHvRunVirtualProcessor"),
                (whp.arch.platform, "WHvSetVirtualProcessorRegisters"),
                (emulation.EMULATOR, "WHvEmulatorTryMmioEmulation"),
                (emulation.EMULATOR, "WHvEmulatorTryIoEmulation"),
            ):
                patch.setattr(library, name, partial(watched, getattr(library, name)))
            while True:
                with suppress(KeyboardInterrupt):
                    if isinstance(exit := vcpu.run(), Halt):
                        break
                    devices.serve(exit)
        assert whp.result(devices) == wanted, failing
    assert failing > 3


def test_a_read_without_an_answer_is_named_and_waits(whp: Machine) -> None:
    vcpu = whp.start(repeated(MOVS, 1, 2, DEVICE, DATA))
    read = vcpu.run()
    for use in (vcpu.run, vcpu.save, lambda: vcpu.set_msrs({})):
        with pytest.raises(UnansweredReadError, match="vCPU 0: the guest waits"):
            use()
    assert vcpu.get_regs().rcx == 2
    read.complete(0x77)
    with pytest.raises(UnansweredReadError, match=r"another exit is pending: call run\(\)"):
        vcpu.get_regs()
    second = vcpu.run()
    assert (second.address, second.size) == (DEVICE + 1, 1)
    second.ignore()
    assert isinstance(vcpu.run(), Halt)
    assert whp.vm.memory.read(DATA, 3) == b"\x77\xff\x02"


@pytest.mark.parametrize("instruction", ["ff37", "ff17"], ids=["push", "call"])
def test_an_instruction_that_the_emulator_cannot_do_is_a_failure(
    whp: Machine, instruction: str
) -> None:
    vcpu = whp.start(load(RDI, DEVICE) + bytes.fromhex(instruction))
    failure = vcpu.run()
    assert isinstance(failure, Failure)
    assert failure.operation == "WinHvEmulation"
    assert failure.instruction.startswith(bytes.fromhex(instruction))
    beginning = failure.instruction.hex(" ")
    expected = f"InternalEmulationFailure: the instruction begins with {beginning}"
    assert failure.message == expected
    with pytest.raises(HypervisorError, match=failure.message):
        failure.ignore()
    assert vcpu.get_regs().rip == CODE + 5  # it is still before it


def test_what_the_emulator_cannot_do_later_is_a_failure_of_the_next_run(
    whp: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State is asked for in between, which already tries the next repetition."""
    vcpu = whp.start(repeated(MOVS, 1, 2, DATA, DEVICE))
    assert isinstance(vcpu.run(), MmioWrite)

    def failing(*_: Any) -> Any:
        raise HypervisorError("WHvEmulatorTryMmioEmulation", "E_FAIL", "as if")

    with monkeypatch.context() as patch:
        patch.setattr(emulation.EMULATOR, "WHvEmulatorTryMmioEmulation", failing)
        with pytest.raises(UnansweredReadError, match=r"call run\(\)"):
            vcpu.get_regs()
        failure = vcpu.run()
    assert isinstance(failure, Failure)
    assert "E_FAIL: as if" in failure.message


in_memory = st.integers(DATA + 0x200, DATA + 0x1000)
places = st.one_of(
    in_memory,
    st.integers(MEMORY - 12, MEMORY + 12),
    st.integers(DEVICE + 0xFF0, DEVICE + 0x1010),
)
sizes = st.sampled_from([1, 2, 4])
values = st.integers(0, 0xFFFFFFFF)
strings = st.builds(
    lambda port, value, string: load(RDX, port) + load(RAX, value) + string,
    st.just(PORT),
    values,
    st.one_of(
        st.builds(
            repeated,
            st.sampled_from([MOVS, STOS, LODS, OUTS]),
            sizes,
            st.integers(0, 9),
            places,
            places,
            st.booleans(),
        ),
        # KVM writes what it has read of a port at once: to memory, that is the same.
        st.builds(
            repeated, st.just(INS), sizes, st.integers(0, 9), st.just(0), in_memory, st.booleans()
        ),
    ),
)
operands = st.builds(
    lambda value, instruction: load(RAX, value) + instruction,
    values,
    st.one_of(
        # add, or, adc, sbb, and, sub, xor, cmp; test, xchg, mov both ways
        st.builds(
            memory_operand,
            st.sampled_from([bytes([n]) for n in [*range(0, 0x40, 8), 0x84, 0x86, 0x88, 0x8A]]),
            sizes,
            places,
        ),
        # not, neg; inc, dec; movzx, movsx; xadd
        st.builds(memory_operand, st.just(b"\xf6"), sizes, places, st.sampled_from([2, 3])),
        st.builds(memory_operand, st.just(b"\xfe"), sizes, places, st.sampled_from([0, 1])),
        st.builds(
            memory_operand,
            st.sampled_from([b"\x0f\xb6", b"\x0f\xbe", b"\x0f\xc0"]),
            st.sampled_from([1, 4]),
            places,
        ),
    ),
)
programs = st.lists(st.one_of(strings, operands), min_size=1, max_size=4).map(b"".join)


@given(programs)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_program_does_the_same(machines: list[Machine], program: bytes) -> None:
    agreed(machines, program)
