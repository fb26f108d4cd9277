"""While an access waits for its answer, state can be read, and the access taken back."""

from __future__ import annotations

from vmm_arch.exits import ReadExit
from vmm_arch.selftest.harness import agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

DEVICE = 0xD000_0000
IN_SIZE = 2
REGISTERS = ("rip", "rax", "rcx", "rdx", "rdi", "rsi", "rflags")

MACHINE = Machine(Long64(0x10000))


def scenario(guest: Guest) -> None:
    guest.asks_port(0x11, 1)
    regs = guest.vcpu.get_regs()
    agree("RIP, which has not moved", regs.rip, regs.rsi)
    agree("RAX, which has not changed", regs.rax, 0x55667788)
    agree("where the code is", guest.vcpu.translate(regs.rip), regs.rip)
    takes_back(guest)
    guest.expects_in(0x11, 1, answer=0x99)
    guest.expects_out(0x10, 4, 0x55667799)

    match guest.run():
        case ReadExit():
            agree("the values left", guest.vcpu.get_regs().rcx, 3)
            takes_back(guest)
    guest.expects_ins(0x12, 4, answer=b"one and two!")
    guest.asks_mmio(DEVICE, 4)
    takes_back(guest)
    guest.expects_mmio_read(DEVICE, 4, answer=1)
    guest.asks_mmio(DEVICE + 8, 4)
    takes_back(guest)
    guest.expects_mmio_read(DEVICE, 4, answer=5)
    guest.expects_mmio_read(DEVICE + 8, 4, answer=5)
    guest.expects_out(0x10, 1, 1)
    guest.asks_mmio(DEVICE + 0x10, 4)
    takes_back(guest)
    guest.expects_mmio_read(DEVICE + 0x10, 4, answer=0x20)
    guest.expects_mmio_write(DEVICE + 0x10, 4, 0x25)

    guest.asks_port(0x13, 4)
    guest.vcpu.discard_exit()
    regs = guest.vcpu.get_regs()
    agree("RIP, at the IN", regs.rip, regs.r9)
    regs.rip += IN_SIZE  # the access is never made
    regs.rax = 0x5678
    guest.vcpu.set_regs(regs)
    guest.expects_out(0x10, 4, 0x5678)
    guest.halts()
    guest.has_memory(0x4000, b"one and two!")


def takes_back(guest: Guest) -> None:
    """Take an access back: the vCPU stands where it was while it waited."""
    before = guest.vcpu.get_regs()
    guest.vcpu.discard_exit()
    after = guest.vcpu.get_regs()
    for name in REGISTERS:
        agree(f"{name} once it was taken back", getattr(after, name), getattr(before, name))
