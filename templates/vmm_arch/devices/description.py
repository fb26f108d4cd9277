"""Devices that a guest has to be told of, since it cannot find them by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MmioDevice:
    """A device with memory-mapped registers, as firmware describes it to the guest.

    By default one of virtio's, such as :class:`~vmm_arch.devices.virtio.mmio.VirtioMmio`. The other
    half, which answers the guest's accesses, goes to :meth:`Bus.attach_memory` at the same addresses.
    """

    addresses: range
    """The guest-physical addresses of its registers."""
    line: int
    """The number of its interrupt line, as of ``vm.set_irq_line()``."""
    acpi_id: str = "LNRO0005"
    """By which ACPI's namespace names its kind: four capitals or digits, and four hexadecimal digits."""
    compatible: str = "virtio,mmio"
    """By which a device tree names its kind."""
    level_triggered: bool = False
    """How the line signals: for as long as it is high, or when it rises."""


class DeviceDescriptionError(ValueError):
    """Devices cannot be where their descriptions say; ``problems`` lists everything that is wrong."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("devices: " + "\n".join(problems))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[DeviceDescriptionError], tuple[tuple[str, ...]]]:
        return type(self), (self.problems,)


def overlaps(devices: Sequence[MmioDevice]) -> Iterator[str]:
    """What is wrong with devices beside each other, and with their addresses as such."""
    for number, device in enumerate(devices):
        addresses = device.addresses
        if addresses.step != 1 or not addresses or addresses.start < 0:
            yield f"{named(number, device)}: expected addresses from 0 on, not none, with step 1"
        for other, earlier in enumerate(devices[:number]):
            if meet(addresses, earlier.addresses):
                yield f"{named(number, device)}: overlaps {named(other, earlier)}; move one of them"
            if device.line == earlier.line:
                yield (
                    f"{named(number, device)}: interrupt line {device.line} is that of"
                    f" {named(other, earlier)}; give it one of its own"
                )


def meet(one: range, other: range) -> bool:
    """Whether two ranges have a number in common."""
    return max(one.start, other.start) < min(one.stop, other.stop)


def named(number: int, device: MmioDevice) -> str:
    """How messages call a device."""
    return f"device {number} at [{device.addresses.start:#x}, {device.addresses.stop:#x})"
