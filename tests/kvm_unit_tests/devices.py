"""What kvm-unit-tests look for beside a PC: an example of devices on a bus.

Source: QEMU, hw/misc/pc-testdev.c and hw/nvram/fw_cfg.c; kvm-unit-tests, lib/x86/fwcfg.h.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from typing import Protocol

from vmm_arch.memory import GuestMemory
from vmm_arch.x86_64.bus import Bus
from vmm_arch.x86_64.platform.pc import DebugExit

DEBUG_EXIT_PORTS = range(0xF4, 0xF8)
LATCH_PORTS = range(0xE0, 0xE4), range(0xE8, 0xEC)
FLUSH_PORTS = range(0xE4, 0xE8)
LINE_PORTS = range(0x2000, 0x2018)
SCRATCH = range(0xFF000000, 0xFF010000)
FW_CFG_PORTS = range(0x510, 0x512)


class Machine(Protocol):
    """What the devices need of a virtual machine."""

    @property
    def memory(self) -> GuestMemory: ...
    def set_irq_line(self, line: int, level: bool, /) -> None: ...


def attach_test_devices(bus: Bus, vm: Machine, *, cpus: int, ram: int) -> None:
    """Attach them all; ``ram`` is the size that the machine was created with, in bytes."""
    bus.attach_ports(DEBUG_EXIT_PORTS, DebugExit(bus.stop))
    latch = Latch()
    for ports in LATCH_PORTS:
        bus.attach_ports(ports, latch)
    bus.attach_ports(FLUSH_PORTS, PageFlush(vm.memory))
    bus.attach_ports(LINE_PORTS, InterruptLines(vm.set_irq_line))
    bus.attach_memory(SCRATCH, Scratch(len(SCRATCH)))
    bus.attach_ports(FW_CFG_PORTS, FwCfg(fw_cfg_items(cpus, ram)))


class Scratch:
    """Bytes behind MMIO, which are what was written to them."""

    def __init__(self, size: int) -> None:
        self._data = bytearray(size + 7)  # a wide access may begin at the last byte

    def read(self, offset: int, size: int) -> int:
        """Read what was written."""
        return int.from_bytes(self._data[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Keep it."""
        self._data[offset : offset + size] = value.to_bytes(size, "little")


class Latch(Scratch):
    """Four ports, twice, that keep what was written: for IN and OUT of all sizes."""

    def __init__(self) -> None:
        super().__init__(4)


class PageFlush:
    """Makes the host forget where a page of the guest is: it faults anew at its next use.

    Programs write a guest-physical address before an event whose delivery is to need that page.
    """

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory

    def read(self, offset: int, size: int) -> int:
        """Nothing is here."""
        return -1

    def write(self, offset: int, size: int, value: int) -> None:
        """Have the hypervisor drop its mapping of the page."""
        page = value & ~0xFFF
        for region in self._memory.regions:
            if region.address <= page < region.end:
                _forget(self._memory.host_address(region) + page - region.address)


_PROT_NONE, _PROT_READ, _PROT_WRITE = 0, 1, 2


def _forget(address: int) -> None:
    """Take all access from a page of this process, and give it back. On Windows nothing is done."""
    if os.name == "posix":
        mprotect = ctypes.CDLL(None, use_errno=True).mprotect
        for protection in (_PROT_NONE, _PROT_READ | _PROT_WRITE):
            if mprotect(ctypes.c_void_p(address), ctypes.c_size_t(0x1000), protection):
                raise OSError(ctypes.get_errno(), "mprotect")


class InterruptLines:
    """A port for each interrupt line: anything but zero raises it, zero lowers it."""

    def __init__(self, set_line: Callable[[int, bool], None]) -> None:
        self._set_line = set_line

    def read(self, offset: int, size: int) -> int:
        """Nothing is here."""
        return -1

    def write(self, offset: int, size: int, value: int) -> None:
        """Raise or lower the line with the offset's number."""
        self._set_line(offset, value != 0)


class FwCfg:
    """QEMU's configuration device: a selector, and a port that gives the selected item's bytes."""

    def __init__(self, items: dict[int, bytes]) -> None:
        self._items = items
        self._item = b""
        self._at = 0

    def read(self, offset: int, size: int) -> int:
        """Give the next byte, zero behind the last one."""
        if offset != 1:
            return -1
        byte = self._item[self._at] if self._at < len(self._item) else 0
        self._at += 1
        return byte

    def write(self, offset: int, size: int, value: int) -> None:
        """Select an item; data cannot be written."""
        if offset == 0:
            self._item, self._at = self._items.get(value & 0xFFFF, b""), 0


def fw_cfg_items(cpus: int, ram: int) -> dict[int, bytes]:
    """What programs ask for: by selector, as little-endian numbers."""
    return {
        0x00: b"QEMU",
        0x01: struct.pack("<I", 1),  # the traditional interface, without DMA
        0x03: struct.pack("<Q", ram),
        0x05: struct.pack("<H", cpus),
        0x0F: struct.pack("<H", cpus),
    }
