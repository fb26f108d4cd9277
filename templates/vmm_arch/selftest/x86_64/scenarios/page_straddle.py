"""Accesses across two pages that are not neighbours."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000, rsp=0x8000))


def scenario(guest: Guest) -> None:
    guest.expects_values(0x10, 0x55667788, 0x11223344)
    guest.expects_values(0x10, 0x66778800, 0x22334455, 0x11)
    guest.expects_values(0x10, 0x44556678)
    guest.halts()
