"""The guest reads the MSRs that the host writes, and the host those that the guest writes."""

from __future__ import annotations

from vmm_arch.selftest.harness import agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64
from vmm_arch.x86_64.msr import (
    IA32_GS_BASE,
    IA32_KERNEL_GS_BASE,
    IA32_LSTAR,
    IA32_PAT,
    IA32_STAR,
)

MACHINE = Machine(Long64(0x10000))


def scenario(guest: Guest) -> None:
    agree(
        "initial MSRs",
        guest.vcpu.get_msrs([IA32_STAR, IA32_LSTAR, IA32_KERNEL_GS_BASE, IA32_PAT]),
        {IA32_STAR: 0, IA32_LSTAR: 0, IA32_KERNEL_GS_BASE: 0, IA32_PAT: 0x0007040600070406},
    )
    guest.vcpu.set_msrs({IA32_LSTAR: 0xFFFF_8000_1234_5678, IA32_KERNEL_GS_BASE: 0x3000})
    guest.memory.write(0x3008, bytes.fromhex("78 56 34 12"))

    guest.expects_out(0x10, 4, 0x12345678)
    guest.expects_out(0x10, 4, 0xFFFF8000)
    guest.expects_out(0x10, 4, 0x12345678)  # through GS
    guest.halts()

    agree(
        "final MSRs",
        guest.vcpu.get_msrs([IA32_LSTAR, IA32_STAR, IA32_KERNEL_GS_BASE, IA32_GS_BASE]),
        {
            IA32_LSTAR: 0xFFFF_8123_9ABC_DEF0,
            IA32_STAR: 0x0018_0010_0000_0000,
            IA32_KERNEL_GS_BASE: 0,
            IA32_GS_BASE: 0x3000,
        },
    )
    agree("GS's base", guest.vcpu.get_sregs().gs.base, 0x3000)
