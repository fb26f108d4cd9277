"""The file of a snapshot: its bytes, checked one by one, since anybody may have written them.

::

    0    magic                    16 bytes
    16   version, bytes of header u32, u32
    24   number of extents        u64
    32   where memory begins      u64, a multiple of 0x1_0000
    40   bytes of memory          u64
    48   SHA-256 of memory        of the bytes of its extents
    80   SHA-256 of the rest      of all before it, and of header and extents
    112  header                   JSON: what the snapshot is of (vmm_arch.snapshot.record)
         extents                  u64, u64: where each begins and ends in memory
         zeros, then memory       as it is mapped: region after region, the file ends with it

Numbers are little-endian. Memory outside the extents is a hole; in an increment, as in its base. So a
file is as large as memory and costs what the extents have, and reading one costs the header: memory
is mapped, and compared with its checksum only by those who ask for that.

The second checksum is the snapshot's *digest*, by which an increment knows its base. It tells damage,
not malice: whoever makes a file can make its checksums.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from vmm_arch.errors import SnapshotError
from vmm_arch.memory import PAGE_SIZE
from vmm_arch.replacing import replacing
from vmm_arch.snapshot.image import Extent, Layer, between
from vmm_arch.snapshot.positions import read_at, write_at
from vmm_arch.unique_keys import without_duplicates

MAGIC: Final = b"\x89vmm-arch snap\r\n"
"""A text mode somewhere on the way damages it: a byte above 0x7f, and a line's end."""
VERSION: Final = 1
_FIXED: Final = struct.Struct("<16sIIQQQ32s")
_DIGEST_SIZE: Final = hashlib.sha256().digest_size
_BEFORE_HEADER: Final = _FIXED.size + _DIGEST_SIZE
_EXTENT: Final = struct.Struct("<QQ")
_ALIGNMENT: Final = 0x1_0000
"""Of memory in the file: a multiple of what any system maps."""
_LONGEST: Final = 64 << 20
"""Bytes of the header, and of the extents: more are refused, not read."""
_MANY: Final = 100
"""Problems that are listed."""
_LONG: Final = 300
"""Characters of one."""
_DEEPEST: Final = 64
"""How many lists and objects may lie in each other."""


@dataclass(frozen=True)
class Contents:
    """What a file holds: well-formed, but not yet known to make sense."""

    header: Mapping[str, Any]
    memory: Layer
    memory_digest: bytes
    digest: str
    """Of the snapshot: 64 hexadecimal digits."""


def write_file(path: str | os.PathLike[str], header: Mapping[str, Any], memory: Layer) -> str:
    """Write a file, whole or not at all, and return the snapshot's digest.

    The path is as before on any error. Raises SnapshotError, OSError.
    """
    where = os.fspath(path)
    draft = _encoded(where, header, memory, bytes(_DIGEST_SIZE))
    begin = len(draft) + -len(draft) % _ALIGNMENT
    with replacing(path) as descriptor:
        os.ftruncate(descriptor, begin + memory.size)
        digest = hashlib.sha256()
        for at, piece in memory.pieces(memory.extents):
            digest.update(piece)
            write_at(descriptor, begin + at, piece)
        encoded = _encoded(where, header, memory, digest.digest())
        write_at(descriptor, 0, encoded)
        os.fsync(descriptor)
    return _digest_in(encoded)


def digest_of(header: Mapping[str, Any], memory: Layer) -> str:
    """The digest that a file of this would have."""
    return _digest_in(_encoded("snapshot", header, memory, memory_digest(memory)))


def memory_digest(memory: Layer) -> bytes:
    """The checksum of a layer's memory. Raises OSError."""
    digest = hashlib.sha256()
    for _, piece in memory.pieces(memory.extents):
        digest.update(piece)
    return digest.digest()


def read_file(path: str | os.PathLike[str]) -> Contents:
    """Read all of a file but its memory, which is only looked for.

    Nothing is allocated because the file says so: no more than it has, and no more than 64 MiB for
    the header or the extents. Raises SnapshotError, which lists everything wrong; OSError.
    """
    where = os.fspath(path)
    # A pipe without a writer would keep open() waiting, where it is to be refused.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SnapshotError(where, ["is not a regular file"])
        return _read(where, descriptor, status.st_size)
    except BaseException:
        os.close(descriptor)
        raise


def refused(where: str, problems: Sequence[str]) -> SnapshotError:
    """The error for a file with these problems, whose author had a say in their texts.

    They are made short and printable, and of very many the first are kept.
    """
    kept = [_printable(problem) for problem in problems[:_MANY]]
    if len(problems) > _MANY:
        kept.append(f"and {len(problems) - _MANY} more")
    return SnapshotError(where, kept)


def _printable(problem: str) -> str:
    text = problem if len(problem) <= _LONG else f"{problem[:_LONG]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def digest_in(path: str) -> str | None:
    """The digest that a file says it has; None if there is no such file, or it is no snapshot."""
    try:
        with open(path, "rb") as opened:
            start = opened.read(_BEFORE_HEADER)
    except OSError:
        return None
    return _digest_in(start) if is_snapshot(start) else None


def is_snapshot(start: bytes) -> bool:
    """Whether a file that starts with these bytes, at least 16, is meant to be a snapshot."""
    return start.startswith(MAGIC)


