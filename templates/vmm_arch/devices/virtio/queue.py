"""Split virtqueues: rings in guest memory by which a driver hands buffers to a device, and gets them back.

Nothing in them is trusted: what breaks the rules raises VirtqueueError, and addresses outside guest
memory MemoryAccessError. Source: Virtual I/O Device (VIRTIO) version 1.2, section 2.7, whose numbers
are the same on every CPU; a test compares them with ``linux/virtio_ring.h``. Addresses are
guest-physical, sizes in bytes.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from vmm_arch.memory import GuestMemory

DESCRIPTOR_NEXT: Final = 1
"""Flags of a descriptor: the chain continues; the device writes; it is a table of descriptors."""
DESCRIPTOR_WRITE: Final = 2
DESCRIPTOR_INDIRECT: Final = 4
DRIVER_POLLS: Final = 1
"""Flag of the available ring: no interrupts, please."""
LARGEST_QUEUE: Final = 0x8000
"""The number of descriptors that a queue or an indirect table may have."""

_DESCRIPTOR: Final = Struct("<QIHH")
"""Address, length, flags, and the index of the next."""
_INDEX: Final = Struct("<H")
_USED: Final = Struct("<II")
"""The chain's first descriptor, and how many bytes were written."""


class VirtqueueError(ValueError):
    """A driver broke the rules of virtqueues."""


class Chain:
    """One buffer of the driver's: bytes for the device to read, then bytes for it to write.

    Both are streams, however the driver divided them into descriptors (2.7.4.2), which never was part
    of what a request means.
    """

    __slots__ = ("_memory", "_readable", "_writable", "head", "readable", "writable", "written")

    def __init__(
        self,
        memory: GuestMemory,
        head: int,
        readable: list[tuple[int, int]],
        writable: list[tuple[int, int]],
    ) -> None:
        """``readable`` and ``writable`` have the address and size of each piece."""
        self.head = head
        """Its first descriptor's index."""
        self.readable = sum(size for _, size in readable)
        """How many bytes are left to read."""
        self.writable = sum(size for _, size in writable)
        """How many bytes there is room for."""
        self.written = 0
        self._memory = memory
        self._readable = readable[::-1]
        self._writable = writable[::-1]

    def read(self, size: int) -> bytes:
        """Return the next bytes, so many or as many as there are."""
        found = [self._memory.read(*piece) for piece in _cut(self._readable, size)]
        data = found[0] if len(found) == 1 else b"".join(found)
        self.readable -= len(data)
        return data

    def write(self, data: bytes) -> int:
        """Append to what was written, as far as there is room; return how much that was."""
        done = 0
        for address, size in _cut(self._writable, len(data)):
            self._memory.write(address, data[done : done + size])
            done += size
        self.writable -= done
        self.written += done
        return done


