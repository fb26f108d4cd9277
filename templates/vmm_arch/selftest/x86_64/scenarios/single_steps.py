"""The VMM steps a guest over accesses, and moves it: no instruction runs without its step."""

from __future__ import annotations

from vmm_arch.exits import MmioRead, MmioWrite, SingleStep
from vmm_arch.selftest.harness import agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64
from vmm_arch.x86_64.exits import IoIn, IoOut

MACHINE = Machine(Long64(0x10000, rsp=0x8000), operations=("step",))
COUNTED = 13
UD2_SIZE = 2


def scenario(guest: Guest) -> None:
    guest.vcpu.step(True)
    for _ in range(2):
        agree("the exit after a step", type(guest.run()), SingleStep)
    regs = guest.vcpu.get_regs()
    regs.rip += UD2_SIZE
    guest.vcpu.set_regs(regs)
    seen = set()
    while True:
        match exit := guest.run():
            case SingleStep():
                seen.add(guest.vcpu.get_regs().rdx)
            case MmioRead() | IoIn():
                exit.complete(0)
            case IoOut(port=0x20):
                break
            case MmioWrite() | IoOut():
                pass
            case _:
                raise guest.failure("a step or an access", exit)
    agree("the counts after steps", sorted(seen), list(range(1, COUNTED + 1)))
