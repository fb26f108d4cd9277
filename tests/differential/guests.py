"""Guests: a mode, code, the registers and the memory to begin with; the same for every executor.

Memory is one MiB. Nothing is behind it, so that accesses from there on are exits. Every byte that
nobody uses is HLT, at which a guest ends.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from vmm_arch.x86_64.entry import Entry, Long64, Protected32, RealMode
from vmm_arch.x86_64.platform.memory_map import GuestMemory
from vmm_arch.x86_64.topology import Topology

from differential.grammar import BITS, Grammar, instructions

MEMORY, PAGE = 0x10_0000, 0x1000
CODE = 0x4000
DATA, DATA_SIZE = 0x6000, 0x2000
STACK = 0x8800
HANDLERS = 0x2000
"""Of exceptions and interrupts, 16 bytes each."""
IDT, GATES = 0x1000, 64
TABLES_END = 0xF000
"""Above everything that a mode needs in memory."""
HLT = 0xF4
MODES = tuple(BITS)
ENTRIES: Mapping[str, Entry] = {
    "real": RealMode(CODE, rsp=STACK),
    "protected": Protected32(CODE, rsp=STACK),
    "long": Long64(CODE, rsp=STACK),
}
_TRAP_FLAG = 1 << 8
_STATUS_FLAGS = 0x8D5
_GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp")
_EXTENDED = tuple(f"r{number}" for number in range(8, 16))
_INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000)


@dataclass(frozen=True)
class Guest:
    """A guest, which does the same each time."""

    mode: str
    code: bytes
    registers: Mapping[str, int] = field(default_factory=dict)
    """What the vCPU has besides what its mode needs, by the vocabulary's names."""
    memory: Mapping[int, bytes] = field(default_factory=dict)
    """What is written to memory last, by address."""
    steps: int = 64
    """How many at most."""

    @property
    def entry(self) -> Entry:
        return ENTRIES[self.mode]

    @classmethod
    def random(cls, seed: int | str, modes: tuple[str, ...] = MODES, *, kinds: str = "all") -> Self:
        """A guest from a grammar or, one in five, of random bytes."""
        rng = random.Random(seed)
        mode = rng.choice(modes)
        if kinds == "all" and rng.random() < 0.2:
            code = rng.randbytes(48)
        else:
            grammar = Grammar(mode, rng, DATA, DATA_SIZE, MEMORY)
            code = b"".join(instructions(grammar, 24, kinds))
        registers = _registers(mode, rng)
        return cls(mode, code, registers, {DATA: rng.randbytes(DATA_SIZE)})

    def pages(self, image: bytes) -> dict[int, bytes]:
        """The pages that differ from those of every guest of the mode, by their addresses."""
        pages: dict[int, bytearray] = {}
        for address, data in {CODE: self.code, **self.memory}.items():
            place, end = address, address + len(data)
            while place < end:
                page = place & -PAGE
                known = pages.setdefault(page, bytearray(image[page : page + PAGE]))
                following = min(page + PAGE, end)
                known[place - page : following - page] = data[place - address : following - address]
                place = following
        return {page: bytes(known) for page, known in pages.items()}

    def without(self, *names: str) -> Self:
        """The same with registers as the mode has them."""
        kept = {name: value for name, value in self.registers.items() if name not in names}
        return replace(self, registers=kept)

    def __str__(self) -> str:
        """A guest as an expression, to be pasted into a test."""
        lines = [f"Guest({self.mode!r}, bytes.fromhex({self.code.hex(' ')!r}),"]
        if self.registers:
            pairs = ", ".join(f'"{name}": {value:#x}' for name, value in self.registers.items())
            lines.append(f"    registers={{{pairs}}},")
        if self.memory:
            pairs = ", ".join(
                f"{address:#x}: bytes.fromhex({data.hex()!r})"
                for address, data in self.memory.items()
            )
            lines.append(f"    memory={{{pairs}}},")
        return "\n".join([*lines, f"    steps={self.steps})"])


def start_of(mode: str) -> dict[str, int]:
    """What every guest of a mode begins with, besides what its entry says."""
    start = {"idt.base": 0, "idt.limit": 0x3FF, "cr4": 0x600}
    if mode == "protected":
        start |= {"idt.base": IDT, "idt.limit": 8 * GATES - 1}
    if mode == "long":
        start |= {"idt.base": IDT, "idt.limit": 16 * GATES - 1, "cr4": 0x620}
    return start


def image_of(mode: str) -> bytes:
    """The memory that every guest of a mode begins with; all its pages count as accessed."""
    with GuestMemory(0x1_0000) as memory:
        ENTRIES[mode].write_tables(memory, Topology())
        tables = bytearray([HLT]) * 0x1_0000
        written = bytearray(memory.read(0, 0x1_0000))
    if mode != "real":
        tables[0x500:0x600] = written[0x500:0x600]
    if mode == "long":
        for place in range(0x9000, TABLES_END, 8):
            (entry,) = struct.unpack_from("<Q", written, place)
            struct.pack_into("<Q", tables, place, entry | 0x60 if entry & 1 else entry)
    image = bytearray([HLT]) * MEMORY
    image[:TABLES_END] = tables[:TABLES_END]
    write_interrupt_table(image, mode)
    for vector in range(GATES):
        place = HANDLERS + 16 * vector
        image[place : place + 16] = b"\x90" + bytes([HLT]) * 15
    return bytes(image)


def write_interrupt_table(image: bytearray, mode: str) -> None:
    for vector in range(GATES):
        handler = HANDLERS + 16 * vector
        match mode:
            case "real":
                struct.pack_into("<HH", image, 4 * vector, handler, 0)
            case "protected":
                struct.pack_into("<HHHH", image, IDT + 8 * vector, handler, 0x10, 0x8E00, 0)
            case _:
                struct.pack_into("<HHHHQ", image, IDT + 16 * vector, handler, 0x10, 0x8E00, 0, 0)


def _registers(mode: str, rng: random.Random) -> dict[str, int]:
    bits = BITS[mode]
    names = _GENERAL + (_EXTENDED if bits == 64 else ())

    def value(name: str) -> int:
        if name in ("rsi", "rdi", "rbx", "rbp") and rng.random() < 0.8:
            return DATA + rng.randrange(DATA_SIZE - 64)
        if name == "rcx" and rng.random() < 0.5:
            return rng.randrange(6)
        if rng.random() < 0.4:
            return rng.choice(_INTERESTING) & (1 << bits) - 1
        return rng.getrandbits(min(bits, rng.choice((8, 16, 32, 64))))

    flags = 2 | rng.getrandbits(12) & _STATUS_FLAGS
    return {name: value(name) for name in names} | {"rflags": flags}
