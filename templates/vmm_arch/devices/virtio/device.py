"""The base of virtio devices: what they are apart from how a guest reaches them."""

from __future__ import annotations

from collections.abc import Mapping
from threading import RLock
from typing import Any, ClassVar, Protocol

from vmm_arch.devices.state import Fields, check
from vmm_arch.devices.virtio.queue import Chain, Queue


class Transport(Protocol):
    """What a device uses of its transport."""

    @property
    def queues(self) -> list[Queue]: ...
    @property
    def lock(self) -> RLock:
        """Held while the device handles what the driver did; for other threads to take."""

    def signal(self, queue: Queue) -> None:
        """Tell the driver that chains were pushed, if it wants to hear."""

    def config_changed(self) -> None:
        """Tell the driver that the device's configuration changed."""


class VirtioDevice:
    """A virtio device: a subclass says what it is and handles the driver's buffers::

        class Echo(VirtioDevice):
            DEVICE_TYPE = 63

            def handle(self, queue: int, chain: Chain) -> None:
                chain.write(chain.read(chain.readable))

    It is used through a transport, such as :class:`~vmm_arch.devices.virtio.mmio.VirtioMmio`. A
    device that keeps buffers until it has something for them overrides :meth:`notified`.
    """

    DEVICE_TYPE: ClassVar[int]
    """Section 5 of the specification, or ``linux/virtio_ids.h``."""
    FEATURES: int = 0
    """The bits of features that it offers, beside those of the transport."""
    QUEUES: ClassVar[tuple[int, ...]] = (256,)
    """How many descriptors each queue may have: powers of two."""
    STATE: ClassVar[Fields] = {}
    """What its own state consists of, as of any device; the transport has that of the queues."""

    transport: Transport
    """Set by the transport."""
    features: int = 0
    """The bits that were negotiated, those of the transport as well."""

    def config(self) -> bytes:
        """The device's configuration, as the driver reads it."""
        return b""

    def write_config(self, offset: int, data: bytes) -> None:
        """The driver writes the configuration; by default that changes nothing."""

    def notified(self, queue: int) -> None:
        """The driver made buffers available; by default :meth:`handle` gets each, and it goes back."""
        rings = self.transport.queues[queue]
        try:
            while (chain := rings.pop()) is not None:
                self.handle(queue, chain)
                rings.push(chain)
        finally:  # also of what was pushed before a driver's mistake
            self.transport.signal(rings)

    def handle(self, queue: int, chain: Chain) -> None:
        """Do what a buffer asks for: ``chain.read()``, ``chain.write()``."""

    def reset(self) -> None:
        """The driver resets the device: forget what it was doing."""

    def save(self) -> dict[str, Any]:
        """Return the device's own state."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the device's own state over, or raise StateError and change nothing."""
        check(self, state)
