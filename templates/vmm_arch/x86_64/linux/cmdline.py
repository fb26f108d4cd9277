"""The parameters that Linux needs on this package's machines, for its command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

_PARAMETERS: Final = (
    "console=ttyS0"
    # Reset with the ACPI tables' reset register. A panic resets too, but "warm", by which platform.pc
    # recognises it. panic_warm comes first: kernels before 5.2 take it for a way to reset.
    " reboot=panic_warm,acpi panic=-1"
)
_NO_PCI: Final = "pci=off"
"""There is no PCI bus; probing for one takes long."""


class Vcpu(Protocol):
    def get_tsc_khz(self) -> int: ...


class Machine(Protocol):
    """What the command line depends on."""

    @property
    def vcpus(self) -> Sequence[Vcpu]: ...


def linux_cmdline(vm: Machine, more: str = "") -> str:
    """Make a command line for Linux on this machine, and append ``more`` to it.

    It sets the serial console, ttyS0, how to reset (also immediately after a panic), what not to
    probe for, and the frequency of the time stamp counter, which Linux cannot measure on a
    hypervisor without timers of its own. If a parameter is given twice Linux takes the last one, so
    ``more`` can override each; but nothing takes back "pci=off", so that with a ``pci=…`` in ``more`` it
    is left out. Source: Linux, Documentation/admin-guide/kernel-parameters.txt.
    """
    own = [_PARAMETERS, *[_NO_PCI] * (not any(word.startswith("pci=") for word in more.split()))]
    return f"{' '.join(own)} tsc_early_khz={vm.vcpus[0].get_tsc_khz()} {more}".rstrip()
