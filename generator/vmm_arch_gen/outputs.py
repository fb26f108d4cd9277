"""Output folders: what differs from what should be there, and making it so, all or nothing."""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vmm_arch_gen import signals
from vmm_arch_gen.diagnostics import InputError, Problem, refuse

STAGED = ".vmm-arch-new"
"""How the names of files end that are written, but not yet in their place."""


@dataclass(frozen=True)
class Change:
    """A file that is not as it should be."""

    path: Path
    before: bytes | None
    """None where there is no file yet."""
    after: bytes | None
    """None for an orphan: a file that nothing generates any more."""


def compare(
    root: Path, files: Mapping[PurePosixPath, bytes], *, orphans: Iterable[Path] = ()
) -> list[Change]:
    """What would have to change below ``root`` for it to hold ``files`` and no orphans."""
    changes = []
    for name, after in sorted(files.items()):
        path = root / name
        before = _read(path)
        if before != after:
            changes.append(Change(path, before, after))
    return changes + [Change(path, _read(path), None) for path in sorted(orphans)]


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from None


def is_generated(path: Path, marker: str) -> bool:
    """Whether a file begins with what generated files begin with."""
    try:
        with path.open("rb") as file:
            return file.read(len(marker)) == marker.encode()
    except OSError as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: OSError) -> InputError:
    return InputError(
        Problem(
            str(path),
            f"cannot be used: {error.strerror or error}",
            "nothing was changed; free space, correct permissions or name another --output, and"
            " run the command again",
        )
    )


def unified_diff(changes: Iterable[Change], root: Path) -> Iterator[str]:
    """The changes as lines of a unified diff, without line ends."""
    for change in changes:
        name = Path(os.path.relpath(change.path, root.parent)).as_posix()
        before, after = (_lines(text) for text in (change.before, change.after))
        old = f"a/{name}" if change.before is not None else "/dev/null"
        new = f"b/{name}" if change.after is not None else "/dev/null"
        yield from difflib.unified_diff(before, after, old, new, lineterm="")


def _lines(text: bytes | None) -> list[str]:
    """The lines of a file, with what is unusual about their ends made visible."""
    decoded = (text or b"").decode(errors="backslashreplace")
    lines = [line.replace("\r", "\\r") for line in decoded.split("\n")]
    last = lines.pop()
    return [*lines, f"{last}\\ No newline at end of file"] if last else lines


def apply(changes: Iterable[Change]) -> None:
    """Make all of the changes, or none of them.

    Everything is first written next to its destination. Only when that has gone well are the files moved
    into place, which needs no space and does not stop for signals.
    """
    staged: list[tuple[Path, Path | None]] = []
    created: list[Path] = []
    path = Path()
    try:
        for change in changes:
            path = change.path
            _make_folder(path.parent, created)
            _stage(change, staged)
        with signals.held():
            _commit(staged)
    except BaseException as error:
        for _, new in staged:
            if new is not None:
                new.unlink(missing_ok=True)
        for folder in reversed(created):
            with contextlib.suppress(OSError):  # no longer empty: somebody else uses it
                folder.rmdir()
        if isinstance(error, OSError):
            raise _unusable(Path(error.filename or path), error) from None
        raise


def _make_folder(folder: Path, created: list[Path]) -> None:
    for path in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        with signals.held():
            path.mkdir()
            created.append(path)


def _stage(change: Change, staged: list[tuple[Path, Path | None]]) -> None:
    """Write a new file beside its place, and note where."""
    if change.after is None:
        staged.append((change.path, None))
        return
    with signals.held():  # a file that is made is noted, whatever comes
        handle, name = tempfile.mkstemp(STAGED, f".{change.path.name}.", change.path.parent)
        staged.append((change.path, Path(name)))
    with os.fdopen(handle, "wb") as file:
        file.write(change.after)
    os.chmod(name, _mode(change.path))


def _mode(path: Path) -> int:
    """The permissions of the file that is replaced, or those of a new file."""
    if path.exists():
        return path.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _commit(staged: list[tuple[Path, Path | None]]) -> None:
    """Move the staged files into place; on an error put back what was there."""
    done: list[tuple[Path, Path | None]] = []
    try:
        for path, new in staged:
            done.append((path, _second_name(path) if path.exists() else None))
            if new is None:
                path.unlink()
            else:
                os.replace(new, path)
    except OSError:
        for path, old in reversed(done):
            if old is None:
                path.unlink(missing_ok=True)
            else:
                os.replace(old, path)
        raise
    finally:
        for _, old in done:
            if old is not None:
                old.unlink(missing_ok=True)


def _second_name(path: Path) -> Path:
    """Give a file a second name, by which it can be put back without any space on the disk."""
    name = path.with_name(f".{path.name}.old{STAGED}")
    name.unlink(missing_ok=True)
    try:
        os.link(path, name)
    except OSError:  # a file system without links
        shutil.copy2(path, name)
    return name


def refuse_foreign(root: Path, files: Iterable[PurePosixPath], markers: Sequence[str]) -> None:
    """Refuse to write files over others that do not begin with what generated ones begin with."""
    what = "a file that was not generated has this name"
    remedy = "move it elsewhere, or name another folder or module: --output DIR, --name NAME"
    there = [path for path in (root / name for name in files) if path.is_file()]
    refuse(
        Problem(str(path), what, remedy)
        for path in there
        if path.stat().st_size and not any(is_generated(path, marker) for marker in markers)
    )


def orphans(
    root: Path, files: Mapping[PurePosixPath, bytes], pattern: str, marker: str
) -> list[Path]:
    """Files that nothing generates any more; InputError for those that nothing ever did."""
    found: list[Path] = []
    foreign: list[Path] = []
    for path in sorted(root.glob(pattern)):
        name = PurePosixPath(path.relative_to(root).as_posix())
        if not path.is_file() or name in files or "__pycache__" in name.parts:
            continue
        if name.name.startswith("."):  # not a module; ours if a killed run left it while writing
            if name.name.endswith(STAGED):
                found.append(path)
        elif is_generated(path, marker):
            found.append(path)
        else:
            foreign.append(path)
    if foreign:
        what = "this file is in a folder of generated files, but was not generated"
        raise InputError(*(Problem(str(path), what, "move it elsewhere") for path in foreign))
    return found
