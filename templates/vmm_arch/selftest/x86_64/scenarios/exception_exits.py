"""Chosen exceptions are exits before the guest has them: left out, or left to the guest."""

from __future__ import annotations

from vmm_arch.selftest.harness import agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64
from vmm_arch.x86_64.exits import GuestException

UNDEFINED, PAGE_FAULT = 6, 14
WRITE = 0x2
"""In a page fault's error code."""
UNMAPPED = 0x7FFF_0000_1000

MACHINE = Machine(Long64(0x10000, rsp=0x8000), operations=("intercept_exceptions",))


def scenario(guest: Guest) -> None:
    vcpu = guest.vcpu
    guest.vm.intercept_exceptions([UNDEFINED, PAGE_FAULT])
    guest.expects_out(0x10, 4, 1)
    regs = vcpu.get_regs()
    undefined, loads, stores = regs.rbp, regs.r8, regs.r9

    exit = raises(guest, UNDEFINED, undefined)
    agree("the error code of #UD", exit.error_code, None)
    agree("its instruction", exit.instruction[:2].hex(), "0f0b")
    regs = vcpu.get_regs()
    regs.rip += 2  # the guest does not have it
    vcpu.set_regs(regs)
    raises(guest, UNDEFINED, undefined).ignore()
    guest.expects_exception(UNDEFINED, at=undefined)

    guest.expects_out(0x10, 4, 2)
    exit = raises(guest, PAGE_FAULT, loads)
    agree("the error code of #PF", exit.error_code, 0)
    agree("its address", exit.cr2, UNMAPPED)
    exit.ignore()
    guest.expects_exception(PAGE_FAULT, at=loads)
    guest.expects_out(0x11, 4, UNMAPPED & 0xFFFFFFFF)  # CR2
    exit = raises(guest, PAGE_FAULT, stores)
    agree("the error code of the write", exit.error_code, WRITE)
    agree("its address", exit.cr2, UNMAPPED + 8)
    exit.ignore()
    guest.vm.intercept_exceptions([])
    guest.expects_exception(PAGE_FAULT, error=WRITE)
    guest.halts()


def raises(guest: Guest, vector: int, at: int) -> GuestException:
    match exit := guest.run():
        case GuestException() if (exit.vector, exit.rip) == (vector, at):
            return exit
    raise guest.failure(f"exception {vector} at {at:#x}", exit)
