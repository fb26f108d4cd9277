"""A driver of virtio-mmio devices: the guest's half, with Linux' own numbers and records.

It drives a device without a machine, through the registers and rings that a kernel would use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from struct import pack, unpack

from vmm_arch.abi import devices_x86_64 as abi
from vmm_arch.devices.virtio.mmio import VirtioMmio
from vmm_arch.memory import GuestMemory

FOUND = abi.VIRTIO_CONFIG_S_ACKNOWLEDGE | abi.VIRTIO_CONFIG_S_DRIVER
READY = FOUND | abi.VIRTIO_CONFIG_S_FEATURES_OK | abi.VIRTIO_CONFIG_S_DRIVER_OK
BUFFERS = 0x10000
"""Where buffers begin; the rings of each queue are below, in 0x2000 bytes."""


@dataclass
class Ring:
    """A queue, as the driver has it."""

    size: int
    descriptors: int
    available: int
    used: int
    next_available: int = 0
    next_used: int = 0


class Driver:
    """Drives a device whose memory begins at 0."""

    def __init__(self, device: VirtioMmio, memory: GuestMemory) -> None:
        self.device = device
        self.memory = memory
        self.rings: list[Ring] = []
        self._free = BUFFERS

    def get(self, register: int) -> int:
        return self.device.read(register, 4)

    def put(self, register: int, value: int) -> None:
        self.device.write(register, 4, value)

    @property
    def offered(self) -> int:
        value = 0
        for page in (0, 1):
            self.put(abi.VIRTIO_MMIO_DEVICE_FEATURES_SEL, page)
            value |= self.get(abi.VIRTIO_MMIO_DEVICE_FEATURES) << 32 * page
        return value

    def accept(self, features: int) -> bool:
        """Ask for features; whether the device agrees."""
        self.put(abi.VIRTIO_MMIO_STATUS, 0)
        self.put(abi.VIRTIO_MMIO_STATUS, FOUND)
        for page in (0, 1):
            self.put(abi.VIRTIO_MMIO_DRIVER_FEATURES_SEL, page)
            self.put(abi.VIRTIO_MMIO_DRIVER_FEATURES, features >> 32 * page & 0xFFFFFFFF)
        self.put(abi.VIRTIO_MMIO_STATUS, FOUND | abi.VIRTIO_CONFIG_S_FEATURES_OK)
        return bool(self.get(abi.VIRTIO_MMIO_STATUS) & abi.VIRTIO_CONFIG_S_FEATURES_OK)

    def begin(self, features: int | None = None, size: int = 16) -> None:
        """Do what Linux does until the device is in use; with all its features by default."""
        assert self.get(abi.VIRTIO_MMIO_MAGIC_VALUE) == int.from_bytes(b"virt", "little")
        assert self.get(abi.VIRTIO_MMIO_VERSION) == 2
        assert self.accept(self.offered if features is None else features)
        self.rings = []
        self._free = BUFFERS
        for number in range(len(self.device.queues)):
            self.put(abi.VIRTIO_MMIO_QUEUE_SEL, number)
            assert self.get(abi.VIRTIO_MMIO_QUEUE_READY) == 0
            assert self.get(abi.VIRTIO_MMIO_QUEUE_NUM_MAX) >= size
            start = 0x1000 + 0x2000 * number
            ring = Ring(size, start, start + 0x800, start + 0x1000)
            self.memory.write(start, bytes(0x2000))
            self.put(abi.VIRTIO_MMIO_QUEUE_NUM, size)
            for low, high, address in (
                (abi.VIRTIO_MMIO_QUEUE_DESC_LOW, abi.VIRTIO_MMIO_QUEUE_DESC_HIGH, ring.descriptors),
                (abi.VIRTIO_MMIO_QUEUE_AVAIL_LOW, abi.VIRTIO_MMIO_QUEUE_AVAIL_HIGH, ring.available),
                (abi.VIRTIO_MMIO_QUEUE_USED_LOW, abi.VIRTIO_MMIO_QUEUE_USED_HIGH, ring.used),
            ):
                self.put(low, address & 0xFFFFFFFF)
                self.put(high, address >> 32)
            self.put(abi.VIRTIO_MMIO_QUEUE_READY, 1)
            self.rings.append(ring)
        self.put(abi.VIRTIO_MMIO_STATUS, READY)

    def place(self, size: int, content: bytes = b"") -> int:
        """Put a buffer into memory and return its address."""
        address = self._free
        self._free += max(size, 1)
        self.memory.write(address, content.ljust(size, b"\xee"))
        return address

    def describe(self, table: int, pieces: Sequence[tuple[int, int, bool]], first: int = 0) -> None:
        """Write descriptors for pieces, each an address, a size and whether the device writes."""
        for number, (address, size, write) in enumerate(pieces, first):
            more = number < first + len(pieces) - 1
            flags = abi.VRING_DESC_F_WRITE * write | abi.VRING_DESC_F_NEXT * more
            entry = pack("<QIHH", address, size, flags, number + 1 if more else 0)
            self.memory.write(table + 16 * number, entry)

    def offer(
        self, queue: int, pieces: Sequence[tuple[int, int, bool]], *, indirect: bool = False
    ) -> None:
        """Make one chain available, which begins at descriptor 0."""
        ring = self.rings[queue]
        if indirect:
            table = self.place(16 * len(pieces))
            self.describe(table, pieces)
            entry = pack("<QIHH", table, 16 * len(pieces), abi.VRING_DESC_F_INDIRECT, 0)
            self.memory.write(ring.descriptors, entry)
        else:
            self.describe(ring.descriptors, pieces)
        self.publish(queue, 0)

    def publish(self, queue: int, head: int) -> None:
        """Put a chain's head into the available ring."""
        ring = self.rings[queue]
        slot = ring.available + 4 + 2 * (ring.next_available % ring.size)
        self.memory.write(slot, pack("<H", head))
        ring.next_available = ring.next_available + 1 & 0xFFFF
        self.memory.write(ring.available + 2, pack("<H", ring.next_available))

    def notify(self, queue: int) -> None:
        self.put(abi.VIRTIO_MMIO_QUEUE_NOTIFY, queue)

    def used(self, queue: int) -> list[tuple[int, int]]:
        """Take what the device gave back: heads, and how many bytes it wrote."""
        ring = self.rings[queue]
        (index,) = unpack("<H", self.memory.read(ring.used + 2, 2))
        found = []
        while ring.next_used != index:
            slot = ring.used + 4 + 8 * (ring.next_used % ring.size)
            head, written = unpack("<II", self.memory.read(slot, 8))
            found.append((head, written))
            ring.next_used = ring.next_used + 1 & 0xFFFF
        return found

    def ask(
        self,
        readable: bytes,
        writable: int,
        *,
        queue: int = 0,
        cuts: Sequence[int] = (),
        indirect: bool = False,
    ) -> bytes:
        """Hand over one buffer, cut into descriptors, and return what the device wrote to it."""
        sent = self.place(len(readable), readable)
        room = self.place(writable)
        pieces = [(address, size, False) for address, size in _pieces(sent, len(readable), cuts)]
        pieces += [(address, size, True) for address, size in _pieces(room, writable, cuts)]
        self.offer(queue, pieces, indirect=indirect)
        self.notify(queue)
        ((head, written),) = self.used(queue)
        assert head == 0
        return self.memory.read(room, written)

    def interrupts(self) -> int:
        """Read and acknowledge the interrupt status."""
        found = self.get(abi.VIRTIO_MMIO_INTERRUPT_STATUS)
        self.put(abi.VIRTIO_MMIO_INTERRUPT_ACK, found)
        return found


def _pieces(start: int, size: int, cuts: Sequence[int]) -> list[tuple[int, int]]:
    places = sorted({0, size, *(cut for cut in cuts if cut < size)})
    return [(start + low, high - low) for low, high in pairwise(places)]
