"""``vmm-arch state``: shows a snapshot or a saved state, or what differs between two."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from vmm_arch.command.backends import backend_of_file
from vmm_arch.command.messages import report_error
from vmm_arch.errors import SnapshotError, StateError
from vmm_arch.memory import PAGE_SIZE
from vmm_arch.snapshot import file
from vmm_arch.snapshot.comparison import Change, changed_pages, changes
from vmm_arch.snapshot.file import Contents
from vmm_arch.snapshot.image import Extent, MemoryImage
from vmm_arch.snapshot.record import Processor, Record
from vmm_arch.state import SavedState

SAME: Final = 0
DIFFERENT: Final = 1
TROUBLE: Final = 2
EPILOG: Final = """\
A file is a snapshot (snapshot.save(path)) or the text of a state (state.to_json()).
Nothing is run, so that a file of any hypervisor and processor can be looked at on
any host, whoever wrote it.

exit status:
  0  one file: it was shown; two files: they are the same
  1  they differ
  2  a file cannot be read, or two files cannot be compared

examples:
  vmm-arch state machine.snapshot
  vmm-arch state before.snapshot after.snapshot
  vmm-arch state --base before.snapshot part.snapshot after.snapshot
  vmm-arch state --json a.json b.json | jq '.differences[].name'
"""
_LONGEST: Final = 64 << 20
"""Bytes of a state's text."""
_FORMATS: Final = {"vmm-arch vCPU state": "VcpuState", "vmm-arch machine state": "VmState"}
_SHOWN: Final = 16
"""How many runs of pages are listed."""


class _CannotCompareError(ValueError):
    """Two files have nothing in common that could be compared."""


