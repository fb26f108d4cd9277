"""Accesses to chosen MSRs are exits: answered, passed on to the vCPU's own MSR, or refused."""

from __future__ import annotations

from typing import Any

from vmm_arch.selftest.harness import agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64
from vmm_arch.x86_64.exits import MsrRead, MsrWrite
from vmm_arch.x86_64.msr import IA32_LSTAR, IA32_PAT, IA32_STAR

NOBODYS = 0x12345678
PAT_AFTER_RESET = 0x0007040600070406


def intercept(vm: Any) -> None:
    vm.intercept_msrs(reads=[IA32_LSTAR, IA32_STAR], writes=[IA32_LSTAR, IA32_STAR], unknown=True)


MACHINE = Machine(Long64(0x10000, rsp=0x8000), prepare=intercept)


def scenario(guest: Guest) -> None:
    vcpu = guest.vcpu
    asks(guest, IA32_LSTAR).complete(0x1122334455667788)
    guest.expects_out(0x10, 4, 0x55667788)
    guest.expects_out(0x10, 4, 0x11223344)
    writes(guest, IA32_LSTAR, 0x6_0000_0005).complete()
    agree("an MSR whose write was only answered", vcpu.get_msrs([IA32_LSTAR]), {IA32_LSTAR: 0})
    passed = writes(guest, IA32_LSTAR, 0x6_0000_0007)
    passed.complete()
    vcpu.set_msrs({IA32_LSTAR: passed.value})
    agree("an MSR that was passed on", vcpu.get_msrs([IA32_LSTAR]), {IA32_LSTAR: 0x6_0000_0007})
    writes(guest, IA32_STAR, 0x6_0000_0007).refuse()
    guest.expects_exception(13)
    guest.expects_out(0x10, 4, PAT_AFTER_RESET & 0xFFFFFFFF)  # which is no exit
    agree("an MSR that was not asked for", vcpu.get_msrs([IA32_PAT]), {IA32_PAT: PAT_AFTER_RESET})
    asks(guest, NOBODYS).refuse()
    guest.expects_exception(13)
    guest.halts()


def asks(guest: Guest, index: int) -> MsrRead:
    match exit := guest.run():
        case MsrRead() if exit.index == index:
            return exit
    raise guest.failure(f"a read of MSR {index:#x}", exit)


def writes(guest: Guest, index: int, value: int) -> MsrWrite:
    match exit := guest.run():
        case MsrWrite() if (exit.index, exit.value) == (index, value):
            return exit
    raise guest.failure(f"a write of MSR {index:#x} with {value:#x}", exit)
