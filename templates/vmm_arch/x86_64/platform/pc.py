"""The little of a PC that a stock Linux looks for, beside its serial port.

Those that end the guest are given ``bus.stop``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeAlias

from vmm_arch.devices.bus import Bus
from vmm_arch.ending import Reason
from vmm_arch.memory import GuestMemory, MemoryAccessError
from vmm_arch.x86_64.platform.acpi import SLEEP_TYPE_OFF
from vmm_arch.x86_64.platform.resources import (
    CMOS_DATA_PORT,
    CMOS_INDEX_PORT,
    I8042_COMMAND_PORT,
    PANIC_PORT,
    PIT_PORTS,
    RESET_PORT,
    SLEEP_CONTROL_PORT,
    SLEEP_STATUS_PORT,
)

Stop: TypeAlias = Callable[[Reason], object]

RESET_FLAG: Final = 0x472
"""Guest-physical; in the BIOS data area, where an operating system says how it wants to be reset."""
WARM: Final = 0x1234


def attach_pc_devices(
    bus: Bus,
    memory: GuestMemory | None = None,
    *,
    now: Callable[[], time.struct_time] = time.gmtime,
) -> None:
    """Attach the clock, and what resets the machine or switches it off, where Linux expects them.

    The ACPI tables say where, and that there is a pvpanic port. Few kernels have a driver for that.
    With ``memory``, a reset is :attr:`Reason.PANIC` where Linux, started with the command line of
    ``linux_cmdline()``, resets the machine because of a panic; else every reset is a reset.
    """

    def reset(reason: Reason) -> None:
        bus.stop(Reason.PANIC if memory is not None and panicked(memory) else reason)

    bus.attach_ports(PIT_PORTS, AbsentPit())
    bus.attach_ports(range(CMOS_INDEX_PORT, CMOS_DATA_PORT + 1), Cmos(now))
    bus.attach_ports(range(I8042_COMMAND_PORT, I8042_COMMAND_PORT + 1), AbsentI8042(reset))
    bus.attach_ports(range(RESET_PORT, RESET_PORT + 1), ResetControl(reset))
    bus.attach_ports(range(PANIC_PORT, PANIC_PORT + 1), PvPanic(bus.stop))
    bus.attach_ports(range(SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT + 1), AcpiSleep(bus.stop))


def panicked(memory: GuestMemory) -> bool:
    """Tell whether a Linux that resets the machine does so because of a panic.

    It must have been told by ``linux_cmdline()`` to be warm then, and not by anybody to be warm
    otherwise (``reboot=warm``). Before any reset Linux writes its mode to the BIOS data area
    (``native_machine_emergency_restart``, arch/x86/kernel/reboot.c).
    """
    try:
        return int.from_bytes(memory.read(RESET_FLAG, 2), "little") == WARM
    except MemoryAccessError:  # no memory there, no flag
        return False


class Cmos:
    """The clock and the 128 bytes of memory behind an index and a data port (MC146818).

    The clock shows what ``now`` gives, in UTC by default, and is never in the midst of an update:
    with all ones for an answer, Linux would wait for the end of it for a long time. It cannot be set,
    and makes no interrupts.
    """

    STATUS_A, STATUS_B, STATUS_C, STATUS_D = 0xA, 0xB, 0xC, 0xD
    CENTURY = 0x32
    """Where the FADT of a PC says that it is."""
    UPDATE_IN_PROGRESS = 0x80
    DATA_MODE_BINARY = 0x4
    MODE_24_HOURS = 0x2
    VALID = 0x80
    DIVIDER_AND_RATE = 0x26
    """32,768 Hz, 1,024 periodic interrupts a second: what firmware leaves."""

    def __init__(self, now: Callable[[], time.struct_time] = time.gmtime) -> None:
        self._now = now
        self._index = 0
        self._memory = bytearray(128)
        self._memory[self.STATUS_A] = self.DIVIDER_AND_RATE
        self._memory[self.STATUS_B] = self.MODE_24_HOURS

    def read(self, offset: int, size: int) -> int:
        """Read the byte that the index names; the index itself cannot be read."""
        return -0x100 | self._byte(self._index) if offset == 1 else -1

    def write(self, offset: int, size: int, value: int) -> None:
        """Set the index, without bit 7 that masks NMIs, or write the byte; both if it is wide."""
        if offset == 0:
            self._index = value & 0x7F
            value >>= 8
        if offset == 1 or size > 1:
            self._memory[self._index] = value & 0xFF

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
            6: (now.tm_wday + 1) % 7 + 1,  # from Sunday, which is 1
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


class AbsentPit:
    """The timer's ports (8254) where the hypervisor has none: its counters stand at zero.

    With all ones for an answer, Linux would read one of them 100,000 times to calibrate its clock.
    """

    def read(self, offset: int, size: int) -> int:
        """Zero."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Count nothing."""


