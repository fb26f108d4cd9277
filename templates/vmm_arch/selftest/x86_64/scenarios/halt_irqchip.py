"""HLT with interrupt controllers: no exit, since an interrupt may come. A kick makes run() return."""

from __future__ import annotations

from vmm_arch.selftest.harness import after
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

HALTS = 0x3000

MACHINE = Machine(Long64(0x10000), irqchip=True)


def scenario(guest: Guest) -> None:
    halts_for_good(guest)
    guest.restart()  # a reset wakes it
    halts_for_good(guest)


def halts_for_good(guest: Guest) -> None:
    guest.memory.write(HALTS, b"\0")
    guest.is_kicked(once=lambda: guest.memory.read(HALTS, 1) == b"\1")

    # That was the guest's last exit before HLT, so the kick may have come before HLT.
    regs = guest.vcpu.get_regs()
    while guest.vcpu.get_regs().rip == regs.rbx:
        guest.is_kicked(once=after(0.02))
    guest.has_registers(rip=regs.rcx)

    # It remains halted, also in a longer run.
    guest.is_kicked(once=after(0.05))
    guest.has_registers(rip=regs.rcx)
