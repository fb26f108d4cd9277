"""A guest that debugs itself: debug registers, and single steps also over I/O."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000, rsp=0x8000), every_instruction=True)


def scenario(guest: Guest) -> None:
    for cause in (0x1, 0x2, 0x4000):  # B0, B1, BS of DR6
        guest.expects_exception(1)
        guest.expects_values(0x23, 0xFFFF0FF0 | cause)
    guest.expects_out(0x10, 1, 0xF0)
    guest.expects_exception(1)
    guest.expects_values(0x23, 0xFFFF4FF0)
    guest.expects_out(0x10, 1, 7)
    guest.halts()
