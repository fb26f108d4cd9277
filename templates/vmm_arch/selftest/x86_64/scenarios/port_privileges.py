"""Ring 3 and ports: those that the bitmap of the task state segment allows."""

from __future__ import annotations

from functools import partial

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000, rsp=0x8000))


def scenario(guest: Guest) -> None:
    refused = partial(guest.expects_out, 0x20, 1, 0xEE)
    guest.expects_out(0x10, 1, 1)
    refused()
    guest.expects_out(0x12, 1, 3)
    for _ in range(3):  # in from 0x13; out of four ports, of which one is not allowed; out to 0x13
        refused()
    guest.halts()
