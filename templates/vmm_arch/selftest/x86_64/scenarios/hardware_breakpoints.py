"""Breakpoints of the processor: for execution, writes, and accesses."""

from __future__ import annotations

from vmm_arch.breakpoint import HardwareBreakpoint, On
from vmm_arch.exits import Breakpoint, SingleStep
from vmm_arch.selftest.harness import agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(
    Long64(0x10000, rsp=0x8000), every_instruction=True, operations=("set_breakpoints", "step")
)


def scenario(guest: Guest) -> None:
    guest.expects_values(0x10, 1)
    vcpu, at = guest.vcpu, guest.vcpu.get_regs().rbx
    executed = HardwareBreakpoint(at)
    written = HardwareBreakpoint(0x3000, On.WRITE, 4)
    accessed = HardwareBreakpoint(0x3010, On.ACCESS, 4)

    vcpu.set_breakpoints([written, executed])
    stops(guest, executed, at)
    vcpu.set_breakpoints([written])
    vcpu.step(True)  # over the instruction
    agree("the exit after a step", type(guest.run()), SingleStep)
    vcpu.step(False)
    vcpu.set_breakpoints([written, executed])
    stops(guest, executed, at)
    vcpu.set_breakpoints([written, accessed])
    stops(guest, written)
    guest.has_memory(0x3000, b"\7")
    stops(guest, accessed)
    stops(guest, accessed)
    vcpu.set_breakpoints([])
    guest.expects_values(0x10, 2)
    guest.halts()


def stops(guest: Guest, expected: HardwareBreakpoint, pc: int | None = None) -> None:
    exit = guest.run()
    if not isinstance(exit, Breakpoint) or exit.hardware != expected:
        raise guest.failure(f"the breakpoint for {expected}", exit)
    if pc is not None:
        agree("where it stops", exit.pc, pc)