def damage_of_memory(contents: Contents) -> Iterator[str]:
    """What is wrong with a file's memory, which is read whole. Raises OSError."""
    if memory_digest(contents.memory) != contents.memory_digest:
        yield "memory does not match its checksum: it was damaged, or changed"
    memory = contents.memory
    gaps = between(memory.extents, memory.size)
    if any(piece.strip(b"\0") for _, piece in memory.pieces(gaps)):
        yield "there are bytes where the file says that memory has none"


def _encoded(where: str, header: Mapping[str, Any], memory: Layer, memory_digest: bytes) -> bytes:
    """All of a file but the memory."""
    try:
        text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode("ascii")
    except (ValueError, RecursionError) as error:
        raise SnapshotError(where, [f"cannot be written as JSON: {error}"]) from None
    table = b"".join(_EXTENT.pack(*extent) for extent in memory.extents)
    if problems := [
        f"{what} take {size} bytes; a file has at most {_LONGEST}"
        for what, size in (("state and devices", len(text)), ("extents of memory", len(table)))
        if size > _LONGEST
    ]:
        raise SnapshotError(where, problems)
    size = _BEFORE_HEADER + len(text) + len(table)
    begin = size + -size % _ALIGNMENT
    fixed = _FIXED.pack(
        MAGIC, VERSION, len(text), len(memory.extents), begin, memory.size, memory_digest
    )
    digest = hashlib.sha256(fixed + text + table).digest()
    return fixed + digest + text + table


def _digest_in(encoded: bytes) -> str:
    return encoded[_FIXED.size : _BEFORE_HEADER].hex()


def _read(where: str, descriptor: int, length: int) -> Contents:
    start = read_at(descriptor, 0, _BEFORE_HEADER)
    if not is_snapshot(start):
        what = "is empty" if not start else "is not a snapshot"
        what += "; give a file that a snapshot's save() or vmm-arch run --save has written"
        raise SnapshotError(where, [what])
    if len(start) < _BEFORE_HEADER:
        raise SnapshotError(where, [f"is cut short: it ends after {len(start)} bytes"])
    _, version, header_size, count, begin, size, of_memory = _FIXED.unpack_from(start)
    if version != VERSION:
        newer = "; a newer vmm-arch reads it" if version > VERSION else ""
        raise SnapshotError(
            where,
            [f"has version {version} of the format, and this vmm-arch knows {VERSION}{newer}"],
        )
    table_size = count * _EXTENT.size
    end = _BEFORE_HEADER + header_size + table_size
    problems = [
        f"says that its {what} takes {claimed} bytes; {_LONGEST} are the most"
        for what, claimed in (("header", header_size), ("table of extents", table_size))
        if claimed > _LONGEST
    ]
    if end > length:
        problems.append(f"is cut short: it ends at byte {length}, within header and extents")
    if begin != end + -end % _ALIGNMENT:
        problems.append(f"says that memory begins at byte {begin}, and the rest ends at {end}")
    if not size or size % PAGE_SIZE:
        problems.append(f"says that memory has {size} bytes, which are no whole pages")
    if begin + size != length:
        change = "cut short" if length < begin + size else "longer than it says"
        problems.append(f"is {change}: it has {length} bytes instead of {begin + size}")
    if problems and (end > length or max(header_size, table_size) > _LONGEST):
        raise SnapshotError(where, problems)
    rest = read_at(descriptor, _BEFORE_HEADER, header_size + table_size)
    stated = start[_FIXED.size :]
    if hashlib.sha256(start[: _FIXED.size] + rest).digest() != stated:
        problems.append("the header does not match its checksum: it was damaged, or changed")
        raise SnapshotError(where, problems)  # more would be noise
    if begin == end + -end % _ALIGNMENT and read_at(descriptor, end, begin - end).strip(b"\0"):
        problems.append("there are bytes between the header and memory")
    extents = tuple(_EXTENT.iter_unpack(rest[header_size:]))
    problems += _wrong_extents(extents, size)
    header = _parsed(rest[:header_size], problems)
    if problems:
        raise refused(where, problems)
    memory = Layer(descriptor, begin, size, extents)
    return Contents(header, memory, of_memory, stated.hex())


def _wrong_extents(extents: Sequence[Extent], size: int) -> Iterator[str]:
    """What is wrong with extents; of many, the first ten."""
    wrong = 0
    for before, (start, end) in zip(chain([(0, -1)], extents), extents, strict=False):
        if start % PAGE_SIZE or end % PAGE_SIZE or start >= end:
            problem = "is not made of whole pages"
        elif end > size:
            problem = f"reaches beyond the {size:#x} bytes of memory"
        elif start <= before[1]:
            problem = "overlaps the one before, or touches it"
        else:
            continue
        wrong += 1
        if wrong > 10:
            yield "more extents are wrong"
            return
        yield f"extent [{start:#x}, {end:#x}) {problem}"


def _parsed(text: bytes, problems: list[str]) -> Mapping[str, Any]:
    try:
        header = json.loads(
            text.decode("utf-8"), object_pairs_hook=without_duplicates, parse_constant=_no_number
        )
    except (ValueError, RecursionError) as error:
        problems.append(f"the header is not JSON: {str(error)[:200]}")
        return {}
    if not isinstance(header, dict):
        problems.append("the header is not a JSON object")
        return {}
    if _is_deep(header):
        problems.append(f"the header has more than {_DEEPEST} lists and objects in each other")
        return {}
    return header


def _is_deep(value: Any) -> bool:
    """Whether more lies in each other than anybody who walks through it should have to bear."""
    level: Iterable[Any] = [value]
    for _ in range(_DEEPEST + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _no_number(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")
