"""A vCPU can be reset at each of its exits, answered or not, without effect on the next guest."""

from __future__ import annotations

from itertools import count

from vmm_arch.exits import AnyExit, Halt, ReadExit
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

DEVICE = 0xD000_0000

MACHINE = Machine(Long64(0x10000))


def scenario(guest: Guest) -> None:
    for exits in count(1):
        last = is_left_after(exits, guest)
        guest.restart()

        guest.has_registers(rip=0x10000, rax=0, rcx=0, rdi=0)
        guest.expects_out(0x10, 4, 0)
        guest.expects_in(0x11, 4, answer=0x11)
        guest.expects_ins(0x12, 4, answer=b"one and two!")
        guest.expects_mmio_read(DEVICE, 4, answer=5)
        guest.expects_mmio_read(DEVICE + 8, 4, answer=10)
        guest.expects_mmio_write(DEVICE + 8, 4, 15)
        guest.expects_mmio_read(DEVICE + 0x10, 4, answer=0x11111111)
        guest.expects_mmio_read(DEVICE + 0x14, 4, answer=0x22222222)
        guest.halts()
        guest.has_memory(0x4000, b"one and two!")
        guest.has_memory(0x5000, b"\x11\x11\x11\x11\x22\x22\x22\x22")

        if isinstance(last, Halt):
            return
        guest.restart()


def is_left_after(exits: int, guest: Guest) -> AnyExit:
    """Run through a number of exits, and leave the last one unanswered."""
    for _ in range(exits - 1):
        match guest.run():
            case ReadExit() as read:
                read.complete(0)
    return guest.run()
