"""Two vCPUs send each other interrupts."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

COUNT = 0x3004

MACHINE = Machine(Long64(0x10000, rsp=0x8000), vcpus=2, irqchip=True)


def scenario(guest: Guest) -> None:
    guest.together(
        lambda: guest.expects_values(0x10, 20, 20),
        lambda: guest.on(1).is_kicked(once=lambda: guest.memory.read(COUNT, 4) == b"\x14\0\0\0"),
    )
