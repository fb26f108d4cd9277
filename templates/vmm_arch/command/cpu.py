"""The CPU-specific part of the commands: a module beside this one, named after the CPU."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vmm_arch.command.cpus import Cpus
from vmm_arch.debug import cpu as debug
from vmm_arch.devices.bus import Bus
from vmm_arch.devices.serial import Serial16550
from vmm_arch.devices.state import Field
from vmm_arch.devices.virtio.block import VirtioBlock
from vmm_arch.memory import GuestMemory
from vmm_arch.report import Check


class Cpu(Protocol):
    """``vmm_arch.command.CPU``. Backends, machines, vCPUs and entries are those of the CPU."""

    @property
    def SMALL_GUEST_EXITS(self) -> tuple[str, ...]:
        """The result of :meth:`run_small_guest` on a hypervisor that works."""

    def run_small_guest(self, arch: Any, /) -> tuple[str, ...]:
        """Run a guest of a few instructions, and return its exits as text."""

    def operating_system(self, arch: Any, /) -> Check:
        """Check that the hypervisor executes the instructions that every operating system needs."""

    def processor(self, arch: Any, /) -> str:
        """Vendor and model, as guests see them."""

    def signature(self, arch: Any, /) -> str:
        """The hypervisor's signature, as guests see it, or "none"."""

    def is_virtual(self) -> bool:
        """Whether this host's processor says that it is a virtual machine's."""

    def add_arguments(self, parser: argparse.ArgumentParser, /) -> None:
        """Add arguments that ``vmm-arch run`` has on this CPU only."""

    def vcpus(self, wanted: Cpus | None, /) -> dict[str, Any]:
        """The arguments of ``Vm`` that say which vCPUs it has. Raises ValueError."""

    def load(self, vm: Any, options: argparse.Namespace, /) -> tuple[Any, str]:
        """Load the kernel that the options are about; return its entry and the boot protocol."""

    def make_bus(
        self,
        vm: Any,
        send: Callable[[bytes], object],
        options: argparse.Namespace,
        disks: Sequence[VirtioBlock],
        /,
    ) -> tuple[Bus, Serial16550]:
        """Make a bus with the devices that a stock Linux needs, and disks.

        Return it with Linux's console among them, which calls ``send``.
        """

    def configure_system(self, arch: Any, vm: Any, entry: Any, disks: int, /) -> None:
        """Write what the guest finds in memory; that tells it of so many disks.

        Raises ValueError if there is no room for them.
        """

    def renew_identity(self, vm: Any, /) -> None:
        """Tell the guest of a restored machine that it is not the one that was saved.

        Raises ValueError if it cannot be told.
        """

    @property
    def DEVICE_OPTIONS(self) -> Mapping[str, Field]:
        """The options that add devices to the bus, with the values that they may have."""

    def attach_notifier(self, bus: Any, place: int, call: Callable[[], object], /) -> None:
        """Attach a device that calls a function when the guest writes to a place: an address or port."""

    def registers(self, vcpu: Any, /) -> Any:
        """Read the registers, for :meth:`describe`."""

    def next_instruction(self, registers: Any, /) -> int:
        """The address of the next instruction in these registers."""

    def describe(self, registers: Any, memory: GuestMemory, /) -> Iterable[str]:
        """Describe registers, and what they point to, line by line."""

    def dump(self, vcpu: Any, memory: GuestMemory, /) -> str:
        """Describe a vCPU that is not running."""

    def was_reset(self, vcpu: Any, /) -> bool:
        """Whether a fatal fault reset the vCPU, so that the place of the fault is lost."""

    @property
    def DEBUGGING(self) -> debug.Cpu:
        """The part of debugging that depends on the CPU."""

    def debugging_abilities(self, arch: Any, /) -> debug.Abilities:
        """What the hypervisor does for a debugger, tried by small guests."""

    def debugged_architecture(self, options: argparse.Namespace, /) -> str | None:
        """The debugger's architecture for the kernel that the options are about, if it has one."""

    def save_core(self, vm: Any, file: Path, /, *, by_virtual_address: bool) -> None:
        """Write an ELF core dump. Raises ValueError, OSError, HypervisorError."""
