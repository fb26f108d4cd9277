"""Snapshots for other processes: what is pickled of one, and a snapshot made of that.

One whose file is still there is its path, which the other process maps as this one does, so that
they share its pages. Any other is its bytes, which every process that gets it has for itself; a
large one is therefore refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from vmm_arch.errors import SnapshotError
from vmm_arch.snapshot import file
from vmm_arch.snapshot.image import Extent, Layer, MemoryImage, nameless_file
from vmm_arch.snapshot.positions import write_at

LARGEST: Final = 64 << 20
"""How many bytes of memory, pages of zeros apart, are pickled where there is no file."""


def reduce(snapshot: Any) -> tuple[Any, ...]:
    """What makes a snapshot again in another process, for ``__reduce__``.

    Raises SnapshotError, ClosedError, OSError.
    """
    kind, path, base = type(snapshot), snapshot._path, snapshot.base
    top: Layer = snapshot.memory.top
    if path is not None and file.digest_in(path) == snapshot.digest:
        return _of_file, (kind, path, snapshot.digest, base)
    size = sum(end - start for start, end in top.extents)
    if size > LARGEST:
        problem = (
            f"{size:#x} bytes of memory would be copied into every process; save() it, at a path that"
            f" they can read, or keep it below {LARGEST:#x} bytes"
        )
        raise SnapshotError("pickle", [problem])
    memory = b"".join(piece for _, piece in top.pieces(top.extents))
    return _of_bytes, (kind, snapshot._header(), top.size, tuple(top.extents), memory, base)


def _of_file(kind: Any, path: str, digest: str, base: Any) -> Any:
    found = kind.load(path, base=base)
    if found.digest != digest:
        found.close()
        problem = "is not the snapshot any more that was pickled; keep its file as it is meanwhile"
        raise SnapshotError(path, [problem])
    return found


def _of_bytes(
    kind: Any,
    header: Mapping[str, Any],
    size: int,
    extents: Sequence[Extent],
    memory: bytes,
    base: Any,
) -> Any:
    problems: list[str] = []
    found = kind.read_header(header, problems)
    if found is None:  # of another version of this package
        raise SnapshotError("pickled snapshot", problems)
    with Layer(nameless_file(), 0, size, extents) as layer:
        os.ftruncate(layer.descriptor, size)
        at = 0
        for start, end in extents:
            write_at(layer.descriptor, start, memory[at : at + end - start])
            at += end - start
        image = MemoryImage(layer, base.memory if base is not None else None)
    made = found.configuration
    return kind(made, found.state, image, found.devices, base=base, host=found.host)