@dataclass(frozen=True)
class _Given:
    """A file, read."""

    path: str
    state: SavedState
    snapshot: Contents | None = None
    record: Record | None = None
    cpu: Processor | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmm-arch state``."""
    parser.add_argument("file", metavar="FILE", help="a snapshot, or a state as JSON")
    parser.add_argument(
        "other",
        metavar="FILE",
        nargs="?",
        help="compare with this one: - and + are bits that it lost and got",
    )
    parser.add_argument(
        "--base",
        metavar="FILE",
        action="append",
        default=[],
        help="a snapshot that FILE is an increment of, to compare memory; may be given several times",
    )
    parser.add_argument(
        "--no-memory", action="store_true", help="do not compare the memory of two snapshots"
    )
    parser.add_argument(
        "--verify", action="store_true", help="read all memory, and compare it with its checksum"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def state(options: argparse.Namespace) -> int:
    """Show or compare; return the exit status."""
    try:
        text, status = _done(options)
    except (OSError, ValueError) as error:
        report_error("state", ValueError(_printable(str(error))))
        return TROUBLE
    print(_printable(text))
    return status


def _done(options: argparse.Namespace) -> tuple[str, int]:
    """What is to be printed, and the exit status. Raises ValueError, OSError."""
    mine = _read(options.file, options.verify)
    if options.other is None:
        return json.dumps(_as_data(mine), indent=1) if options.json else _shown(mine), SAME
    theirs = _read(options.other, options.verify)
    bases = [] if options.no_memory else [_read(path, options.verify) for path in options.base]
    found = list(_differences(mine, theirs))
    pages = [] if options.no_memory else list(_pages(mine, theirs, bases))
    text = _compared_as_json(found, pages) if options.json else _compared(found, pages)
    return text, DIFFERENT if found or pages else SAME


def _printable(text: str) -> str:
    """A text without what a terminal would obey: whoever wrote the file chose some of it."""
    return "".join(
        c if c == "\n" or " " <= c <= "~" else c.encode("unicode_escape").decode() for c in text
    )


def _one_line(name: str) -> str:
    return name.replace("\n", "\\n")


def _read(path: str, verify: bool) -> _Given:
    """Read a file of either kind. Raises SnapshotError, OSError."""
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe would keep open() waiting
        raise SnapshotError(path, ["is not a regular file"])
    with open(path, "rb") as opened:
        start = opened.read(len(file.MAGIC))
        if not file.is_snapshot(start):
            return _read_state(path, start + opened.read(_LONGEST + 1 - len(start)))
    contents = file.read_file(path)
    problems: list[str] = []
    found = None
    with contents.memory:
        name = contents.header.get("backend")
        try:
            snapshots = backend_of_file(name if isinstance(name, str) else repr(name)).Snapshot
        except ValueError as error:
            problems.append(str(error))
        else:
            found = snapshots.read_header(contents.header, problems)
        if verify:
            problems += file.damage_of_memory(contents)
        if problems or found is None:
            raise file.refused(path, problems)
    return _Given(path, found.state, contents, found, snapshots._cpu)


def _read_state(path: str, text: bytes) -> _Given:
    if not text:
        raise SnapshotError(path, ["is empty"])
    neither = "is neither a snapshot nor the text of a state"
    if len(text) > _LONGEST or text.lstrip()[:1] != b"{":
        raise SnapshotError(path, [neither])
    try:
        data = json.loads(text)
        kind = _FORMATS.get(str(data.get("format"))[:40])
        if kind is None:
            raise SnapshotError(path, [neither])
        states = getattr(backend_of_file(str(data.get("backend"))), kind)
        return _Given(path, states.from_json(text.decode()))
    except StateError as error:
        raise file.refused(path, error.problems) from None
    except RecursionError:
        raise SnapshotError(path, ["lies too deep in itself to be read"]) from None
    except SnapshotError:
        raise
    except ValueError as error:
        raise file.refused(path, [str(error)]) from None


# One file


def _shown(given: _Given) -> str:
    return "\n".join([*_about(given), str(given.state)])


def _about(given: _Given) -> Iterator[str]:
    if given.snapshot is not None and given.record is not None and given.cpu is not None:
        record, contents = given.record, given.snapshot
        made = record.configuration
        stored = sum(end - start for start, end in contents.memory.extents)
        yield f"snapshot of {given.state._backend}, digest {contents.digest}"
        if record.base is not None:
            yield f"increment of the snapshot with the digest {record.base}"
        if record.host is not None:
            yield f"taken on: {given.cpu.describe(record.host)}"
        with_ = [
            f"{made.vcpus} vCPU" + "s" * (made.vcpus != 1),
            *["an irqchip"] * made.irqchip,
            *["dirty pages tracked"] * made.track_dirty,
        ]
        yield f"machine: {', '.join(with_)}"
        yield f"memory: {', '.join(map(str, made.regions))}; {stored:#x} bytes of {made.size:#x} stored"
        yield f"devices: {', '.join(map(_one_line, record.devices)) or 'none'}"


def _as_data(given: _Given) -> Mapping[str, Any]:
    state: Mapping[str, Any] = given.state._as_data()
    if given.snapshot is None:
        return state
    contents = given.snapshot
    return {
        "format": "vmm-arch snapshot",
        "digest": contents.digest,
        **{key: value for key, value in contents.header.items() if key != "state"},
        "extents": [[hex(start), hex(end)] for start, end in contents.memory.extents],
        "state": state,
    }


# Two files


_Found: TypeAlias = tuple[str, Any, Any, str]
"""The name of what differs, both values as JSON has them, and a text for people."""


def _compared(found: list[_Found], pages: list[Extent]) -> str:
    lines = [text for *_, text in found]
    if pages:
        count = sum(end - start for start, end in pages) // PAGE_SIZE
        listed = [f"[{start:#x}, {end:#x})" for start, end in pages[:_SHOWN]]
        listed += ["..."] * (len(pages) > _SHOWN)
        differ = "pages differ" if count > 1 else "page differs"
        lines.append(f"memory: {count} {differ}: {', '.join(listed)}")
    return "\n".join(lines) or "no differences"


def _compared_as_json(found: list[_Found], pages: list[Extent]) -> str:
    differences = [{"name": name, "mine": one, "theirs": other} for name, one, other, _ in found]
    memory = [[hex(start), hex(end)] for start, end in pages]
    return json.dumps({"differences": differences, "memory": memory}, indent=1)


def _differences(mine: _Given, theirs: _Given) -> Iterator[_Found]:
    if type(mine.state) is not type(theirs.state):
        kinds = [f"{g.path} is of a {g.state._what} of {g.state._backend}" for g in (mine, theirs)]
        raise _CannotCompareError("; ".join(kinds))
    if mine.snapshot is not None and theirs.snapshot is not None:
        for part in ("machine", "devices"):
            one, other = mine.snapshot.header[part], theirs.snapshot.header[part]
            for change in changes(one, other, part):
                yield *change, _text(change)
    for found in mine.state.diff(theirs.state):
        one, other = (None if v is None else hex(v) for v in (found.mine, found.theirs))
        yield found.name, one, other, str(found)


def _text(change: Change) -> str:
    name, *values = change
    shown = ["nothing" if value is None else json.dumps(value) for value in values]
    one, other = (text if len(text) <= 60 else f"{text[:60]}..." for text in shown)
    return f"{_one_line(name)}: {one} -> {other}"


def _pages(mine: _Given, theirs: _Given, bases: list[_Given]) -> Iterator[Extent]:
    """Where the memory of two snapshots differs; nowhere, if their regions do."""
    if mine.record is None or theirs.record is None:
        return
    regions = mine.record.configuration.regions
    if regions != theirs.record.configuration.regions:
        return
    if _memory_key(mine) == _memory_key(theirs):
        return
    one, other = _image(mine, bases), _image(theirs, bases)
    yield from changed_pages(one.whole, other.whole, regions)


def _memory_key(given: _Given) -> tuple[Any, ...]:
    """Equal for those with the same memory."""
    assert given.snapshot is not None
    assert given.record is not None
    return given.record.base, given.snapshot.memory_digest, given.snapshot.memory.extents


def _image(given: _Given, bases: list[_Given]) -> MemoryImage:
    """The memory of a snapshot, which of an increment needs its bases."""
    assert given.snapshot is not None
    assert given.record is not None
    wanted = given.record.base
    if wanted is None:
        return MemoryImage(given.snapshot.memory)
    for base in bases:
        if base.snapshot is not None and base.snapshot.digest == wanted:
            return MemoryImage(given.snapshot.memory, _image(base, bases))
    raise _CannotCompareError(
        f"{given.path}: its memory is an increment of the snapshot with the digest {wanted}; give it"
        " with --base, or leave out memory with --no-memory"
    )
