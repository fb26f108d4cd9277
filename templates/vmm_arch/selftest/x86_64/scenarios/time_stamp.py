"""The time stamp counter runs on from the value set by a reset, or the reset raises an error."""

from __future__ import annotations

from vmm_arch.errors import HypervisorUnavailableError
from vmm_arch.selftest.harness import ScenarioFailed
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import RealMode

MACHINE = Machine(RealMode(0x1000))
PATIENCE = 20
"""The most seconds that may pass until the guest reads it."""


def scenario(guest: Guest) -> None:
    most = guest.vcpu.get_tsc_khz() * 1000 * PATIENCE
    is_between(guest, 0, 1 << 64)
    for value in (0, 1 << 40, 1):
        try:
            guest.arch.reset_vcpu(guest.vcpu, guest.machine.entry, tsc=value)
        except HypervisorUnavailableError:
            return  # guests have the host's counter, which cannot be set
        first = is_between(guest, value, value + most)
        is_between(guest, first + 1, value + most)


def is_between(guest: Guest, least: int, most: int) -> int:
    """The guest sends a value within these bounds: return it."""
    value = guest.sends(0x10, 4) | guest.sends(0x11, 4) << 32
    if not least <= value < most:
        raise ScenarioFailed(f"the counter is {value:#x}, not in [{least:#x}, {most:#x})")
    return value
