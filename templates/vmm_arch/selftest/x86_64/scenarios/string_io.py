"""String I/O, which a hypervisor may split into any number of exits; only the total is promised."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import RealMode

MACHINE = Machine(RealMode(0x1000))

TEXT = bytes(i * 7 % 256 for i in range(300))
LONG = bytes(i * 11 % 251 for i in range(5000))


def scenario(guest: Guest) -> None:
    guest.memory.write(0x4000, TEXT)

    guest.expects_outs(0x10, 1, TEXT)
    guest.expects_outs(0x12, 2, TEXT)
    guest.expects_outs(0x14, 4, TEXT)

    guest.expects_ins(0x10, 1, answer=LONG)
    guest.expects_ins(0x12, 2, answer=TEXT)
    guest.expects_ins(0x14, 4, answer=TEXT)

    guest.expects_outs(0x16, 1, TEXT[9::-1])
    guest.expects_out(0x18, 1, TEXT[0])
    guest.halts()

    guest.has_memory(0x6000, LONG + bytes(1))
    guest.has_memory(0x8000, TEXT + bytes(1))
    guest.has_memory(0x9000, TEXT + bytes(1))
    guest.has_registers(rsi=0x4001, rdi=0x9000 + len(TEXT), rcx=0)
