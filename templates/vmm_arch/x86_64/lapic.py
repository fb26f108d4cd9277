"""The local APIC's registers by their offset in its page (Intel SDM volume 3, table 13-1)."""

from __future__ import annotations

from ctypes import c_uint32
from typing import Any

APIC_ID = 0x20
APIC_TPR = 0x80
APIC_LDR = 0xD0
APIC_DFR = 0xE0
APIC_SVR = 0xF0
APIC_LVT_CMCI = 0x2F0
APIC_LVT_TIMER = 0x320
APIC_LVT_THERMAL = 0x330
APIC_LVT_PERFORMANCE = 0x340
APIC_LVT_LINT0 = 0x350
APIC_LVT_LINT1 = 0x360
APIC_LVT_ERROR = 0x370
APIC_VERSION = 0x30
APIC_PPR = 0xA0
APIC_EOI = 0xB0
APIC_ESR = 0x280
APIC_ICR_LOW = 0x300
APIC_ICR_HIGH = 0x310
APIC_TIMER_INITIAL = 0x380
APIC_TIMER_CURRENT = 0x390
APIC_TIMER_DIVIDE = 0x3E0

LVT_MASKED = 0x10000
LVT_MODE = 0x700
"""The delivery mode."""
LVT_NMI = 0x400
LVT_EXTINT = 0x700


class LapicPage:
    """Gives access to the registers in a hypervisor's own record by their offset."""

    __slots__ = ()

    def __getitem__(self, offset: int, /) -> int:
        return _register(self, offset).value

    def __setitem__(self, offset: int, value: int, /) -> None:
        _register(self, offset).value = value


def _register(page: Any, offset: int) -> c_uint32:
    if not 0 <= offset < 0x400 or offset % 0x10:
        raise IndexError(
            f"the local APIC has no register at {offset:#x}; registers are 16 bytes apart"
        )
    return c_uint32.from_buffer(page, offset)
