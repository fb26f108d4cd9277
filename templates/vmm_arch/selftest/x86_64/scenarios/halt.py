"""HLT without interrupt controllers: the hypervisor cannot wake the vCPU, so it is an exit."""

from __future__ import annotations

from vmm_arch.selftest.harness import agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import RealMode

MACHINE = Machine(RealMode(0x1000))


def scenario(guest: Guest) -> None:
    for _ in range(2):
        guest.halts()
        regs = guest.vcpu.get_regs()
        agree("RIP after HLT", regs.rip, regs.rbx)
