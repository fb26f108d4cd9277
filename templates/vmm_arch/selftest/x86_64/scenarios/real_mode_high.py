"""16-bit code that is entered above 64 KiB: the CS base has the address bits that IP lacks."""

from __future__ import annotations

from vmm_arch.selftest.harness import agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import RealMode

MACHINE = Machine(RealMode(0x3_4560, rsp=0x8000))


def scenario(guest: Guest) -> None:
    guest.has_registers(rip=0x4560)
    agree("CS's base", guest.vcpu.get_sregs().cs.base, 0x3_0000)

    guest.expects_out(0x10, 2, 0x3000)
    guest.expects_out(0x10, 2, 0)
    guest.expects_out(0x10, 4, 0x12345678)
    guest.expects_out(0x10, 2, 0)
    guest.halts()
