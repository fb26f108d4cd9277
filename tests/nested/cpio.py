"""Archives in the format that Linux unpacks into its first file system: cpio's "newc".

The format is documented in the kernel: Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ALIGNMENT = 4


@dataclass(frozen=True)
class Entry:
    """One file, of any kind; all of them belong to root."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)
    """The major and minor number of a device's node."""


def file(name: str, data: bytes, permissions: int = 0o644) -> Entry:
    return Entry(name, stat.S_IFREG | permissions, data)


def link(name: str, target: str) -> Entry:
    return Entry(name, stat.S_IFLNK | 0o777, target.encode())


def folder(name: str) -> Entry:
    return Entry(name, stat.S_IFDIR | 0o755)


def character_device(name: str, major: int, minor: int) -> Entry:
    return Entry(name, stat.S_IFCHR | 0o600, device=(major, minor))


def tree(root: Path) -> Iterator[Entry]:
    """Everything in a folder of this system, in an order that is always the same."""
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            yield link(name, str(path.readlink()))
        elif path.is_dir():
            yield folder(name)
        else:
            yield file(name, path.read_bytes(), path.stat().st_mode & 0o777)


def archive(entries: Iterable[Entry]) -> bytes:
    """An archive of these entries, each folder before what is in it.

    Several, one after the other, are unpacked as one: what comes later replaces what came before.
    """
    end = Entry("TRAILER!!!", 0)
    return b"".join(_record(entry, number) for number, entry in enumerate([*entries, end]))


def _record(entry: Entry, number: int) -> bytes:
    name = entry.name.encode() + b"\0"
    # No owner and no time of change: the same files always make the same archive.
    uid = gid = mtime = checksum = 0
    links = 1
    archives_device = (0, 0)
    fields = (
        *(number, entry.mode, uid, gid, links, mtime, len(entry.data)),
        *(*archives_device, *entry.device, len(name), checksum),
    )
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)
