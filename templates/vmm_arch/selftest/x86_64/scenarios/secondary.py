"""Two vCPUs: the first starts the second one through its local APIC, and again after a reset."""

from __future__ import annotations

from vmm_arch.selftest.harness import after, agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

WORD = 0x3000

MACHINE = Machine(Long64(0x10000), vcpus=2, irqchip=True)


def scenario(guest: Guest) -> None:
    secondary = guest.on(1)
    agree("vCPU 0 waits to be started", guest.vcpu.is_secondary, False)
    agree("vCPU 1 waits to be started", secondary.vcpu.is_secondary, True)

    def first() -> None:
        guest.expects_out(0x10, 4, 0x5EC0)

    def second() -> None:
        ebx = secondary.sends(0x20, 4)
        agree("the APIC id of vCPU 1", ebx >> 24, 1)
        agree("the number of logical processors", ebx >> 16 & 0xFF, 2)
        secondary.expects_out(0x21, 2, 0x1100)
        secondary.expects_out(0x22, 1, 0)

    for _ in range(2):
        secondary.is_kicked(once=after(0.02))  # it has not been started

        guest.together(first, second)

        agree("CS's base on vCPU 1", secondary.vcpu.get_sregs().cs.base, 0x11000)
        guest.has_memory(WORD, bytes.fromhex("c0 5e 00 00"))

        guest.memory.write(WORD, bytes(4))
        guest.restart()
        secondary.restart()
