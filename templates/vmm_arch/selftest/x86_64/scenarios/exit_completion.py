"""State that is read after an access is the state after its instruction, on every hypervisor.

While the guest waits for an answer there is no such state: what is read is the one before, and
changing it is an error.
"""

from __future__ import annotations

from collections.abc import Callable

from vmm_arch.errors import UnansweredReadError
from vmm_arch.selftest.harness import ScenarioFailed, agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

DEVICE = 0xD000_0000

MACHINE = Machine(Long64(0x10000))


def scenario(guest: Guest) -> None:
    vcpu = guest.vcpu
    regs_of_before = vcpu.get_regs()

    read = guest.asks_port(0x10, 4)
    for ask in (vcpu.run, vcpu.save, lambda: vcpu.set_regs(regs_of_before)):
        is_refused(ask)
    agree("RAX before IN", vcpu.get_regs().rax, 0xFFFFFFFF_FFFFFFFF)
    read.complete(0x12345678)
    is_refused(lambda: read.complete(0))  # already answered
    regs = vcpu.get_regs()
    agree("RAX after IN", regs.rax, 0x12345678)
    agree("RIP after IN", regs.rip, regs.rbx)

    guest.expects_out(0x11, 4, 0x12345678)
    agree("RIP after OUT", vcpu.get_regs().rip, regs.rcx)

    mmio_read = guest.asks_mmio(DEVICE, 8)
    agree("R9 before it is read", vcpu.get_regs().r9, 0)
    mmio_read.complete(0x0123456789ABCDEF)
    guest.has_registers(r9=0x0123456789ABCDEF, rip=regs.rsi)

    guest.expects_mmio_write(DEVICE + 8, 8, 0x0123456789ABCDEF)
    guest.has_registers(rip=regs.rdi)

    # An instruction that reads and writes is incomplete until it has written.
    guest.expects_mmio_read(DEVICE + 0x10, 8, answer=1)
    is_refused(vcpu.get_regs)
    guest.expects_mmio_write(DEVICE + 0x10, 8, 0x0123456789ABCDEE)
    guest.has_registers(rip=regs.rbp)

    # Registers that are set after an access are not overwritten when its instruction completes.
    guest.expects_out(0x12, 4, 1)
    regs = vcpu.get_regs()
    regs.rip = regs.r8
    vcpu.set_regs(regs)
    guest.expects_out(0x14, 4, 3)
    guest.halts()


def is_refused(ask: Callable[[], object]) -> None:
    """The operation raises an error, since the guest's instruction is incomplete."""
    try:
        found = ask()
    except UnansweredReadError:
        return
    raise ScenarioFailed(f"expected an UnansweredReadError, but the operation returned {found!r}")
