"""A grammar of instructions with valid operands, as machine code for each mode.

Nothing here says what an instruction does: that is what executors are compared for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

BITS = {"real": 16, "protected": 32, "long": 64}
"""How wide addresses and stacks are."""
_DIRECT_16, _DIRECT_32 = 6, 5
_SIB = 4
_ABSOLUTE = 0x25
"""The SIB byte for a 32-bit displacement alone, where ModRM's own way is relative to RIP."""
_VECTOR_OPCODES = bytes.fromhex(
    "fc fd fe d4 f8 f9 fa fb db df eb ef 74 75 76 64 65 66 60 61 62 68 d5 e5 f4 f5 f6 da de ea ee"
    "dc dd ec ed d8 d9 e8 e9 e0 e3 63 67 6b d2 e2 f2 d1 e1 f1 d3 f3 70 6c 6d"
)
_SELECTORS = (0, 0x10, 0x18, 0x1B, 0x20, 0x28, 0x30, 0x1234)


@dataclass(frozen=True)
class Grammar:
    """What instructions are made of: choices, encodings, the places of data."""

    mode: str
    rng: random.Random
    data: int
    data_size: int
    devices: int
    """The first address that has no memory."""

    @property
    def bits(self) -> int:
        return BITS[self.mode]

    def immediate(self, size: int) -> bytes:
        bits = 8 * size
        if self.rng.random() < 0.4:
            value = self.rng.choice((0, 1, 2, -1, -2, 1 << bits - 1, (1 << bits - 1) - 1))
        else:
            value = self.rng.getrandbits(bits)
        return (value & (1 << bits) - 1).to_bytes(size, "little")

    def size(self) -> int:
        """The size of an operand in bytes, as the mode has them."""
        return self.rng.choice((1, 2, 4, 8) if self.bits == 64 else (1, 2, 4))

    def word(self) -> int:
        """The size of an operand that is not a byte."""
        return self.rng.choice((2, 4, 8) if self.bits == 64 else (2, 4))

    def prefixes(self, size: int) -> tuple[bytes, int]:
        """The operand size's prefix, and REX.W as a number."""
        default = 2 if self.bits == 16 else 4
        return (b"\x66" if size in (2, 4) and size != default else b"", 8 if size == 8 else 0)

    def register(self) -> int:
        """The number of a register that is not the stack pointer."""
        count = 16 if self.bits == 64 and self.rng.random() < 0.4 else 8
        return self.rng.choice([number for number in range(count) if number != 4])

    def address(self, size: int, *, devices: bool) -> int:
        if devices and self.bits != 16 and self.rng.random() < 0.15:
            return self.devices + self.rng.randrange(0x100)
        return self.data + self.rng.randrange(self.data_size - 16 * size)

    def operand(
        self, size: int, field: int, *, memory: bool | None = None, devices: bool = True
    ) -> tuple[int, bytes]:
        """The bits R and B of REX, and ModRM with what follows it: a register or memory."""
        rex = (field >> 3 & 1) << 2
        field &= 7
        if memory is None:
            memory = self.rng.random() < 0.5
        if not memory:
            number = self.register()
            return rex | number >> 3, bytes([0xC0 | field << 3 | number & 7])
        if self.rng.random() < 0.25:  # by a register that likely points to data
            displacement = self.rng.randrange(-32, 32) & 0xFF
            base = self.rng.choice((4, 5, 6, 7) if self.bits == 16 else (3, 5, 6, 7))
            return rex, bytes([0x40 | field << 3 | base, displacement])
        where = self.address(size, devices=devices)
        if self.bits == 16:
            return rex, bytes([field << 3 | _DIRECT_16]) + where.to_bytes(2, "little")
        if self.bits == 32:
            return rex, bytes([field << 3 | _DIRECT_32]) + where.to_bytes(4, "little")
        return rex, bytes([field << 3 | _SIB, _ABSOLUTE]) + where.to_bytes(4, "little")

    def encode(
        self,
        opcode: bytes,
        size: int,
        field: int | None = None,
        *,
        memory: bool | None = None,
        prefix: bytes = b"",
        after: bytes = b"",
        devices: bool = True,
    ) -> bytes:
        """An instruction with ModRM; the field ``reg`` is a register unless it is given."""
        override, wide = self.prefixes(size)
        number = self.register() if field is None else field
        rex, rest = self.operand(size, number, memory=memory, devices=devices)
        if self.bits == 64:
            # With a REX prefix byte registers 4 to 7 are those that the numbers say.
            rex |= wide
            force = size == 1 and self.rng.random() < 0.5
            prefix = prefix + override + (bytes([0x40 | rex]) if rex or force else b"")
        else:
            prefix = prefix + override
        return prefix + opcode + rest + after


