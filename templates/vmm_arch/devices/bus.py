"""Where devices hang: an access of the guest's goes to whoever has its port or address.

::

    bus = Bus()
    serial = Serial16550(partial(os.write, 1), partial(vm.set_irq_line, SERIAL_LINE))
    bus.attach_ports(range(SERIAL_PORT, SERIAL_PORT + 8), serial)
    while bus.handle(exit := vcpu.run()):
        pass
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Protocol, TypeAlias

from vmm_arch.ending import Reason
from vmm_arch.exits import Exit, IoIn, IoOut, MmioRead, MmioWrite

PORTS = range(0x10000)
"""Port numbers have 16 bits."""
ADDRESSES = range(1 << 64)

Access: TypeAlias = IoIn | IoOut | MmioRead | MmioWrite


class Device(Protocol):
    """What hangs on a bus. Offsets count from the beginning of its range.

    Values are unsigned and little endian: the byte at ``offset`` is the lowest one. An access
    begins in the device's range; a wide one may reach beyond its end. The vCPUs of a machine call
    from threads of their own: a device that minds has a lock.
    """

    def read(self, offset: int, size: int) -> int:
        """Return the ``size`` bytes at an offset. What is above them is cut off: -1 is all ones."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Take ``size`` bytes at an offset."""


Read: TypeAlias = Callable[[int, int], int]
Write: TypeAlias = Callable[[int, int, int], None]
Listener: TypeAlias = Callable[[Reason, int | None, int], object]


class Bus:
    """Takes accesses to devices. Attach them before the guest runs.

    Where nobody is, a read gives all ones and a write is lost, as on an empty bus. ``unclaimed`` is
    called with each such access first: ``Bus(unclaimed=print)`` shows what a guest looks for.
    """

    def __init__(self, unclaimed: Callable[[Access], object] | None = None) -> None:
        self._unclaimed = unclaimed
        self._attached: dict[str, list[tuple[range, Device]]] = {"ports": [], "addresses": []}
        self._ports: dict[int, tuple[int, Read, Write]] = {}
        """By port: the offset in the device's range, and the device's methods."""
        self._starts: list[int] = []
        self._memory: list[tuple[int, int, Read, Write]] = []
        """In ascending order: where a device's range of addresses begins and ends, its methods."""
        self._request: tuple[Reason, int | None, int] | None = None
        self._listener: Listener | None = None

    def attach_ports(self, ports: range, device: Device) -> None:
        """Attach a device to a range of ports. Raises ValueError if one of them is taken."""
        self._note("ports", ports, PORTS, device)
        for offset, port in enumerate(ports):
            self._ports[port] = offset, device.read, device.write

    def attach_memory(self, addresses: range, device: Device) -> None:
        """Attach a device to a range of guest-physical addresses.

        Raises ValueError if one of them is taken. Where there is guest memory, no access comes here.
        """
        self._note("addresses", addresses, ADDRESSES, device)
        at = bisect_right(self._starts, addresses.start)
        self._starts.insert(at, addresses.start)
        self._memory.insert(at, (addresses.start, addresses.stop, device.read, device.write))

    def handle(self, exit: Exit) -> bool:
        """Take an access to its device and answer it; False if the exit is no access.

        What a device raises goes on to the caller, with a note that names the access. A read has no
        answer then.
        """
        try:
            match exit:
                case IoOut():
                    if found := self._ports.get(exit.port):
                        offset, _, write = found
                        if exit.count == 1:
                            write(offset, exit.size, int.from_bytes(exit.data, "little"))
                        else:
                            _write_string(exit, offset, write)
                        return True
                case IoIn():
                    if found := self._ports.get(exit.port):
                        offset, read, _ = found
                        if exit.count == 1:
                            size = exit.size
                            exit.complete(read(offset, size) & (1 << 8 * size) - 1)
                        else:
                            _read_string(exit, offset, read)
                        return True
                case MmioWrite():
                    if at := bisect_right(self._starts, address := exit.address):
                        start, stop, _, write = self._memory[at - 1]
                        if address < stop:
                            data = exit.data
                            write(address - start, len(data), int.from_bytes(data, "little"))
                            return True
                case MmioRead():
                    if at := bisect_right(self._starts, address := exit.address):
                        start, stop, read, _ = self._memory[at - 1]
                        if address < stop:
                            size = exit.size
                            exit.complete(read(address - start, size) & (1 << 8 * size) - 1)
                            return True
                case _:
                    return False
        except Exception as error:
            error.add_note(f"The guest's access was {exit!r}.")
            raise
        if self._unclaimed is not None:
            self._unclaimed(exit)
        exit.ignore()
        return True

    def stop(self, reason: Reason = Reason.STOPPED, code: int | None = None) -> None:
        """End ``serve()``, the present one or the next.

        ``reason`` and ``code`` are what its :class:`Ending` says. For devices, other threads and
        handlers of signals. If several ask, the first reason counts.
        """
        # No lock: a signal may come while one is held. First the request, then the listener, who
        # looks in the other order.
        self._request = self._request or (reason, code, get_ident())
        listener = self._listener
        if listener is not None:
            listener(reason, code, get_ident())

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Hear of each :meth:`stop`, earlier ones included: reason, code, and the asking thread.

        For who serves the guest, which only one can do at a time: others get a RuntimeError.
        """
        if self._listener is not None:
            raise RuntimeError("the bus is being served already: use one bus for each machine")
        self._listener = listener
        try:
            if self._request is not None:
                listener(*self._request)
            yield
        finally:
            self._listener = None
            self._request = None

    def _note(self, what: str, new: range, allowed: range, device: Device) -> None:
        """Remember what is attached where, or say why it cannot be."""
        place = f"{type(device).__name__} at {what} {_interval(new)}"
        if new.step != 1 or not new:
            raise ValueError(f"{place}: give it a range of one or more, without gaps")
        if new.start < allowed.start or new.stop > allowed.stop:
            raise ValueError(f"{place} is beyond the bus, which has {what} {_interval(allowed)}")
        for old, neighbour in self._attached[what]:
            if new.start < old.stop and old.start < new.stop:
                other = f"{type(neighbour).__name__} at {_interval(old)}"
                raise ValueError(f"{place} overlaps {other}; move or shrink one of them")
        self._attached[what].append((new, device))


def _write_string(exit: IoOut, offset: int, write: Write) -> None:
    """OUTS: value by value to the same port."""
    size = exit.size
    for at in range(0, len(exit.data), size):
        write(offset, size, int.from_bytes(exit.data[at : at + size], "little"))


def _read_string(exit: IoIn, offset: int, read: Read) -> None:
    """INS: value by value from the same port."""
    size = exit.size
    mask = (1 << 8 * size) - 1
    values = (read(offset, size) & mask for _ in range(exit.count))
    exit.complete(b"".join(value.to_bytes(size, "little") for value in values))


def _interval(numbers: range) -> str:
    return f"[{numbers.start:#x}, {numbers.stop:#x})"
