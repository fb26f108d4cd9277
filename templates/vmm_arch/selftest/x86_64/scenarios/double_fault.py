"""A fault whose handler cannot be reached is a double fault; one more ends the guest."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000, rsp=0x8000))


def scenario(guest: Guest) -> None:
    guest.expects_values(0x20, 0)
    guest.expects_values(0x21, 0x7000 - 6 * 8)  # on the stack of the task state segment
    guest.expects_values(0x22, 0)
    guest.shuts_down()
