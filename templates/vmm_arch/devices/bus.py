"""The device bus: routes each guest access to the device that owns the port or address.

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
    """A device on a bus. Offsets are relative to the start of its range.

    Values are unsigned and little-endian: the byte at ``offset`` is the lowest one. An access
    begins in the device's range; a wide one may reach beyond its end. Each vCPU calls from its own
    thread, so a device with state needs a lock.
    """

    def read(self, offset: int, size: int) -> int:
        """Return the ``size`` bytes at an offset. Higher bits are cut off, so -1 is all ones."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Write ``size`` bytes at an offset."""


Read: TypeAlias = Callable[[int, int], int]
Write: TypeAlias = Callable[[int, int, int], None]
Listener: TypeAlias = Callable[[Reason, int | None, int], object]


class Bus:
    """Routes accesses to devices. Attach devices before the guest runs.

    Unclaimed reads return all ones and unclaimed writes are dropped, as on an empty bus.
    ``unclaimed`` is called with each such access first: ``Bus(unclaimed=print)`` shows what a guest
    probes for.
    """

    def __init__(self, unclaimed: Callable[[Access], object] | None = None) -> None:
        self._unclaimed = unclaimed
        self._attached: dict[str, list[tuple[range, Device]]] = {"ports": [], "addresses": []}
        self._ports: dict[int, tuple[int, Read, Write]] = {}
        """For each port its offset in the device's range, and the device's methods."""
        self._starts: list[int] = []
        self._memory: list[tuple[int, int, Read, Write]] = []
        """In ascending order: start and end of a device's address range, and its methods."""
        self._request: tuple[Reason, int | None, int] | None = None
        self._listener: Listener | None = None

    def attach_ports(self, ports: range, device: Device) -> None:
        """Attach a device to a range of ports. Raises ValueError if it overlaps another device."""
        self._claim_range("ports", ports, PORTS, device)
        for offset, port in enumerate(ports):
            self._ports[port] = offset, device.read, device.write

    def attach_memory(self, addresses: range, device: Device) -> None:
        """Attach a device to a range of guest-physical addresses.

        Raises ValueError if it overlaps another device. Accesses that guest memory serves never come here.
        """
        self._claim_range("addresses", addresses, ADDRESSES, device)
        at = bisect_right(self._starts, addresses.start)
        self._starts.insert(at, addresses.start)
        self._memory.insert(at, (addresses.start, addresses.stop, device.read, device.write))

    def handle(self, exit: Exit) -> bool:
        """Route an access to its device and answer it; False if the exit is not an access.

        An exception that a device raises is propagated, with a note that names the access; a read
        is then left unanswered.
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
            error.add_note(f"The guest access was {exit!r}.")
            raise
        if self._unclaimed is not None:
            self._unclaimed(exit)
        exit.ignore()
        return True

    def stop(self, reason: Reason = Reason.STOPPED, code: int | None = None) -> None:
        """End ``serve()``: the current call, or else the next one.

        ``reason`` and ``code`` go into its :class:`Ending`; the first call's reason counts. Safe in
        devices, other threads and signal handlers.
        """
        # No lock, which the thread that a signal handler interrupts could hold. The request is
        # written before the listener is read; listening() does the opposite.
        self._request = self._request or (reason, code, get_ident())
        listener = self._listener
        if listener is not None:
            listener(reason, code, get_ident())

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Call ``listener`` at each :meth:`stop`, an earlier one included: reason, code, thread.

        For ``serve()``. Raises RuntimeError if the bus already has a listener.
        """
        if self._listener is not None:
            raise RuntimeError("the bus is already being served: use one bus for each machine")
        self._listener = listener
        try:
            if self._request is not None:
                listener(*self._request)
            yield
        finally:
            self._listener = None
            self._request = None

    def _claim_range(self, what: str, new: range, allowed: range, device: Device) -> None:
        """Record what is attached where; raises ValueError if the range is not free."""
        place = f"{type(device).__name__} at {what} {_interval(new)}"
        if new.step != 1 or not new:
            raise ValueError(f"{place}: expected a non-empty range with step 1")
        if new.start < allowed.start or new.stop > allowed.stop:
            raise ValueError(f"{place} is beyond the bus, which has {what} {_interval(allowed)}")
        for old, neighbour in self._attached[what]:
            if new.start < old.stop and old.start < new.stop:
                other = f"{type(neighbour).__name__} at {_interval(old)}"
                raise ValueError(f"{place} overlaps {other}; move or shrink one of them")
        self._attached[what].append((new, device))


def _write_string(exit: IoOut, offset: int, write: Write) -> None:
    """OUTS: write value by value to the same port."""
    size = exit.size
    for at in range(0, len(exit.data), size):
        write(offset, size, int.from_bytes(exit.data[at : at + size], "little"))


def _read_string(exit: IoIn, offset: int, read: Read) -> None:
    """INS: read value by value from the same port."""
    size = exit.size
    mask = (1 << 8 * size) - 1
    values = (read(offset, size) & mask for _ in range(exit.count))
    exit.complete(b"".join(value.to_bytes(size, "little") for value in values))


def _interval(numbers: range) -> str:
    return f"[{numbers.start:#x}, {numbers.stop:#x})"
