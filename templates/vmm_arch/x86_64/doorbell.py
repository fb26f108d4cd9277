"""Doorbells: writes of the guest that ring an event descriptor."""

from __future__ import annotations

from dataclasses import dataclass

from vmm_arch.exits import MmioWrite
from vmm_arch.x86_64.exits import IoOut

SIZES = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Doorbell:
    """Writes of the guest that ring: at an address or a port, of a size, of a value.

    Raises ValueError, which lists everything that is wrong.
    """

    address: int | None = None
    """Guest-physical; no memory may be there."""
    port: int | None = None
    """Instead of an address, where the CPU has ports."""
    size: int | None = None
    """In bytes, of the writes that ring; None means that all do."""
    value: int | None = None
    """What must be written to ring; None means anything. Needs a size."""

    def __post_init__(self) -> None:
        wrong = []
        if (self.address is None) == (self.port is None):
            wrong.append("give it either an address or a port")
        if self.address is not None and not 0 <= self.address < 1 << 64:
            wrong.append(f"address {self.address:#x} has more than 64 bits, or is negative")
        if self.port is not None and not 0 <= self.port < 1 << 16:
            wrong.append(f"port {self.port:#x} has more than 16 bits, or is negative")
        if self.size is not None and self.size not in SIZES:
            wrong.append(f"a size is 1, 2, 4 or 8 bytes, not {self.size}")
        if self.value is not None:
            if self.size is None:
                wrong.append("a value needs a size")
            elif not 0 <= self.value < 1 << 8 * self.size:
                wrong.append(f"value {self.value:#x} does not fit into {self.size} bytes")
        if wrong:
            raise ValueError(f"doorbell: {'; '.join(wrong)}")

    def rings(self, exit: object) -> int:
        """How often an exit rings it: by as many values as it writes, if they all ring."""
        if isinstance(exit, MmioWrite) and exit.address == self.address:
            size = len(exit.data)
        elif isinstance(exit, IoOut) and exit.port == self.port:
            size = exit.size
        else:
            return 0
        data = exit.data
        values = [
            int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)
        ]
        if self.size in (None, size) and all(self.value in (None, value) for value in values):
            return len(values)
        return 0

    def collides(self, other: Doorbell) -> bool:
        """Whether some write would ring both."""
        return (
            (self.address, self.port) == (other.address, other.port)
            and (None in (self.size, other.size) or self.size == other.size)
            and (None in (self.value, other.value) or self.value == other.value)
        )

    def __str__(self) -> str:
        place = f"port {self.port:#x}" if self.address is None else f"address {self.address:#x}"
        size = "" if self.size is None else f", {self.size} bytes"
        return f"{place}{size}" + ("" if self.value is None else f", value {self.value:#x}")
