"""Breakpoints: what is refused, what an INT3 of the guest's own does, and what thousands cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from vmm_arch.breakpoint import HardwareBreakpoint, On
from vmm_arch.exits import Breakpoint, Halt
from vmm_arch.memory import MemoryAccessError
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.selftest.x86_64.instructions import missing_instructions
from vmm_arch.x86_64.breakpoints import Breakpoints
from vmm_arch.x86_64.debug import debug_control, reached
from vmm_arch.x86_64.entry import RealMode
from vmm_arch.x86_64.exits import IoOut


@pytest.fixture
def emulated(arch: AnyBackend) -> bool:
    """Whether this is a KVM that executes INT3 by itself, where it does; nested ones intercept it."""
    with arch.GuestMemory(0x10000) as memory, arch.Vm(memory) as vm:
        memory.write(0x1000, b"\xcc\xf4")
        memory.write(4 * 3, bytes.fromhex("01 10 00 00"))  # its handler is the HLT
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000, rsp=0x8000))
        vm.vcpus[0].intercept_breakpoints(True)
        intercepted = isinstance(vm.vcpus[0].run(), Breakpoint)
    assert intercepted or "int3" in missing_instructions(arch)
    return not intercepted


@pytest.fixture
def vm(arch: AnyBackend) -> Iterator[Any]:
    with arch.GuestMemory(0x20_0000) as memory, arch.Vm(memory) as vm:
        yield vm


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0x1001, On.WRITE, 2), "address=0x1001 is not a multiple of 2"),
        ((0x1000, On.WRITE, 3), "length=3: it is 1, 2, 4 or 8 bytes"),
        ((0x1000, On.EXECUTE, 4), "length=4: for execution it is 1"),
        ((-1,), "address=-0x1 is not an unsigned 64-bit value"),
        ((0, "read"), "'read' is not a valid On"),
    ],
)
def test_a_breakpoint_that_no_processor_has_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HardwareBreakpoint(*arguments)


def test_debug_registers() -> None:
    """Intel SDM volume 3, figure 19-1."""
    four = [
        HardwareBreakpoint(0x1000),
        HardwareBreakpoint(0x2000, On.WRITE, 8),
        HardwareBreakpoint(0x3002, On.ACCESS, 2),
        HardwareBreakpoint(0x4000, On.WRITE, 4),
    ]
    assert debug_control([]) == 0
    assert debug_control(four) == 0xD790_04AA
    assert [reached(four, 1 << index) for index in range(4)] == four
    assert reached(four, 0x4000) is None
    with pytest.raises(ValueError, match="5 hardware breakpoints: there are 4"):
        debug_control([*four, four[0]])


def test_too_many_hardware_breakpoints_change_nothing(arch: AnyBackend, vm: Any) -> None:
    if "set_breakpoints" in arch.UNSUPPORTED:
        return
    vm.vcpus[0].set_breakpoints([HardwareBreakpoint(0x1000)])
    with pytest.raises(ValueError, match="5 hardware breakpoints: there are 4"):
        vm.vcpus[0].set_breakpoints([HardwareBreakpoint(0x1000)] * 5)
    vm.memory.write(0x1000, b"\xf4")
    arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
    exit = vm.vcpus[0].run()
    assert isinstance(exit, Breakpoint)
    assert (exit.pc, str(exit.hardware)) == (0x1000, "execute of 1 at 0x1000")
    assert repr(exit) == "Breakpoint(pc=0x1000, hardware=execute of 1 at 0x1000)"
    arch.reset_vcpu(vm.vcpus[0], RealMode(0x1000))  # which ends all of it
    assert isinstance(vm.vcpus[0].run(), Halt)


def test_breakpoints_outside_memory_are_refused_before_any_is_set(vm: Any) -> None:
    with Breakpoints(vm) as breakpoints:
        with pytest.raises(MemoryAccessError):
            breakpoints.add(0x1000, 1 << 40)
        assert (len(breakpoints), vm.memory.read(0x1000, 1)) == (0, b"\0")
        breakpoints.add_once([0x1000, 0x1000, 0x1001])
        assert (len(breakpoints), vm.memory.read(0x1000, 2)) == (2, b"\xcc\xcc")
        breakpoints.remove(0x1000, 0x5000)
        assert (0x1000 in breakpoints, 0x1001 in breakpoints) == (False, True)
        vm.memory.write(0x1001, b"\0")
        breakpoints.place_again()
        assert vm.memory.read(0x1000, 2) == b"\0\xcc"
    assert vm.memory.read(0x1000, 2) == b"\0\0"


@pytest.mark.parametrize("restores", [False, True], ids=["put back", "restored"])
def test_a_reset_leaves_breakpoints_set(arch: AnyBackend, restores: bool) -> None:
    """Those that are set after the snapshot as well: memory has them again when it is put back."""
    code = b"\x90" * 4 + b"\xf4"
    with arch.GuestMemory(0x10000) as memory, arch.Vm(memory, track_dirty=True) as vm:
        memory.write(0x1000, code)
        vcpu = vm.vcpus[0]
        arch.configure_vcpu(vcpu, RealMode(0x1000))
        snapshot = vm.take_snapshot()
        if restores:
            vm.take_snapshot()
        with Breakpoints(vm, halting=True) as breakpoints:
            breakpoints.add(0x1001, 0x2FFF, 0x3000)
            breakpoints.add_once([0x1002])
            for _ in range(3):
                vm.reset_to(snapshot)
                assert memory.read(0x1000, 3) == bytes.fromhex("90 f4") + (
                    b"\xf4" if 0x1002 in breakpoints else b"\x90"
                )
                assert memory.read(0x2FFF, 2) == b"\xf4\xf4"
                reached = breakpoints.run(vcpu)
                assert isinstance(reached, Breakpoint)
                assert reached.pc == 0x1001
                breakpoints.remove(0x1002)
        vm.reset_to(snapshot)
        assert memory.read(0x1000, 5) == code
        assert isinstance(vcpu.run(), Halt)


@pytest.mark.parametrize("halting", [False, True])
def test_ten_thousand_that_are_met_once(
    arch: AnyBackend, emulated: bool, vm: Any, halting: bool
) -> None:
    """A guest of NOPs: one exit for each place, and the code as it was."""
    if emulated and not halting:
        return
    code = b"\x90" * 10_000 + b"\xf4"
    vm.memory.write(0x2000, code)
    arch.configure_vcpu(vm.vcpus[0], RealMode(0x2000, rsp=0x1000))
    with Breakpoints(vm, halting=halting) as breakpoints:
        breakpoints.add_once(range(0x2000, 0x2000 + 10_000))
        assert len(breakpoints) == 10_000
        for index in range(100):
            exit = breakpoints.run(vm.vcpus[0])
            assert isinstance(exit, Breakpoint)
            assert exit.pc == 0x2000 + index
        assert len(breakpoints) == 9_900
        breakpoints.remove(*range(0x2000, 0x2000 + 10_000))
        assert isinstance(breakpoints.run(vm.vcpus[0]), Halt)
    assert vm.memory.read(0x2000, len(code)) == code


def test_the_guest_has_its_own_breakpoint(arch: AnyBackend, emulated: bool, vm: Any) -> None:
    if emulated:
        return
    vm.memory.write(4 * 3, bytes.fromhex("00 20 00 00"))
    vm.memory.write(0x2000, bytes.fromhex("b0 33 e6 11 cf"))  # mov al, 0x33; out 0x11, al; iret
    vm.memory.write(0x1000, bytes.fromhex("cc e6 12 f4"))  # int3; out 0x12, al; hlt
    arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000, rsp=0x8000))
    with Breakpoints(vm) as breakpoints:
        for port in (0x11, 0x12):
            exit = breakpoints.run(vm.vcpus[0])
            assert isinstance(exit, IoOut)
            assert (exit.port, exit.value) == (port, 0x33)
        assert isinstance(breakpoints.run(vm.vcpus[0]), Halt)


def test_hlt_that_stays_is_stepped_over_and_the_guests_own_is_a_halt(
    arch: AnyBackend, vm: Any
) -> None:
    vm.memory.write(0x1000, bytes.fromhex("40 40 f4 eb fc"))  # inc ax; inc ax; hlt; jmp to the 2nd
    arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
    with Breakpoints(vm, halting=True) as breakpoints:
        if "step" in arch.UNSUPPORTED:
            breakpoints.add_once([0x1001])
        else:
            breakpoints.add(0x1001)
        for turn in range(1, 4):
            if turn == 1 or "step" not in arch.UNSUPPORTED:
                exit = breakpoints.run(vm.vcpus[0])
                assert isinstance(exit, Breakpoint)
                regs = vm.vcpus[0].get_regs()
                assert (exit.pc, regs.rip, regs.rax) == (0x1001, 0x1001, turn)
            assert isinstance(breakpoints.run(vm.vcpus[0]), Halt)
            assert vm.vcpus[0].get_regs().rax == turn + 1
    assert vm.memory.read(0x1000, 3) == bytes.fromhex("40 40 f4")


def test_hlt_is_no_exit_with_an_irqchip(arch: AnyBackend) -> None:
    with (
        arch.GuestMemory(0x10000) as memory,
        arch.Vm(memory, irqchip=True) as vm,
        pytest.raises(ValueError, match="with an irqchip HLT is no exit; use INT3"),
    ):
        Breakpoints(vm, halting=True)
