"""Message-signalled interrupts: what a device writes, and where (Intel SDM volume 3, 11.11)."""

from __future__ import annotations

from typing import NamedTuple

from vmm_arch.x86_64.platform.resources import LOCAL_APIC_ADDRESS

LOGICAL = 1 << 2
"""Of the address: the destination is a logical one."""


class Message(NamedTuple):
    """A message: use :meth:`of`."""

    address: int
    data: int

    @classmethod
    def of(cls, address: int, data: int) -> Message:
        """Check a message; raises ValueError, which lists everything that is wrong."""
        wrong = []
        if address >> 20 != LOCAL_APIC_ADDRESS >> 20:
            wrong.append(
                f"address {address:#x} is none of local APICs: {LOCAL_APIC_ADDRESS:#x} to 0xfeefffff"
            )
        if not 0 <= data < 1 << 32:
            wrong.append(f"data {data:#x} has more than 32 bits, or is negative")
        elif data & 0xFF < 16 and not data >> 8 & 7:
            wrong.append(f"vector {data & 0xFF} is no interrupt's: they begin at 16")
        if wrong:
            raise ValueError(f"message: {'; '.join(wrong)}")
        return cls(address, data)

    @property
    def redirection_entry(self) -> int:
        """The entry of an I/O APIC's redirection table that sends the same interrupt."""
        destination = self.address >> 12 & 0xFF
        mode = bool(self.address & LOGICAL)
        return self.data & 0x87FF | mode << 11 | destination << 56