def _arithmetic(g: Grammar) -> bytes:
    size = g.size()
    operation = 8 * g.rng.randrange(8)
    match g.rng.randrange(4):
        case 0:
            return g.encode(bytes([operation | (size > 1)]), size)
        case 1:
            return g.encode(bytes([operation | 2 | (size > 1)]), size)
        case 2:
            code = 0x81 if size > 1 else 0x80
            immediate = g.immediate(min(size, 4))
            return g.encode(bytes([code]), size, operation >> 3, after=immediate)
        case _:
            return g.encode(b"\x83", g.word(), operation >> 3, after=g.immediate(1))


def _locked(g: Grammar) -> bytes:
    size = g.size()
    operation = 8 * g.rng.choice((0, 1, 2, 3, 4, 5, 6))
    code = bytes([operation | (size > 1)])
    return g.encode(code, size, memory=True, prefix=b"\xf0", devices=False)


def _moves(g: Grammar) -> bytes:
    size = g.size()
    wide = size > 1
    match g.rng.randrange(7):
        case 0:
            return g.encode(bytes([0x88 | wide]), size)
        case 1:
            return g.encode(bytes([0x8A | wide]), size)
        case 2:
            return g.encode(bytes([0xC6 | wide]), size, 0, after=g.immediate(min(size, 4)))
        case 3:
            return g.encode(bytes([0x86 | wide]), size, devices=False)
        case 4:
            return g.encode(b"\x0f" + bytes([g.rng.choice((0xB6, 0xBE))]), g.word())
        case 5:
            return g.encode(b"\x0f" + bytes([g.rng.choice((0xB7, 0xBF))]), max(g.word(), 4))
        case _:
            return g.encode(b"\x8d", g.word(), memory=True)


def _unary(g: Grammar) -> bytes:
    size = g.size()
    if g.rng.random() < 0.4:
        return g.encode(bytes([0xFE | (size > 1)]), size, g.rng.randrange(2))
    field = g.rng.choice((0, 2, 3, 4, 5, 6, 7))
    after = g.immediate(min(size, 4)) if field == 0 else b""
    return g.encode(bytes([0xF6 | (size > 1)]), size, field, after=after)


def _multiplication(g: Grammar) -> bytes:
    size = g.word()
    match g.rng.randrange(3):
        case 0:
            return g.encode(b"\x0f\xaf", size)
        case 1:
            return g.encode(b"\x69", size, after=g.immediate(min(size, 4)))
        case _:
            return g.encode(b"\x6b", size, after=g.immediate(1))


def _shifts(g: Grammar) -> bytes:
    size = g.size()
    field = g.rng.choice((0, 1, 2, 3, 4, 5, 7))
    match g.rng.randrange(4):
        case 0:
            return g.encode(bytes([0xC0 | (size > 1)]), size, field, after=g.immediate(1))
        case 1:
            return g.encode(bytes([0xD0 | (size > 1)]), size, field)
        case 2:
            return g.encode(bytes([0xD2 | (size > 1)]), size, field)
        case _:
            code = g.rng.choice((0xA4, 0xA5, 0xAC, 0xAD))
            after = g.immediate(1) if not code & 1 else b""
            return g.encode(bytes([0x0F, code]), g.word(), after=after)


def _bits(g: Grammar) -> bytes:
    size = g.word()
    match g.rng.randrange(4):
        case 0:  # by a register's number only in registers: in memory it reaches anywhere
            code = g.rng.choice((0xA3, 0xAB, 0xB3, 0xBB))
            return g.encode(bytes([0x0F, code]), size, memory=False)
        case 1:
            field = g.rng.randrange(4, 8)
            return g.encode(b"\x0f\xba", size, field, after=g.immediate(1), devices=False)
        case 2:
            return g.encode(bytes([0x0F, g.rng.choice((0xBC, 0xBD))]), size)
        case _:
            if g.bits == 64 and size == 8:
                return bytes([0x48, 0x0F, 0xC8 | g.rng.choice((0, 1, 2, 3, 5, 6, 7))])
            prefix = b"\x66" if g.bits == 16 else b""
            return prefix + bytes([0x0F, 0xC8 | g.rng.choice((0, 1, 2, 3, 5, 6, 7))])


