"""Packets of gdb's remote serial protocol: what a client's bytes are, and the bytes of an answer.

``$data#xx``, with a checksum, and a few single bytes between packets (GDB manual, E.1).
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

LONGEST: Final = 0x4000
"""Bytes of a packet's data, which the client is told; longer ones are dropped."""
INTERRUPT_BYTE: Final = 0x03
_ESCAPE: Final = 0x7D
_ESCAPED: Final = b"#$}*"
_CHECKSUM: Final = 2


class Malformed(ValueError):
    """A packet does not say what a packet of its kind says."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet whose checksum is right."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The user of the client wants the guest to stop."""


@dataclass(frozen=True, slots=True)
class Resend:
    """The other side did not get the last packet."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A packet whose checksum is wrong, or that is too long."""


Event: TypeAlias = Packet | Interrupt | Resend | Damaged


class Parser:
    """Takes the bytes as they come, in any pieces. Never more than a packet is kept."""

    def __init__(self) -> None:
        self._data: bytearray | None = None
        """Of the packet that has begun."""
        self._checksum: bytearray | None = None
        """Its digits; None until it has ended."""

    def feed(self, received: bytes) -> Iterator[Event]:
        """The events in these bytes; what is between packets and means nothing is skipped."""
        for byte in received:
            if (event := self._next(byte)) is not None:
                yield event

    def _next(self, byte: int) -> Event | None:
        if self._data is None:
            match byte:
                case 0x24:  # $
                    self._data = bytearray()
                case 0x03:
                    return Interrupt()
                case 0x2D:  # -
                    return Resend()
            return None
        if self._checksum is None:
            if byte == 0x23:  # #
                self._checksum = bytearray()
            elif byte == 0x24:  # the end of the last one was lost
                self._data.clear()
            elif len(self._data) <= LONGEST:
                self._data.append(byte)
            return None
        self._checksum.append(byte)
        if len(self._checksum) < _CHECKSUM:
            return None
        data, digits = bytes(self._data), bytes(self._checksum)
        self._data = self._checksum = None
        if len(data) > LONGEST or digits.lower() != _sum(data):
            return Damaged()
        return Packet(_unescaped(data))


def packet(data: bytes) -> bytes:
    """The bytes of a packet."""
    escaped = bytearray()
    for byte in data:
        if byte in _ESCAPED:
            escaped += bytes((_ESCAPE, byte ^ 0x20))
        else:
            escaped.append(byte)
    return b"$%b#%b" % (bytes(escaped), _sum(escaped))


def number(text: bytes) -> int:
    """A number of up to 64 bits, in hexadecimal digits. Raises Malformed."""
    if not 0 < len(text) <= 16 or text.strip(b"0123456789abcdefABCDEF"):
        raise Malformed(f"{text!r} is not a number")
    return int(text, 16)


def from_hex(text: bytes) -> bytes:
    """The bytes whose hexadecimal digits these are. Raises Malformed."""
    try:
        return unhexlify(text)
    except ValueError:
        raise Malformed(f"{text[:32]!r} are not the digits of bytes") from None


def _sum(data: bytes | bytearray) -> bytes:
    return b"%02x" % (sum(data) & 0xFF)


def _unescaped(data: bytes) -> bytes:
    if _ESCAPE not in data:
        return data
    found = bytearray()
    bytes_of = iter(data)
    for byte in bytes_of:
        found.append(next(bytes_of, 0) ^ 0x20 if byte == _ESCAPE else byte)
    return bytes(found)
