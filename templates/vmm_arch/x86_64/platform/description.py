"""What firmware would tell the guest about the machine: which tables it finds, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from vmm_arch.devices.description import MmioDevice
from vmm_arch.memory import GuestMemory
from vmm_arch.x86_64.platform.acpi import write_acpi
from vmm_arch.x86_64.platform.generation import GENERATION_ID, generation_objects
from vmm_arch.x86_64.platform.memory_map import BIOS
from vmm_arch.x86_64.platform.mp_table import mp_table
from vmm_arch.x86_64.platform.pci import PciRoot, mcfg, pci_objects, pci_problems
from vmm_arch.x86_64.platform.resources import GENERATION_LINE
from vmm_arch.x86_64.platform.smbios import Smbios, smbios
from vmm_arch.x86_64.platform.spcr import spcr
from vmm_arch.x86_64.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """The tables that ``configure_system`` writes; what is None or False is not there."""

    acpi: bool = True
    """Processors, interrupt controllers, power off, the serial console, and all that follows here
    until ``smbios``."""
    devices: Sequence[MmioDevice] = ()
    """What the guest cannot find by itself."""
    pci: PciRoot | None = None
    generation_id: UUID | None = None
    """For :func:`~vmm_arch.x86_64.platform.generation.renew_generation_id`."""
    smbios: Smbios | None = field(default_factory=Smbios)
    mp_table: bool = False
    """For kernels without ACPI, or that are told not to use it."""

    def write(self, memory: GuestMemory, topology: Topology) -> int | None:
        """Write the tables to guest memory; return the guest-physical address of ACPI's root pointer.

        ACPI's are from 0xE0000 on, the others from 0xF0000. Raises ValueError, with everything that is
        wrong, DeviceDescriptionError for devices that cannot be where they are described to be, or
        MemoryAccessError if there is no memory; then nothing is written.
        """
        if problems := list(self._problems(memory)):
            raise ValueError("\n".join(f"Platform: {problem}" for problem in problems))
        low = self._smbios_and_mp_table(memory, topology)
        end = GENERATION_ID + 16 if self.generation_id else BIOS.start + len(low)
        memory.read(BIOS.start, end - BIOS.start)  # raises, before anything is written
        root = self._write_acpi(memory, topology) if self.acpi else None
        memory.write(BIOS.start, low)
        if self.generation_id is not None:
            memory.write(GENERATION_ID, self.generation_id.bytes_le)
        return root

    def _problems(self, memory: GuestMemory) -> Iterator[str]:
        if not self.acpi:
            for name in ("devices", "pci", "generation_id"):
                if getattr(self, name):
                    yield f"{name}: ACPI describes them; leave them out, or acpi=False"
        devices = [device for device in self.devices if isinstance(device, MmioDevice)]
        if self.pci is not None:
            for problem in pci_problems(self.pci, memory, devices):
                yield f"pci: {problem}"
        if self.generation_id is not None:
            if self.generation_id.int == 0:
                yield f"generation_id: {self.generation_id} stands for none; give another one"
            if any(device.line == GENERATION_LINE for device in devices):
                yield f"devices: line {GENERATION_LINE} is the generation id's; give another"

    def _smbios_and_mp_table(self, memory: GuestMemory, topology: Topology) -> bytes:
        content = bytearray()
        if self.smbios is not None:
            content += smbios(self.smbios, memory, topology, BIOS.start)
        if self.mp_table:
            content += bytes(-len(content) % 16)
            content += mp_table(topology, BIOS.start + len(content))
        room = GENERATION_ID - BIOS.start
        if len(content) > room:
            raise ValueError(
                f"Platform: {len(content):#x} bytes of SMBIOS and MP table do not fit in the"
                f" {room:#x} bytes from {BIOS.start:#x} on: shorten the texts of smbios"
            )
        return bytes(content)

    def _write_acpi(self, memory: GuestMemory, topology: Topology) -> int:
        tables, objects = [spcr()], b""
        if self.pci is not None:
            tables.append(mcfg(self.pci))
            objects += pci_objects(self.pci)
        if self.generation_id is not None:
            objects += generation_objects()
        return write_acpi(memory, topology, self.devices, objects=objects, tables=tables)