def _exchanges(g: Grammar) -> bytes:
    size = g.size()
    lock = g.rng.random() < 0.5
    code = g.rng.choice((0xB0, 0xC0))
    if g.rng.random() < 0.2:
        prefix = b"\xf0" * lock
        return g.encode(b"\x0f\xc7", 4, 1, memory=True, prefix=prefix, devices=False)
    return g.encode(
        bytes([0x0F, code | (size > 1)]),
        size,
        memory=True if lock else None,
        prefix=b"\xf0" * lock,
        devices=False,
    )


def _conditional(g: Grammar) -> bytes:
    condition = g.rng.randrange(16)
    if g.rng.random() < 0.5:
        return g.encode(bytes([0x0F, 0x90 | condition]), 1, 0)
    return g.encode(bytes([0x0F, 0x40 | condition]), g.word())


def _sized(g: Grammar, code: int, *, wide: bool = False) -> bytes:
    """An instruction without operands in one of its sizes."""
    override, rex = g.prefixes(g.word() if wide or g.rng.random() < 0.7 else 4)
    return override + (bytes([0x40 | rex]) if rex else b"") + bytes([code])


def _conversions(g: Grammar) -> bytes:
    return _sized(g, g.rng.choice((0x98, 0x99)), wide=True)


def _flags(g: Grammar) -> bytes:
    return bytes([g.rng.choice((0x9E, 0x9F, 0xF5, 0xF8, 0xF9, 0xFC, 0xFD, 0xFA, 0xFB))])


def _stack(g: Grammar) -> bytes:
    number = g.rng.choice((0, 1, 2, 3, 5, 6, 7))
    small = b"\x66" * (g.rng.random() < 0.3)
    match g.rng.randrange(8):
        case 0:
            return small + bytes([0x50 | number])
        case 1:
            return small + bytes([0x58 | number])
        case 2:
            return b"\x6a" + g.immediate(1)
        case 3:
            return b"\x68" + g.immediate(2 if g.bits == 16 else 4)
        case 4:
            return g.encode(b"\xff", 2 if g.bits == 16 else 4, 6)
        case 5:
            return g.encode(b"\x8f", 2 if g.bits == 16 else 4, 0)
        case 6:
            return b"\x9c"  # PUSHF
        case _:
            if g.rng.random() < 0.3:
                return b"\xc8" + bytes([g.rng.randrange(32), 0, g.rng.choice((0, 0, 1, 3))])
            return b"\x9c\x9d" if g.bits == 64 else g.rng.choice((b"\x60", b"\x61", b"\x9c\x9d"))


def _strings(g: Grammar) -> bytes:
    code = g.rng.choice((0xA4, 0xA6, 0xAA, 0xAC, 0xAE))
    size = g.size()
    override, rex = g.prefixes(size)
    prefix = g.rng.choice((b"", b"", b"\xf3", b"\xf2"))
    if prefix:  # a few times, beginning in data
        prefix = _set(g, 1, g.rng.randrange(5)) + prefix
    pointers = _set(g, 6, g.address(16, devices=True)) + _set(g, 7, g.address(16, devices=True))
    rex_byte = bytes([0x40 | rex]) if rex else b""
    return pointers + prefix + override + rex_byte + bytes([code | (size > 1)])


def _set(g: Grammar, number: int, value: int) -> bytes:
    """Load a register with a number."""
    return bytes([0xB8 | number]) + value.to_bytes(2 if g.bits == 16 else 4, "little")


def _loads(g: Grammar) -> bytes:
    number = g.rng.choice((3, 5, 6, 7))
    return _set(g, number, g.data + g.rng.randrange(g.data_size - 128))


def _constants(g: Grammar) -> bytes:
    number = g.rng.choice((0, 1, 2))
    return bytes([0xB8 | number]) + g.immediate(2 if g.bits == 16 else 4)


def _jumps(g: Grammar) -> bytes:
    """Over the next few bytes, which may be in the middle of an instruction."""
    distance = g.rng.choice((0, 0, 2, 3, 5))
    match g.rng.randrange(5):
        case 0:
            return bytes([0x70 | g.rng.randrange(16), distance])
        case 1:
            return bytes([0xEB, distance])
        case 2:
            return bytes([g.rng.choice((0xE0, 0xE1, 0xE2, 0xE3)), distance])
        case 3:
            size = 2 if g.bits == 16 else 4
            return b"\xe8" + distance.to_bytes(size, "little")
        case _:
            size = 2 if g.bits == 16 else 4
            call = b"\xe8" + (0).to_bytes(size, "little")
            return call + bytes([0x58 | g.rng.choice((0, 1, 2))])


