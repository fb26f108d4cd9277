"""The guest sees the segments that the host sets, and the host those that the guest loads."""

from __future__ import annotations

from vmm_arch.selftest.harness import agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import RealMode

MACHINE = Machine(RealMode(0x1000))


def scenario(guest: Guest) -> None:
    guest.memory.write(0x2_0000, bytes.fromhex("78 56 34 12"))
    sregs = guest.vcpu.get_sregs()
    agree("DS's limit", sregs.ds.limit, 0xFFFF)
    sregs.ds.selector = 0x2000
    sregs.ds.base = 0x2_0000
    guest.vcpu.set_sregs(sregs)

    guest.expects_out(0x10, 4, 0x12345678)
    guest.halts()

    sregs = guest.vcpu.get_sregs()
    agree("DS", (sregs.ds.selector, sregs.ds.base), (0x2000, 0x2_0000))
    agree("ES", (sregs.es.selector, sregs.es.base), (0x3000, 0x3_0000))
    agree("FS", (sregs.fs.selector, sregs.fs.base), (0x4567, 0x4_5670))
    agree("GS", (sregs.gs.selector, sregs.gs.base), (0, 0))
    agree("CR0.PE", sregs.cr0 & 1, 0)
