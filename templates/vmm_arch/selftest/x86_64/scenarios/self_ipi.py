"""Interrupts of the local APIC to its own processor: pending, and taken by priority."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000, rsp=0x8000), irqchip=True)


def scenario(guest: Guest) -> None:
    guest.expects_values(0x10, 1 << 17, 1 << 1)
    guest.expects_values(0x30, 0x61)
    guest.expects_values(0x30, 0x51)
    guest.expects_values(0x11, 0x60)
    guest.expects_values(0x30, 0x61)
    guest.expects_values(0x10, 0xE)
