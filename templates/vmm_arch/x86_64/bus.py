"""The device bus of x86_64, which has ports beside the addresses.

::

    bus = Bus()
    serial = Serial16550(partial(os.write, 1), partial(vm.set_irq_line, SERIAL_LINE))
    bus.attach_ports(range(SERIAL_PORT, SERIAL_PORT + 8), serial)
    while bus.handle(exit := vcpu.run()):
        pass
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeAlias

from vmm_arch.devices import bus
from vmm_arch.devices.bus import Device, Read, Routes, Space, Write
from vmm_arch.exits import MmioRead, MmioWrite
from vmm_arch.x86_64.exits import IoIn, IoOut

PORTS = range(0x10000)
"""Port numbers have 16 bits."""

Access: TypeAlias = IoIn | IoOut | MmioRead | MmioWrite


class Bus(bus.Bus):
    """Routes accesses to devices. Attach devices before the guest runs.

    Unclaimed reads return all ones and unclaimed writes are dropped, as on an empty bus.
    ``unclaimed`` is called with each such access first: ``Bus(unclaimed=print)`` shows what a guest
    probes for.
    """

    def __init__(self, unclaimed: Callable[[Access], object] | None = None) -> None:
        super().__init__(unclaimed)
        self._claimed_ports = Space("ports", PORTS)
        self._spaces.append(self._claimed_ports)
        self._ports: dict[int, tuple[int, Read, Write]] = {}
        """For each port its offset in the device's range, and the device's methods."""

    def attach_ports(self, ports: range, device: Device) -> None:
        """Attach a device to a range of ports. Raises ValueError if it overlaps another device."""
        self._claimed_ports.claim(ports, device)
        for offset, port in enumerate(ports):
            self._ports[port] = offset, device.read, device.write

    def defer_ports(self, ports: range) -> None:
        """Let :meth:`coalesce` collect writes to ports that nothing listens to, such as 0x80."""
        self._claimed_ports.deferred.append(ports)

    def _write_port(self, exit: IoOut) -> bool:
        found = self._ports.get(exit.port)
        if found is None:
            return False
        offset, _, write = found
        if exit.count == 1:
            write(offset, exit.size, int.from_bytes(exit.data, "little"))
        else:
            _write_string(exit, offset, write)
        return True

    def _read_port(self, exit: IoIn) -> bool:
        found = self._ports.get(exit.port)
        if found is None:
            return False
        offset, read, _ = found
        if exit.count == 1:
            size = exit.size
            exit.complete(read(offset, size) & (1 << 8 * size) - 1)
        else:
            _read_string(exit, offset, read)
        return True

    _ROUTES: ClassVar[Routes] = {
        **bus.Bus._ROUTES,
        IoIn: _read_port,
        IoOut: _write_port,
    }


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
