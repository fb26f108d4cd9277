"""A machine that is saved in any exit goes on in a new machine as it would have in its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from backends import BackendUnderTest
from vmm_arch.errors import HypervisorUnavailableError, UnansweredError
from vmm_arch.exits import Halt, MmioRead, SingleStep
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.x86_64.entry import RealMode
from vmm_arch.x86_64.exits import InterruptWindow, IoIn, MsrRead, MsrWrite
from vmm_arch.x86_64.platform.memory_map import GuestMemory

CODE = 0x1000
TAIL = "40 43 e7 20 f4"
"""inc ax; inc bx; out 0x20, ax; hlt: what shows whether an instruction was executed once."""


def nothing(vcpu: Any) -> None:
    """The guest exits by itself."""


def steps(vcpu: Any) -> None:
    vcpu.step(True)


def wants_interrupts(vcpu: Any) -> None:
    vcpu.request_interrupt_window(True)


@dataclass(frozen=True)
class Case:
    """A guest that exits in one way."""

    code: str
    expected: str
    """The class of its first exit."""
    prepare: Callable[[Any], None] = nothing
    needs: tuple[str, ...] = ()
    """Operations, without which a backend has no such exit."""


CASES = {
    "out": Case("b0 05 e6 10", "IoOut"),
    "in": Case("e5 10", "IoIn"),
    # mov cx, 5; mov si, 0x1000; mov dx, 0x10; cld; rep outsb
    "rep outsb": Case("b9 05 00 be 00 10 ba 10 00 fc f3 6e", "IoOut"),
    "rep outsw": Case("b9 05 00 be 00 10 ba 10 00 fc f3 6f", "IoOut"),
    "rep outsb downwards": Case("b9 05 00 be 04 10 ba 10 00 fd f3 6e", "IoOut"),
    "rep insb": Case("b9 05 00 bf 00 30 ba 10 00 fc f3 6c", "IoIn"),
    "rep insw": Case("b9 05 00 bf 00 30 ba 10 00 fc f3 6d", "IoIn"),
    "rep insb into two pages": Case("b9 05 00 bf fe 3f ba 10 00 fc f3 6c", "IoIn"),
    "rep insb downwards": Case("b9 05 00 bf 04 30 ba 10 00 fd f3 6c", "IoIn"),
    "read": Case("a1 00 f0", "MmioRead"),
    "write": Case("a3 00 f0", "MmioWrite"),
    "add to memory": Case("01 1e 00 f0", "MmioRead"),  # which is read and written
    "read of two pages": Case("66 a1 fe ef", "MmioRead"),
    "write to two pages": Case("66 a3 fe ef", "MmioWrite"),
    "read of memory and a device": Case("66 a1 fe df", "MmioRead"),
    "write to memory and a device": Case("66 a3 fe df", "MmioWrite"),
    "add to two pages": Case("66 01 1e fe ef", "MmioRead"),
    # mov cx, 3; mov si, 0xf000; mov di, 0x3000; cld; rep movsb; and the other way round
    "rep movsb from a device": Case("b9 03 00 be 00 f0 bf 00 30 fc f3 a4", "MmioRead"),
    "rep movsb to a device": Case("b9 03 00 be 00 10 bf 00 f0 fc f3 a4", "MmioWrite"),
    "rep movsb in a device": Case("b9 03 00 be 00 f0 bf 80 f0 fc f3 a4", "MmioRead"),
    "halt": Case("f4", "Halt"),
    "step": Case("40 40", "SingleStep", steps, ("step",)),
    "step over out": Case("e6 10", "IoOut", steps, ("step",)),
    # sti; mov ecx, 200000; next: dec ecx; jnz next
    "interrupt window": Case("fb 66b9400d0300 6649 75fc", "InterruptWindow", wants_interrupts),
    # mov ecx, 0xfff; rdmsr, wrmsr
    "rdmsr": Case("66 b9 ff 0f 00 00 0f 32", "MsrRead"),
    "wrmsr": Case("66 b9 ff 0f 00 00 0f 30", "MsrWrite"),
}


def waits(exit: Any) -> bool:
    """Whether the guest cannot go on without an answer."""
    return isinstance(exit, IoIn | MmioRead | MsrRead | MsrWrite)


def answer(exit: Any, number: int) -> None:
    """Answer an exit, differently each time."""
    match exit:
        case IoIn() | MmioRead():
            size = exit.size * exit.count if isinstance(exit, IoIn) else exit.size
            exit.complete(bytes(number * 0x11 + i & 0xFF for i in range(size)))
        case MsrRead():
            exit.complete(0x1234 + number)
        case MsrWrite():
            exit.complete()


def goes_on(vcpu: Any, number: int) -> list[str]:
    """What the guest does until it halts, if its next exit is the one with this number."""
    found: list[str] = []
    while not found or found[-1] != "Halt()":
        assert len(found) < 100, f"the guest does not end: {found}"
        exit = next_exit(vcpu)
        found.append(repr(exit))
        answer(exit, number + len(found))
    return found


def next_exit(vcpu: Any) -> Any:
    """Run the guest, and have it run freely afterwards."""
    exit = vcpu.run()
    if isinstance(exit, SingleStep):
        vcpu.step(False)
    if isinstance(exit, InterruptWindow):
        vcpu.request_interrupt_window(False)
    return exit


def saved_in(exits: int, arch: AnyBackend, case: Case, prepare: Callable[[Any], object]) -> bool:
    """Save in the last of some exits, and compare what follows; False if this was the guest's last."""
    memory = GuestMemory(0xE000)  # devices from there
    memory.write(CODE, bytes.fromhex(case.code + TAIL))
    with arch.Vm(memory, prepare=prepare) as vm:
        vcpu = vm.vcpus[0]
        arch.configure_vcpu(vcpu, RealMode(CODE, rsp=0x8000))
        case.prepare(vcpu)
        for number in range(1, exits + 1):
            exit = next_exit(vcpu)
            if number == 1:
                assert type(exit).__name__ == case.expected
            if number == exits and waits(exit):
                with pytest.raises(UnansweredError, match="waits for an answer"):
                    vm.take_snapshot()
            answer(exit, number)
        try:
            snapshot = vm.take_snapshot()
        except UnansweredError as error:
            # The instruction makes more accesses: there is no state before it has made them all.
            assert "another exit is pending: call run()" in str(error)
            assert goes_on(vcpu, exits)
            return True
        last = isinstance(exit, Halt) and exits > 1
        expected = [] if last else goes_on(vcpu, exits)
        state, contents = vm.save(), memory.read(0, 0xE000)
    with snapshot, snapshot.fork(prepare=prepare) as vm:
        if exits == 1 and case.expected not in ("SingleStep", "InterruptWindow"):
            case.prepare(vm.vcpus[0])  # what the VMM asks for is no state of the guest
        assert ([] if last else goes_on(vm.vcpus[0], exits)) == expected
        found = vm.save()
        assert found == state, found.diff(state)
        assert vm.memory.read(0, 0xE000) == contents
    return not last


@pytest.mark.parametrize("name", CASES)
def test_what_follows_is_the_same_in_a_new_machine(
    arch: AnyBackend, backend: BackendUnderTest, name: str
) -> None:
    case = CASES[name]
    if missing := [operation for operation in case.needs if operation in arch.UNSUPPORTED]:
        unavailable = pytest.raises(HypervisorUnavailableError, match=missing[0])
        with arch.Vm(GuestMemory(0xE000)) as vm, unavailable:
            case.prepare(vm.vcpus[0])
        return
    exits = 1
    while saved_in(exits, arch, case, backend.ask_about_msrs):
        exits += 1