def _ports(g: Grammar) -> bytes:
    wide = g.rng.randrange(2)
    small = b"\x66" * (g.rng.random() < 0.5)
    if g.rng.random() < 0.6:
        return small + bytes([g.rng.choice((0xE4, 0xE6)) | wide, g.rng.randrange(256)])
    port = _set(g, 2, g.rng.randrange(0x1_0000))
    return port + small + bytes([g.rng.choice((0xEC, 0xEE)) | wide])


def _port_strings(g: Grammar) -> bytes:
    wide = g.rng.randrange(2)
    code = g.rng.choice((0x6C, 0x6E)) | wide
    index = 7 if code < 0x6E else 6
    small = b"\x66" * (g.rng.random() < 0.5)
    repeated = _set(g, 1, g.rng.randrange(5)) + b"\xf3" if g.rng.random() < 0.5 else b""
    place = _set(g, 2, g.rng.randrange(0x1000)) + _set(g, index, g.address(16, devices=False))
    return place + repeated + small + bytes([code])


def _devices(g: Grammar) -> bytes:
    """Moves of every size from and to what is no memory."""
    if g.bits == 16:
        return _moves(g)
    size = g.size()
    override, rex = g.prefixes(size)
    where = (g.devices + g.rng.randrange(0x200)).to_bytes(4, "little")
    number = g.rng.choice((0, 1, 2, 3, 5, 6, 7))
    place = bytes([number << 3 | _SIB, _ABSOLUTE]) + where
    prefix = override + (bytes([0x40 | rex]) if rex else b"")
    code = g.rng.choice((0x88, 0x8A, 0x88, 0x8A, 0x30, 0x00))
    return prefix + bytes([code | (size > 1)]) + place


def _segments(g: Grammar) -> bytes:
    field = g.rng.choice((0, 2, 3, 4, 5))
    match g.rng.randrange(5):
        case 0 | 1:
            return bytes([0x8C, 0xC0 | g.rng.randrange(6) << 3 | g.rng.choice((0, 1, 2))])
        case 2 | 3:
            selector = 0x1234 if g.mode == "real" else 0x18
            if g.rng.random() < 0.2 and g.mode != "real":
                selector = g.rng.choice(_SELECTORS)
            if field == 2:
                selector = 0 if g.mode == "real" else 0x18
            return _set(g, 0, selector) + bytes([0x8E, 0xC0 | field << 3])
        case _:
            if g.mode == "long":
                code = g.rng.choice((b"\x0f\xa0", b"\x0f\xa8", b"\x0f\xa0\x0f\xa1"))
            else:
                code = g.rng.choice((b"\x06", b"\x0e", b"\x16", b"\x1e", b"\x06\x07", b"\x16\x1f"))
            return code


def _system(g: Grammar) -> bytes:
    rex = b""
    number = g.rng.choice((0, 1, 2, 3))
    match g.rng.randrange(8):
        case 0:
            return rex + bytes([0x0F, 0x20, 0xC0 | g.rng.choice((0, 2, 3, 4)) << 3 | number])
        case 1:  # CR2 is everybody's
            return rex + bytes([0x0F, 0x22, 0xD0 | number])
        case 2:
            return bytes([0x0F, 0x20, 0xC0, 0x0D, *g.rng.choice(((8, 0), (0x2, 0)))]) + (
                b"" if g.bits == 16 else b"\x00\x00"
            )
        case 3:
            return g.encode(b"\x0f\x01", 4, g.rng.choice((0, 1)), memory=True, devices=False)
        case 4:
            return g.encode(b"\x0f\x01", 2, 4)  # SMSW
        case 5:
            return bytes([0x0F, 0x23, 0xC0 | g.rng.randrange(4) << 3 | number])
        case 6:
            return bytes([0x0F, 0x21, 0xC0 | g.rng.randrange(4) << 3 | number])
        case _:
            return b"\x0f\x06"  # CLTS


def _msrs(g: Grammar) -> bytes:
    index = g.rng.choice((0x174, 0x175, 0x176, 0xC0000081, 0xC0000082, 0xC0000084, 0xC0000102))
    prefix = b"\x66" if g.bits == 16 else b""
    select = prefix + b"\xb9" + index.to_bytes(4, "little")
    if g.rng.random() < 0.5:
        return select + b"\x0f\x32"
    value = bytes([0xB8]) + g.immediate(4) + prefix + b"\xba" + (0).to_bytes(4, "little")
    return select + prefix + value + b"\x0f\x30"


