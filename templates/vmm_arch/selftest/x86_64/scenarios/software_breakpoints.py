"""Breakpoints in memory: met once, or each time; the guest keeps an INT3 of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vmm_arch.exits import Breakpoint
from vmm_arch.selftest.harness import agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.breakpoints import Breakpoints
from vmm_arch.x86_64.entry import Long64
from vmm_arch.x86_64.exits import Exit

MACHINE = Machine(Long64(0x10000, rsp=0x8000), every_instruction=True)


def scenario(guest: Guest) -> None:
    guest.expects_values(0x10, 1)
    regs = guest.vcpu.get_regs()
    first, second, own = regs.rbx, regs.rbp, regs.rsi
    steps = "step" not in guest.arch.UNSUPPORTED
    with Breakpoints(guest.vm) as breakpoints:
        guest = replace(guest, vcpu=Stops(guest.vcpu, breakpoints))
        breakpoints.add_once([second, second + 1])
        breakpoints.remove(second + 1)
        if steps:
            breakpoints.add(first)
        for turn in range(3):
            if steps:
                stops_at(guest, first, 1 + turn * 0x1010)
            if turn == 0:
                stops_at(guest, second, 0x11)
        guest.expects_values(0x10, 1 + 3 * 0x1010)
        agree("what is left", first in breakpoints, steps)
        agree("what was met once", second in breakpoints, False)
        guest.expects_exception(3, at=own + 1)
        guest.expects_values(0x10, 2)
        guest.halts()
    guest.has_memory(first, bytes.fromhex("83 c0 10"))


class Stops:
    """A vCPU that is run with breakpoints."""

    def __init__(self, vcpu: Any, breakpoints: Breakpoints) -> None:
        self._vcpu = vcpu
        self._breakpoints = breakpoints

    def run(self) -> Exit:
        return self._breakpoints.run(self._vcpu)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vcpu, name)


def stops_at(guest: Guest, address: int, rax: int) -> None:
    exit = guest.run()
    if not isinstance(exit, Breakpoint) or exit.pc != address:
        raise guest.failure(f"a breakpoint at {address:#x}", exit)
    guest.has_registers(rip=address, rax=rax)
