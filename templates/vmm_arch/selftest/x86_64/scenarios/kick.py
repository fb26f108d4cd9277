"""Another thread kicks a vCPU out of a guest that never exits, and the guest continues afterwards."""

from __future__ import annotations

from vmm_arch.errors import BusyError
from vmm_arch.selftest.harness import ScenarioFailed, agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

COUNT, STOP = 0x3000, 0x3008

MACHINE = Machine(Long64(0x10000))


def scenario(guest: Guest) -> None:
    vcpu = guest.vcpu

    def count() -> int:
        return int.from_bytes(guest.memory.read(COUNT, 8), "little")

    def counts_on() -> bool:
        """For the other thread, which may read memory but not the vCPU."""
        if count() < before + 1000:
            return False
        try:
            vcpu.get_regs()
        except BusyError:
            return True
        raise ScenarioFailed("registers were read while another thread ran the vCPU")

    for _ in range(3):
        before = count()
        guest.is_kicked(once=counts_on)
        stopped = count()
        vcpu.set_regs(vcpu.get_regs())
        agree("the count while the vCPU is stopped", count(), stopped)

    # A kick before the run is not lost, and two of them are one.
    stopped = count()
    vcpu.kick()
    vcpu.kick()
    guest.was_kicked()
    agree("the count after a run that was kicked before", count(), stopped)

    guest.memory.write(STOP, b"\1")
    sent = guest.sends(0x10, 4)
    agree("the count that was sent", sent, count())
    agree("the count continued by one at most", sent - stopped in (0, 1), True)

    # A kick between two exits is not lost either, whatever the host does in between.
    vcpu.kick()
    vcpu.get_regs()
    guest.was_kicked()
    read = guest.asks_port(0x11, 4)
    vcpu.kick()
    read.complete(0x12345678)
    guest.was_kicked()
    guest.has_registers(rax=0x12345678)
    guest.expects_out(0x12, 4, 0x12345678)
    guest.halts()
