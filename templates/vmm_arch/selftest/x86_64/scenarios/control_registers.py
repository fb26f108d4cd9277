"""The guest sees the control registers that the host sets, and the host those that the guest sets."""

from __future__ import annotations

from vmm_arch.selftest.harness import agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000))

CR0_WP = 0x10000
CR4_TSD = 0x4


def scenario(guest: Guest) -> None:
    sregs = guest.vcpu.get_sregs()
    agree("initial CR2, CR8", (sregs.cr2, sregs.cr8), (0, 0))
    sregs.cr2 = 0xFFFF_8000_1234_5678
    sregs.cr8 = 5
    sregs.cr4 |= CR4_TSD
    guest.vcpu.set_sregs(sregs)

    guest.expects_out(0x10, 4, 5)
    guest.expects_out(0x11, 4, CR4_TSD)
    guest.halts()
    guest.has_registers(rbx=0xFFFF_8000_1234_5678)

    sregs = guest.vcpu.get_sregs()
    agree("CR2", sregs.cr2, 0x1234_5678_9ABC)
    agree("CR8", sregs.cr8, 9)
    agree("CR0.WP", sregs.cr0 & CR0_WP, CR0_WP)
