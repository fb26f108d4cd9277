"""The local APIC: first as firmware leaves it, then as host and guest set it."""

from __future__ import annotations

from vmm_arch.selftest.harness import agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64
from vmm_arch.x86_64.lapic import (
    APIC_LVT_ERROR,
    APIC_LVT_LINT0,
    APIC_LVT_LINT1,
    APIC_TPR,
    LVT_EXTINT,
    LVT_MASKED,
    LVT_NMI,
)

MACHINE = Machine(Long64(0x10000), irqchip=True)


def scenario(guest: Guest) -> None:
    finds_a_new_one(guest)
    guest.restart()
    finds_a_new_one(guest)


def finds_a_new_one(guest: Guest) -> None:
    lapic = guest.vcpu.get_lapic()
    agree("task priority", lapic[APIC_TPR], 0)
    agree("LVT LINT0", lapic[APIC_LVT_LINT0], LVT_EXTINT)
    agree("LVT LINT1", lapic[APIC_LVT_LINT1], LVT_NMI)
    agree("LVT error", lapic[APIC_LVT_ERROR], LVT_MASKED)
    lapic[APIC_LVT_ERROR] = LVT_MASKED | 0x42
    guest.vcpu.set_lapic(lapic)

    guest.expects_out(0x10, 4, 0)
    guest.expects_out(0x10, 4, LVT_EXTINT)
    guest.expects_out(0x10, 4, LVT_NMI)
    guest.expects_out(0x10, 4, LVT_MASKED | 0x42)
    guest.expects_out(0x10, 4, 0x5)

    lapic = guest.vcpu.get_lapic()
    agree("task priority", lapic[APIC_TPR], 0x50)
    agree("LVT LINT0", lapic[APIC_LVT_LINT0], LVT_MASKED)
    agree("LVT error", lapic[APIC_LVT_ERROR], LVT_MASKED | 0x43)
    agree("CR8", guest.vcpu.get_sregs().cr8, 0x5)
