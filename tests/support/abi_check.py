"""Compares imported ABI modules with the facts: a script, so that any Python can run it.

Reads JSON from standard input, or from a file that is named: for each module the names that are integers, and for each record
its size, its alignment and its members as (name, offset in bits, width of a bit-field or null, size in bytes or null,
whether it is a signed integer, or null if it is none).
Prints how much it compared. Needs only the standard library. With the argument ``ms`` ctypes places
bit-fields by Microsoft's rules, as it does on Windows; Python 3.14 can be told to.
"""

from __future__ import annotations

import copy
import ctypes
import importlib
import json
import sys
from pathlib import Path
from typing import Any

Members = list[tuple[str, int, int | None, int | None, bool | None]]


def compare(
    module: Any, integers: dict[str, int], records: dict[str, tuple[int, int, Members]]
) -> int:
    """Assert that a module says what the facts say, and return how many things were compared."""
    for name, value in integers.items():
        assert type(getattr(module, name)) is int, f"{name} is no plain int"
        assert getattr(module, name) == value, name
    compared = len(integers)
    for name, (size, align, members) in records.items():
        record = getattr(module, name)
        assert ctypes.sizeof(record) == size, f"size of {name}"
        assert getattr(record, "_aligned_", 8) == max(8, align), f"alignment of {name}"
        if align > 8:
            check_addresses(record, align)
        for member, offset, bits, member_size, signed in members:
            where = f"{name}.{member}"
            if bits is None:
                descriptor = getattr(record, member)
                assert descriptor.offset * 8 == offset, f"offset of {where}"
                assert descriptor.size == member_size, f"size of {where}"
            if signed is not None or bits is not None:
                value = record()
                setattr(value, member, -1)
                ones = (1 << (bits or 8 * (member_size or 0))) - 1
                read = getattr(value, member)
                assert signed is None or read == (-1 if signed else ones), f"sign of {where}"
                assert _ones(value) == list(range(offset, offset + ones.bit_length())), where
        compared += 1 + len(members)
    return compared


def check_addresses(record: Any, align: int) -> None:
    """Assert that objects of a record and arrays of it lie as aligned as they are to be."""
    for kind in (record, record * 1, record * 3, (record * 2) * 2):
        zeros = bytes(ctypes.sizeof(kind))
        made = [kind() for _ in range(20)] + [kind.from_buffer_copy(zeros) for _ in range(20)]
        made += [copy.copy(record())]
        assert not any(ctypes.addressof(one) % align for one in made), kind
        assert all(bytes(one) in (zeros, bytes(record())) for one in made), kind


def _ones(record: Any) -> list[int]:
    """The positions of the bits that are set, counted as the target allocates bit-fields."""
    big = isinstance(record, (ctypes.BigEndianStructure, ctypes.BigEndianUnion))
    bits = "".join(f"{byte:08b}"[:: 1 if big else -1] for byte in bytes(record))
    return [at for at, bit in enumerate(bits) if bit == "1"]


def main() -> None:
    if "ms" in sys.argv[1:]:
        records = importlib.import_module("vmm_arch.abi.records")
        for base in ("LittleStruct", "LittleUnion", "BigStruct", "BigUnion"):
            getattr(records, base)._layout_ = "ms"
    options = [argument for argument in sys.argv[1:] if argument != "ms"]
    facts = json.loads(Path(options[0]).read_text() if options else sys.stdin.read())
    for name, (integers, records) in facts.items():
        count = compare(importlib.import_module(name), integers, records)
        print(name, count)


if __name__ == "__main__":
    main()
