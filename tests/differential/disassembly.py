"""Instructions as text, by capstone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import capstone

from differential.executors import prefixes

_Engine: Any = capstone.Cs
_ENGINES: dict[str, Any] = {
    "real": _Engine(capstone.CS_ARCH_X86, capstone.CS_MODE_16),
    "protected": _Engine(capstone.CS_ARCH_X86, capstone.CS_MODE_32),
    "long": _Engine(capstone.CS_ARCH_X86, capstone.CS_MODE_64),
}


def has_lock(code: bytes, mode: str) -> bool:
    return 0xF0 in prefixes(code, mode)


@lru_cache(1 << 16)
def instruction(code: bytes, mode: str, address: int) -> str:
    """The first instruction, such as ``add eax, ebx``; ``(bad)`` if there is none."""
    for _, _, mnemonic, operands in _ENGINES[mode].disasm_lite(code, address, 1):
        # Where LOCK may not be it is not printed.
        locked = "lock " * (not mnemonic.startswith("lock") and has_lock(code, mode))
        return f"{locked}{mnemonic} {operands}".strip()
    return "(bad)"


def listing(code: bytes, mode: str, address: int) -> Iterator[str]:
    """All instructions, with their addresses and bytes."""
    for at, size, mnemonic, operands in _ENGINES[mode].disasm_lite(code, address):
        data = code[at - address : at - address + size].hex(" ")
        yield f"{at:#x}: {data:24} {mnemonic} {operands}".rstrip()
