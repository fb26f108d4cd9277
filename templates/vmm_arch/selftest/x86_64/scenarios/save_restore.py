"""A guest that is saved in the middle of its work and restored goes on as if nothing had been."""

from __future__ import annotations

from vmm_arch.selftest.harness import ScenarioFailed, agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000))
PORTS = (0x10, 0x11, 0x12, 0x13)
"""The guest sends one value to each in a round."""
BEFORE, AFTER = 7, 13


def scenario(guest: Guest) -> None:
    vcpu, vm = guest.vcpu, guest.vm
    for number in range(BEFORE):
        guest.sends(PORTS[number % 4], 4)
    state, machine = vcpu.save(), vm.save()
    is_the_same("saved twice", state.diff(vcpu.save()))
    expected = values(guest)
    vcpu.restore(state)
    agree("after it was restored", values(guest), expected)
    vcpu.restore(guest.arch.VcpuState.from_json(state.to_json()))
    agree("after it was restored from JSON", values(guest), expected)
    vm.restore(guest.arch.VmState.from_json(machine.to_json()))
    is_the_same("the machine restored", machine.diff(vm.save()))
    agree("after its machine was restored", values(guest), expected)


def values(guest: Guest) -> list[int]:
    return [guest.sends(PORTS[number % 4], 4) for number in range(BEFORE, BEFORE + AFTER)]


def is_the_same(what: str, differences: tuple[object, ...]) -> None:
    if differences:
        raise ScenarioFailed(f"{what}: {', '.join(map(str, differences))}")
