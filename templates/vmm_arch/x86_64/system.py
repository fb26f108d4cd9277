"""What a guest finds in memory when it begins; written once for a machine."""

from __future__ import annotations

from collections.abc import Sized
from typing import Protocol

from vmm_arch.memory import GuestMemory
from vmm_arch.x86_64.entry import Entry


class Machine(Protocol):
    """What is used of a virtual machine."""

    @property
    def memory(self) -> GuestMemory: ...
    @property
    def vcpus(self) -> Sized: ...


def configure_system(vm: Machine, entry: Entry) -> None:
    """Write what an entry needs to guest memory: descriptor table and page tables for its mode.

    Real mode needs none. A Linux kernel gets ACPI tables and its zero page as well, a Multiboot
    kernel ACPI tables. Raises MemoryAccessError if the entry puts them outside guest memory.
    """
    entry.write_tables(vm.memory, len(vm.vcpus))
