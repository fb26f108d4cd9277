"""What a guest finds in memory when it begins; written once for a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from vmm_arch.devices.description import MmioDevice
from vmm_arch.memory import GuestMemory
from vmm_arch.x86_64.entry import Entry
from vmm_arch.x86_64.platform.description import Platform
from vmm_arch.x86_64.topology import Topology


class Machine(Protocol):
    """What is used of a virtual machine."""

    @property
    def memory(self) -> GuestMemory: ...
    @property
    def topology(self) -> Topology: ...


def configure_system(
    vm: Machine,
    entry: Entry,
    platform: Platform | None = None,
    *,
    devices: Sequence[MmioDevice] = (),
) -> None:
    """Write what an entry needs to guest memory: descriptor table and page tables for its mode.

    ``platform`` is a :class:`~vmm_arch.x86_64.platform.description.Platform`: the tables that tell the
    guest about the machine. A Linux kernel, which gets its zero page as well, and other loaded kernels
    have the default one: ACPI and SMBIOS. Flat code has none, unless it is given. ``devices`` are
    added to it.

    Raises MemoryAccessError if something lies outside guest memory, ValueError if it does not fit,
    DeviceDescriptionError for devices that cannot be where they are described to be.
    """
    if devices:
        platform = platform or Platform()
        platform = replace(platform, devices=(*platform.devices, *devices))
    entry.write_tables(vm.memory, vm.topology, platform)
