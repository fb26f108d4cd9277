"""CPUID of chosen leaves is an exit, which is answered, or left to the vCPU's own entry."""

from __future__ import annotations

from vmm_arch.selftest.harness import agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.cpuid import CpuidEntry
from vmm_arch.x86_64.entry import Long64
from vmm_arch.x86_64.exits import Cpuid

LEAF = 0x4000_0000


def named(supported: list[CpuidEntry]) -> list[CpuidEntry]:
    others = [entry for entry in supported if entry.function != LEAF]
    return [*others, CpuidEntry(LEAF, None, eax=LEAF, ebx=1, ecx=2, edx=3)]


MACHINE = Machine(Long64(0x10000), cpuid=named, operations=("intercept_cpuid",))


def scenario(guest: Guest) -> None:
    guest.vm.intercept_cpuid([LEAF])
    exit = asks(guest)
    agree("the subleaf", exit.index, 3)
    exit.complete(0x11, 0x22, 0x33, 0xFFFFFFFF)
    sends(guest, 0x11, 0x22, 0x33, 0xFFFFFFFF)
    asks(guest).ignore()
    sends(guest, LEAF, 1, 2, 3)
    version = next(e.eax for e in guest.arch.supported_cpuid() if e.function == 1)
    guest.expects_out(0x10, 4, version)
    guest.halts()


def asks(guest: Guest) -> Cpuid:
    match exit := guest.run():
        case Cpuid() if exit.function == LEAF:
            return exit
    raise guest.failure(f"CPUID of {LEAF:#x}", exit)


def sends(guest: Guest, *values: int) -> None:
    for port, value in enumerate(values, 0x10):
        guest.expects_out(port, 4, value)
