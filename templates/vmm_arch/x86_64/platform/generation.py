"""The generation id: how a guest learns that it goes on from a moment at which it was before.

A guest that is restored twice, or forked, would draw the same random numbers and serial numbers in
both. So each gets an id of its own, 16 bytes in memory, and a notification; Linux (5.18) then reseeds
its random numbers. Source: Microsoft, Virtual Machine Generation ID. Section numbers are those of the
ACPI Specification 6.5.
"""

from __future__ import annotations

from typing import Final, Protocol
from uuid import UUID, uuid4

from vmm_arch.memory import GuestMemory
from vmm_arch.x86_64.platform.aml import (
    aml_device,
    aml_integer,
    aml_interrupt,
    aml_name,
    aml_package,
    aml_resources,
    aml_sized,
    aml_text,
)
from vmm_arch.x86_64.platform.resources import GENERATION_LINE

GENERATION_ID: Final = 0xFF000
"""Its guest-physical address: the BIOS's, so that no system uses the memory for anything else."""
_NONE: Final = bytes(16)
_CHANGED: Final = b"\x0a\x80"
_SERIALIZED_WITH_ONE_ARGUMENT: Final = b"\x09"


class Machine(Protocol):
    """What is used of a virtual machine."""

    @property
    def memory(self) -> GuestMemory: ...
    def set_irq_line(self, line: int, active: bool, /) -> None: ...


def renew_generation_id(vm: Machine, new: UUID | None = None) -> UUID:
    """Give a guest another generation id, by default a random one, and notify it; return the id.

    For a machine that was restored or forked, before its vCPUs run; it needs an irqchip. Raises
    ValueError if ``configure_system`` was not given a ``Platform`` with a ``generation_id``.
    """
    new = uuid4() if new is None else new
    if vm.memory.read(GENERATION_ID, 16) == _NONE:
        raise ValueError(
            "the guest knows no generation id: give configure_system() a Platform(generation_id=…)"
        )
    if new.int == 0:
        raise ValueError(f"{new} stands for no generation id; give another one")
    vm.set_irq_line(GENERATION_LINE, False)  # raises if there is no irqchip
    vm.memory.write(GENERATION_ID, new.bytes_le)
    vm.set_irq_line(GENERATION_LINE, True)
    vm.set_irq_line(GENERATION_LINE, False)
    return new


def generation_objects() -> bytes:
    """The device, and the one whose interrupt notifies it (5.6.9), in AML."""
    generation = aml_device(
        "VGEN",
        aml_name("_HID", aml_text("VMAR0001")),
        aml_name("_CID", aml_text("VM_Gen_Counter")),
        aml_name("_DDN", aml_text("VM_Gen_Counter")),
        aml_name("ADDR", aml_package(aml_integer(GENERATION_ID), aml_integer(0))),
    )
    notify = b"\x86" + b"VGEN" + _CHANGED
    event = aml_device(
        "GED_",
        aml_name("_HID", aml_text("ACPI0013")),
        aml_name("_UID", aml_integer(0)),
        aml_name("_CRS", aml_resources(aml_interrupt(GENERATION_LINE))),
        aml_sized(b"\x14", b"_EVT" + _SERIALIZED_WITH_ONE_ARGUMENT + notify),
    )
    return generation + event
