"""The PC devices that a stock Linux needs, besides its serial port.

Devices that can end the guest take ``bus.stop``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeAlias

from vmm_arch.devices.state import Bytes, Fields, Number, Stateless, check
from vmm_arch.ending import Reason
from vmm_arch.memory import GuestMemory, MemoryAccessError
from vmm_arch.x86_64.bus import Bus
from vmm_arch.x86_64.platform.acpi import SLEEP_TYPE_OFF
from vmm_arch.x86_64.platform.resources import (
    CMOS_DATA_PORT,
    CMOS_INDEX_PORT,
    DELAY_PORTS,
    I8042_COMMAND_PORT,
    PANIC_PORT,
    PIT_PORTS,
    RESET_PORT,
    SLEEP_CONTROL_PORT,
    SLEEP_STATUS_PORT,
)

Stop: TypeAlias = Callable[[Reason], object]

RESET_FLAG: Final = 0x472
"""Guest-physical; in the BIOS data area, where an operating system leaves the mode of its reset."""
WARM: Final = 0x1234


def attach_pc_devices(
    bus: Bus,
    memory: GuestMemory | None = None,
    *,
    now: Callable[[], time.struct_time] = time.gmtime,
) -> None:
    """Attach the clock, and the devices for reset and power off, where Linux expects them.

    The ACPI tables describe them, and the pvpanic port, for which few kernels have a driver. With
    ``memory``, a reset because of a panic of Linux, started with the command line of
    ``linux_cmdline()``, is :attr:`Reason.PANIC`; without it, every reset is :attr:`Reason.RESET`.
    """

    def reset(reason: Reason) -> None:
        bus.stop(Reason.PANIC if memory is not None and panicked(memory) else reason)

    bus.defer_ports(DELAY_PORTS)
    bus.attach_ports(PIT_PORTS, AbsentPit())
    bus.attach_ports(range(CMOS_INDEX_PORT, CMOS_DATA_PORT + 1), Cmos(now))
    bus.attach_ports(range(I8042_COMMAND_PORT, I8042_COMMAND_PORT + 1), AbsentI8042(reset))
    bus.attach_ports(range(RESET_PORT, RESET_PORT + 1), ResetControl(reset))
    bus.attach_ports(range(PANIC_PORT, PANIC_PORT + 1), PvPanic(bus.stop))
    bus.attach_ports(range(SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT + 1), AcpiSleep(bus.stop))


def panicked(memory: GuestMemory) -> bool:
    """Whether Linux resets the machine because of a panic.

    That needs the command line of ``linux_cmdline()``, which makes the reset after a panic a warm
    one, without ``reboot=warm``, which makes every reset warm. Before any reset Linux writes its
    mode to the BIOS data area (``native_machine_emergency_restart``, arch/x86/kernel/reboot.c).
    """
    try:
        return int.from_bytes(memory.read(RESET_FLAG, 2), "little") == WARM
    except MemoryAccessError:  # no memory there, no flag
        return False


class Cmos:
    """The real-time clock and its 128 bytes of memory, with an index and a data port (MC146818).

    The clock shows the result of ``now``, by default UTC, and is never in the middle of an update:
    if the port read as all ones, Linux would wait long for the update to end. The clock cannot be
    set and raises no interrupts.
    """

    STATUS_A, STATUS_B, STATUS_C, STATUS_D = 0xA, 0xB, 0xC, 0xD
    CENTURY = 0x32
    """The index given in a PC's FADT."""
    UPDATE_IN_PROGRESS = 0x80
    DATA_MODE_BINARY = 0x4
    MODE_24_HOURS = 0x2
    VALID = 0x80
    DIVIDER_AND_RATE = 0x26
    """32,768 Hz and 1,024 periodic interrupts a second, as left by firmware."""
    STATE: ClassVar[Fields] = {"index": Number(7), "memory": Bytes(128, 128)}
    DEFERRABLE: ClassVar[Sequence[int]] = (0,)
    """The index, which matters to the data port only."""

    def __init__(self, now: Callable[[], time.struct_time] = time.gmtime) -> None:
        self._now = now
        self._index = 0
        self._memory = bytearray(128)
        self._memory[self.STATUS_A] = self.DIVIDER_AND_RATE
        self._memory[self.STATUS_B] = self.MODE_24_HOURS

    def read(self, offset: int, size: int) -> int:
        """Read the byte at the index; the index port itself reads as all ones."""
        return -0x100 | self._byte(self._index) if offset == 1 else -1

    def write(self, offset: int, size: int, value: int) -> None:
        """Set the index (without bit 7, which masks NMIs), write the byte, or both if wide."""
        if offset == 0:
            self._index = value & 0x7F
            value >>= 8
        if offset == 1 or size > 1:
            self._memory[self._index] = value & 0xFF

    def save(self) -> dict[str, Any]:
        """Return the index and the memory. What the clock shows is not state: it is ``now()``."""
        return {"index": self._index, "memory": self._memory.hex()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""
        check(self, state)
        self._index = state["index"]
        self._memory[:] = bytes.fromhex(state["memory"])

    def _byte(self, index: int) -> int:
        match index:
            case self.STATUS_A:
                return self._memory[index] & ~self.UPDATE_IN_PROGRESS
            case self.STATUS_C:
                return 0  # no interrupt
            case self.STATUS_D:
                return self.VALID
        now = self._now()
        of_the_clock = {
            0: now.tm_sec,
            2: now.tm_min,
            4: now.tm_hour,
            6: (now.tm_wday + 1) % 7 + 1,  # Sunday is 1
            7: now.tm_mday,
            8: now.tm_mon,
            9: now.tm_year % 100,
            self.CENTURY: now.tm_year // 100,
        }
        value = of_the_clock.get(index)
        if value is None:
            return self._memory[index]
        if self._memory[self.STATUS_B] & self.DATA_MODE_BINARY:
            return value
        return value // 10 << 4 | value % 10


class AbsentPit(Stateless):
    """The timer's ports (8254) if the hypervisor has no timer: the counters read as zero.

    If they read as all ones, Linux would read one of them 100,000 times to calibrate its clock.
    """

    def read(self, offset: int, size: int) -> int:
        """Zero."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Do nothing."""


class AbsentI8042(Stateless):
    """The command port of an absent keyboard controller: only the reset command works."""

    PULSE_RESET = 0xFE

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def read(self, offset: int, size: int) -> int:
        """All ones, so that no driver waits for the controller."""
        return -1

    def write(self, offset: int, size: int, value: int) -> None:
        """Reset the machine if the value is that command."""
        if value & 0xFF == self.PULSE_RESET:
            self._stop(Reason.RESET)


class ResetControl:
    """The reset control register of PC chipsets (Intel ICH and PCH, RST_CNT at port 0xCF9)."""

    RESET_CPU = 0x4
    STATE: ClassVar[Fields] = {"value": Number(8)}

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._value = 0

    def read(self, offset: int, size: int) -> int:
        """The last value written, without RST_CPU: the kind of reset."""
        return self._value

    def write(self, offset: int, size: int, value: int) -> None:
        """Reset the machine when RST_CPU is set; the other bits select the kind of reset."""
        self._value = value & 0xFF & ~self.RESET_CPU
        if value & self.RESET_CPU:
            self._stop(Reason.RESET)

    def save(self) -> dict[str, Any]:
        """Return the register."""
        return {"value": self._value}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""
        check(self, state)
        self._value = state["value"]


class AcpiSleep(Stateless):
    """SLEEP_CONTROL followed by SLEEP_STATUS of hardware-reduced ACPI (ACPI 6.5, 4.8.3.7).

    The sleep type of the DSDT's ``_S5`` powers the machine off.
    """

    SLP_EN = 0x20

    def __init__(self, stop: Stop, type_off: int = SLEEP_TYPE_OFF) -> None:
        self._stop = stop
        self._type_off = type_off

    def read(self, offset: int, size: int) -> int:
        """Zero: SLP_EN is write-only, and the machine never woke up (WAK_STS)."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Power the machine off when SLP_EN is set with that type."""
        if offset == 0 and value & self.SLP_EN and value >> 2 & 7 == self._type_off:
            self._stop(Reason.POWER_OFF)


class PvPanic(Stateless):
    """The port through which a guest reports a panic (QEMU, docs/specs/pvpanic.rst)."""

    PANICKED = 0x1
    """The guest panicked, and the host has to handle it."""
    CRASH_LOADED = 0x2
    """The guest panicked and handles it itself, with a crash kernel: it runs on."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def read(self, offset: int, size: int) -> int:
        """The supported events."""
        return self.PANICKED | self.CRASH_LOADED

    def write(self, offset: int, size: int, value: int) -> None:
        """End the guest if it panicked and does not handle that itself."""
        if value & self.PANICKED:
            self._stop(Reason.PANIC)


class DebugExit(Stateless):
    """A port, often 0xF4, that ends the guest; the value written is the ending's ``code``.

    Like QEMU's isa-debug-exit, for tests that run without an operating system.
    """

    def __init__(self, stop: Callable[[Reason, int], object]) -> None:
        self._stop = stop

    def read(self, offset: int, size: int) -> int:
        """Zero, like QEMU's."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """End the guest."""
        self._stop(Reason.DEBUG_EXIT, value)


class DebugPort(Stateless):
    """Bochs' debug port, usually 0xE9: passes each byte to ``output``; reading it detects it."""

    PRESENT = 0xE9

    def __init__(self, output: Callable[[bytes], object]) -> None:
        self._output = output

    def read(self, offset: int, size: int) -> int:
        """The port's own number."""
        return self.PRESENT

    def write(self, offset: int, size: int, value: int) -> None:
        """Pass the lowest byte to ``output``."""
        self._output(bytes((value & 0xFF,)))
