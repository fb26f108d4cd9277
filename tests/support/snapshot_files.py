"""Files of snapshots, taken apart and put together again with right checksums, however wrong."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

FIXED = struct.Struct("<16sIIQQQ32s")
BEFORE_HEADER = FIXED.size + 32


@dataclass(frozen=True)
class Parts:
    """A file, with what it says of itself: what is None is as it should be."""

    magic: bytes
    version: int
    header: bytes
    extents: list[tuple[int, int]]
    memory: bytes
    memory_digest: bytes
    header_size: int | None = None
    count: int | None = None
    begin: int | None = None
    size: int | None = None

    @property
    def data(self) -> Any:
        return json.loads(self.header)

    def with_data(self, data: Any) -> Parts:
        return replace(self, header=json.dumps(data).encode())

    def write(self, path: Path) -> Path:
        table = b"".join(struct.pack("<QQ", *extent) for extent in self.extents)
        end = BEFORE_HEADER + len(self.header) + len(table)
        begin = end + -end % 0x10000
        fixed = FIXED.pack(
            self.magic,
            self.version,
            len(self.header) if self.header_size is None else self.header_size,
            len(self.extents) if self.count is None else self.count,
            begin if self.begin is None else self.begin,
            len(self.memory) if self.size is None else self.size,
            self.memory_digest,
        )
        digest = hashlib.sha256(fixed + self.header + table).digest()
        text = fixed + digest + self.header + table
        path.write_bytes(text.ljust(begin, b"\0") + self.memory)
        return path


def parts_of(path: Path) -> Parts:
    text = path.read_bytes()
    magic, version, header_size, count, begin, _, digest = FIXED.unpack_from(text)
    table = text[BEFORE_HEADER + header_size :][: 16 * count]
    return Parts(
        magic,
        version,
        text[BEFORE_HEADER:][:header_size],
        [*struct.iter_unpack("<QQ", table)],
        text[begin:],
        digest,
    )


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


STRANGE: list[Any] = [
    *(None, True, 0, -1, 1, 1 << 63, 1 << 64, 10**400, 0.5, 1e308),
    *("", "0x", "0x0", "-0x1", "0x" + "f" * 300, "\0", "\ud800", "ж" * 100, "0X1F"),
    *([], {}, [[]], {"": {}}, deep(40), deep(200), [0] * 1000, {"regs": {}}),
]


def mutated(data: Any, chance: random.Random) -> Any:
    """A copy of JSON's values in which one, somewhere, is another, missing or new."""
    places = list(_places(data, ()))
    copy = json.loads(json.dumps(data))
    *path, last = chance.choice(places)
    inner = copy
    for step in path:
        inner = inner[step]
    match chance.randrange(4):
        case 0:
            del inner[last]
        case 1 if isinstance(inner, dict):
            inner[chance.choice(["", "x", "rip", "cpuid", "\0"])] = inner[last]
        case 2:
            inner[last] = copy[chance.choice(list(copy))]  # may be itself: JSON has no cycles
            copy = _without_cycles(copy)
        case _:
            inner[last] = chance.choice(STRANGE)
    return copy


def _places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    steps = value.items() if isinstance(value, dict) else enumerate(value)
    for step, inner in steps:
        # As often as each value: what lies higher, since more depends on it.
        yield from [(*path, step)] * max(1, 200 // 20 ** len(path))
        if isinstance(inner, dict | list):
            yield from _places(inner, (*path, step))


def _without_cycles(value: Any, above: tuple[int, ...] = ()) -> Any:
    if id(value) in above:
        return None
    inside = (*above, id(value))
    if isinstance(value, dict):
        return {key: _without_cycles(inner, inside) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_cycles(inner, inside) for inner in value]
    return value
