"""A triple fault ends the guest; after a reset the vCPU can be used again."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000))


def scenario(guest: Guest) -> None:
    for _ in range(2):
        guest.shuts_down()

        guest.restart()
        guest.has_registers(rip=0x10000, rbx=0)
        regs = guest.vcpu.get_regs()
        regs.rbx = 1
        guest.vcpu.set_regs(regs)
        guest.halts()

        guest.restart()
