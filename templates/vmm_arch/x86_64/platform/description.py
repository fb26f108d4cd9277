"""What firmware would tell the guest about the machine: which tables it finds, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vmm_arch.devices.description import MmioDevice
from vmm_arch.memory import GuestMemory
from vmm_arch.x86_64.platform.acpi import write_acpi
from vmm_arch.x86_64.platform.memory_map import BIOS
from vmm_arch.x86_64.platform.mp_table import mp_table
from vmm_arch.x86_64.platform.smbios import Smbios, smbios


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """The tables that ``configure_system`` writes; what is None or False is not there."""

    acpi: bool = True
    smbios: Smbios | None = field(default_factory=Smbios)
    mp_table: bool = False
    """For kernels without ACPI, or that are told not to use it."""
    devices: Sequence[MmioDevice] = ()
    """The devices that ACPI tells the guest of, beside the serial port."""

    def write(self, memory: GuestMemory, vcpus: int) -> int | None:
        """Write the tables to guest memory; return the guest-physical address of ACPI's root pointer.

        ACPI's are from 0xE0000 on, the others from 0xF0000. Raises ValueError if they do not fit,
        DeviceDescriptionError for devices that cannot be where they are described to be,
        MemoryAccessError if there is no memory; then nothing is written.
        """
        content = bytearray()
        if self.smbios is not None:
            content += smbios(self.smbios, memory, vcpus, BIOS.start)
        if self.mp_table:
            content += bytes(-len(content) % 16)
            content += mp_table(vcpus, BIOS.start + len(content))
        if len(content) > len(BIOS):
            raise ValueError(
                f"Platform: {len(content):#x} bytes of SMBIOS and MP table do not fit in the"
                f" {len(BIOS):#x} bytes from {BIOS.start:#x} on: shorten the texts of smbios"
            )
        if content:
            memory.read(BIOS.start, len(content))  # raises, before anything is written
        root = write_acpi(memory, vcpus, self.devices) if self.acpi else None
        if content:
            memory.write(BIOS.start, content)
        return root