def _exceptions(g: Grammar) -> bytes:
    vector = g.rng.choice((32, 33, 48, 63))
    ways = [b"\xcc", bytes([0xCD, vector]), b"\x0f\x0b"]
    if g.bits != 64:
        ways.append(b"\xce")
    return g.rng.choice(ways)


def _decimal(g: Grammar) -> bytes:
    if g.bits == 64:
        return _flags(g)
    divisor = g.rng.choice((10, 10, 10, 16, 0xFF))
    ways = (b"\x27", b"\x2f", b"\x37", b"\x3f", bytes([0xD4, divisor]), bytes([0xD5, divisor]))
    return g.rng.choice((*ways, b"\xd6"))


def _table(g: Grammar) -> bytes:
    return _set(g, 3, g.data + g.rng.randrange(g.data_size - 512)) + b"\xd7"  # XLAT


def _vectors(g: Grammar) -> bytes:
    """SSE and SSE2 on integers, and moves: what has no rounding and no denormals."""
    prefix = g.rng.choice((b"\x66", b"\x66", b"\xf3"))
    if prefix == b"\xf3":
        code = g.rng.choice((0x6F, 0x7F, 0x7E, 0x70))
    else:
        code = g.rng.choice(_VECTOR_OPCODES)
    number = g.rng.randrange(16 if g.bits == 64 and g.rng.random() < 0.3 else 8)
    place = g.data + 16 * g.rng.randrange(g.data_size // 16)
    rex = bytes([0x44]) if number > 7 else b""
    after = g.immediate(1) if code == 0x70 else b""
    if g.rng.random() < 0.5:
        rest = bytes([0xC0 | (number & 7) << 3 | g.rng.randrange(8)])
    elif g.bits == 16:
        rest = bytes([(number & 7) << 3 | _DIRECT_16]) + place.to_bytes(2, "little")
    else:
        rest = bytes([(number & 7) << 3 | _SIB, _ABSOLUTE]) + place.to_bytes(4, "little")
    return prefix + rex + bytes([0x0F, code]) + rest + after


def _floating(g: Grammar) -> bytes:
    """x87: loads, exact arithmetic, stores, the stack, control words."""
    match g.rng.randrange(5):
        case 0:
            return bytes(
                [0xD9, g.rng.choice((0xE8, 0xEE, 0xC0, 0xC1, 0xC9, 0xE0, 0xE1, 0xF7, 0xF6))]
            )
        case 1:
            return bytes([0xD8, 0xC0 | g.rng.choice((0, 8, 0x20, 0x28)) | g.rng.randrange(2)])
        case 2:
            return g.encode(b"\xdb", 4 if g.bits != 16 else 2, 0, memory=True, devices=False)
        case 3:
            return g.encode(b"\xdf", 4 if g.bits != 16 else 2, 5, memory=True, devices=False)
        case _:
            field = g.rng.choice((7,))
            return g.encode(b"\xd9", 4 if g.bits != 16 else 2, field, memory=True, devices=False)


_ALL: Mapping[Callable[[Grammar], bytes], int] = {
    _arithmetic: 12,
    _locked: 2,
    _moves: 10,
    _unary: 8,
    _multiplication: 4,
    _shifts: 10,
    _bits: 5,
    _exchanges: 4,
    _conditional: 4,
    _conversions: 2,
    _flags: 3,
    _stack: 8,
    _strings: 5,
    _loads: 3,
    _constants: 4,
    _jumps: 5,
    _ports: 3,
    _port_strings: 2,
    _devices: 4,
    _segments: 3,
    _system: 2,
    _msrs: 1,
    _exceptions: 1,
    _decimal: 2,
    _table: 1,
    _vectors: 1,
    _floating: 1,
}
_VECTORS: Mapping[Callable[[Grammar], bytes], int] = {
    _vectors: 12,
    _floating: 12,
    _moves: 4,
    _loads: 2,
}
_ACCESSES: Mapping[Callable[[Grammar], bytes], int] = {
    _ports: 4,
    _port_strings: 4,
    _devices: 8,
    _strings: 4,
    _moves: 2,
    _loads: 2,
    _constants: 2,
}
KINDS = {"all": _ALL, "vectors": _VECTORS, "accesses": _ACCESSES}


def instructions(grammar: Grammar, count: int, kinds: str = "all") -> Iterator[bytes]:
    """So many instructions, or pairs that belong together."""
    known = KINDS[kinds]
    for make in grammar.rng.choices([*known], [*known.values()], k=count):
        yield make(grammar)