def _cut(pieces: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Take the first so many bytes from pieces that are in reverse order."""
    taken = []
    while size and pieces:
        address, length = pieces.pop()
        if length > size:
            pieces.append((address + size, length - size))
            length = size
        if length:
            taken.append((address, length))
        size -= length
    return taken


class Queue:
    """One virtqueue, as the device sees it.

    Its places come from the driver, through the transport. The device takes chains with :meth:`pop`
    and gives each back with :meth:`push`, in any order.
    """

    FIELDS: Final = {"size": 16, "descriptors": 64, "driver": 64, "device": 64} | dict.fromkeys(
        ("ready", "next_available", "next_used", "signalled"), 16
    )
    """The attributes that are its state, and how many bits each has."""

    def __init__(self, memory: GuestMemory, maximum: int) -> None:
        if not 0 < maximum <= LARGEST_QUEUE or maximum & maximum - 1:
            raise ValueError(f"a virtqueue of {maximum}: give a power of two up to {LARGEST_QUEUE}")
        self._memory = memory
        self.maximum = maximum
        self.event_index = False
        """Whether VIRTIO_F_EVENT_IDX was negotiated: either side tells when it wants to hear."""
        self.reset()

    def reset(self) -> None:
        """Return to the state before the driver set it up."""
        self.size = self.maximum
        self.ready = 0
        self.descriptors = 0
        """The address of the table of descriptors. Then: that of the available and the used ring."""
        self.driver = 0
        self.device = 0
        self.next_available = 0
        """How many chains were taken, and given back, modulo 0x10000."""
        self.next_used = 0
        self.signalled = 0
        """``next_used`` when the driver was last told."""

    def problem(self) -> str | None:
        """What is wrong with the driver's set-up, if anything."""
        if not 0 < self.size <= self.maximum or self.size & self.size - 1:
            return f"its size is {self.size}, not a power of two up to {self.maximum}"
        for name, address, alignment in (
            ("descriptor table", self.descriptors, 16),
            ("available ring", self.driver, 2),
            ("used ring", self.device, 4),
        ):
            if address % alignment:
                return f"its {name} at {address:#x} is not at a multiple of {alignment}"
        return None

    def _index(self, address: int) -> int:
        index: int = _INDEX.unpack(self._memory.read(address, 2))[0]
        return index

    def pop(self) -> Chain | None:
        """Take the next chain; None if there is none, and then the driver notifies of the next."""
        if not self.ready:
            return None
        waiting = self._waiting()
        if not waiting and self.event_index:
            event = self.device + 4 + _USED.size * self.size
            self._memory.write(event, _INDEX.pack(self.next_available))
            waiting = self._waiting()  # one that came before the driver could see that
        if not waiting:
            return None
        if waiting > self.size:
            raise VirtqueueError(f"{waiting} chains wait in a queue of {self.size}")
        entry = self.driver + 4 + 2 * (self.next_available % self.size)
        chain = self._chain(self._index(entry))
        self.next_available = self.next_available + 1 & 0xFFFF
        return chain

    def _waiting(self) -> int:
        return self._index(self.driver + 2) - self.next_available & 0xFFFF

    def _chain(self, head: int) -> Chain:
        """Follow the descriptors from this one on."""
        readable: list[tuple[int, int]] = []
        writable: list[tuple[int, int]] = []
        table, count, left, index = self.descriptors, self.size, self.size, head
        while True:
            if index >= count:
                raise VirtqueueError(f"descriptor {index} is beyond a table of {count}")
            if not left:
                raise VirtqueueError(f"the chain of descriptor {head} does not end")
            left -= 1
            address, size, flags, following = _DESCRIPTOR.unpack(
                self._memory.read(table + _DESCRIPTOR.size * index, _DESCRIPTOR.size)
            )
            if flags & DESCRIPTOR_INDIRECT:
                if table != self.descriptors or flags & DESCRIPTOR_NEXT:
                    raise VirtqueueError(f"descriptor {index}: an indirect table cannot be there")
                count, odd = divmod(size, _DESCRIPTOR.size)
                if odd or not 0 < count <= LARGEST_QUEUE:
                    raise VirtqueueError(f"descriptor {index}: an indirect table of {size} bytes")
                table, left, index = address, count, 0
                continue
            if flags & DESCRIPTOR_WRITE:
                writable.append((address, size))
            elif writable:
                raise VirtqueueError(f"descriptor {index}: to be read, after some to be written")
            else:
                readable.append((address, size))
            if not flags & DESCRIPTOR_NEXT:
                return Chain(self._memory, head, readable, writable)
            index = following

    def push(self, chain: Chain) -> None:
        """Give a chain back to the driver."""
        entry = self.device + 4 + _USED.size * (self.next_used % self.size)
        self._memory.write(entry, _USED.pack(chain.head, chain.written))
        self.next_used = self.next_used + 1 & 0xFFFF
        self._memory.write(self.device + 2, _INDEX.pack(self.next_used))

    def signal(self) -> bool:
        """Whether the driver wants an interrupt for what was pushed since this was last called."""
        new = self.next_used - self.signalled & 0xFFFF
        if not new:
            return False
        self.signalled = self.next_used
        if self.event_index:
            event = self._index(self.driver + 4 + 2 * self.size)
            return (self.next_used - event - 1 & 0xFFFF) < new
        return not self._index(self.driver) & DRIVER_POLLS
