"""What a Linux kernel has to be told on a machine like ours: the beginning of its command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

_PARAMETERS: Final = (
    "console=ttyS0"
    # By the ACPI tables' reset register. A panic resets too, but "warm", which is how
    # platform.pc knows it. That comes first: kernels before 5.2 take it for another way to reset.
    " reboot=panic_warm,acpi panic=-1"
    # There is no PCI bus; looking for one takes long.
    " pci=off"
)


class Vcpu(Protocol):
    def get_tsc_khz(self) -> int: ...


class Machine(Protocol):
    """What the command line depends on."""

    @property
    def vcpus(self) -> Sequence[Vcpu]: ...


def linux_cmdline(vm: Machine, more: str = "") -> str:
    """Make a command line for a Linux that is to boot on this machine, and append ``more`` to it.

    It names the serial console, ttyS0, how to reset (in a panic as well, at once), what not to look
    for, and the frequency of the time stamp counter, which Linux has nothing to measure with on a
    hypervisor without timers of its own. Linux takes the last of a parameter given twice, so that
    ``more`` can overrule each. Source: Linux, Documentation/admin-guide/kernel-parameters.txt.
    """
    return f"{_PARAMETERS} tsc_early_khz={vm.vcpus[0].get_tsc_khz()} {more}".rstrip()
