"""Two vCPUs send each other interrupts."""

from __future__ import annotations

from threading import Event

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000, rsp=0x8000), vcpus=2, irqchip=True)


def scenario(guest: Guest) -> None:
    answered = Event()

    def sends() -> None:
        guest.expects_values(0x10, 20, 20)
        answered.set()

    # Not once it has counted 20: its last answer is sent after that.
    guest.together(sends, lambda: guest.on(1).is_kicked(once=answered.is_set))