class AbsentI8042:
    """The keyboard controller's command port where there is none, but for the command to reset."""

    PULSE_RESET = 0xFE

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def read(self, offset: int, size: int) -> int:
        """All ones, so that no driver waits for a keyboard."""
        return -1

    def write(self, offset: int, size: int, value: int) -> None:
        """Reset the machine if that is the command."""
        if value & 0xFF == self.PULSE_RESET:
            self._stop(Reason.RESET)


class ResetControl:
    """The reset control register of PC chipsets (Intel ICH and PCH, RST_CNT at port 0xCF9)."""

    RESET_CPU = 0x4

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._value = 0

    def read(self, offset: int, size: int) -> int:
        """What was written, which says which kind of reset it is to be."""
        return self._value

    def write(self, offset: int, size: int, value: int) -> None:
        """Reset the machine when RST_CPU is set; the other bits only say how thoroughly."""
        self._value = value & 0xFF & ~self.RESET_CPU
        if value & self.RESET_CPU:
            self._stop(Reason.RESET)


class AcpiSleep:
    """SLEEP_CONTROL and behind it SLEEP_STATUS of hardware-reduced ACPI (ACPI 6.5, 4.8.3.7).

    The machine is switched off by the type that the DSDT's ``_S5`` gives.
    """

    SLP_EN = 0x20

    def __init__(self, stop: Stop, type_off: int = SLEEP_TYPE_OFF) -> None:
        self._stop = stop
        self._type_off = type_off

    def read(self, offset: int, size: int) -> int:
        """Zero: SLP_EN is for writing only, and the machine never woke up (WAK_STS)."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Switch the machine off when SLP_EN is set with the type for it."""
        if offset == 0 and value & self.SLP_EN and value >> 2 & 7 == self._type_off:
            self._stop(Reason.POWER_OFF)


class PvPanic:
    """The port to which a guest says that it panicked (QEMU, docs/specs/pvpanic.rst)."""

    PANICKED = 0x1
    """The host is to see to it."""
    CRASH_LOADED = 0x2
    """The guest sees to it itself, by a kernel that it keeps for that: it goes on."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def read(self, offset: int, size: int) -> int:
        """What the guest may say."""
        return self.PANICKED | self.CRASH_LOADED

    def write(self, offset: int, size: int, value: int) -> None:
        """End the guest if it panicked."""
        if value & self.PANICKED:
            self._stop(Reason.PANIC)


class DebugExit:
    """A port that ends the guest, with what is written as the ending's ``code``; often 0xF4.

    As QEMU's isa-debug-exit, for tests that run without an operating system.
    """

    def __init__(self, stop: Callable[[Reason, int], object]) -> None:
        self._stop = stop

    def read(self, offset: int, size: int) -> int:
        """Zero, as QEMU's."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """End the guest."""
        self._stop(Reason.DEBUG_EXIT, value)


class DebugPort:
    """Bochs' debug port, usually 0xE9: each byte goes to ``output``; reads say that it is there."""

    PRESENT = 0xE9

    def __init__(self, output: Callable[[bytes], object]) -> None:
        self._output = output

    def read(self, offset: int, size: int) -> int:
        """The port's own number."""
        return self.PRESENT

    def write(self, offset: int, size: int, value: int) -> None:
        """Pass the lowest byte on."""
        self._output(bytes((value & 0xFF,)))
