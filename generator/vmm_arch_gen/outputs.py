"""Output folders: what differs from what should be there, and making it so, all or nothing."""

from __future__ import annotations

import contextlib
import difflib
import os
import signal
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vmm_arch_gen.diagnostics import InputError, Problem


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


def _unusable(path: Path, error: OSError) -> InputError:
    return InputError(
        Problem(
            str(error.filename or path),
            f"cannot be used: {error.strerror or error}",
            "nothing was changed; free space, mend permissions or name another --output, and"
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
    return (text or b"").decode(errors="backslashreplace").splitlines()


def apply(changes: Iterable[Change]) -> None:
    """Make all of the changes, or none of them.

    Everything is first written beside its place. Only when that has gone well are the files moved
    into place, which needs no space and does not stop for signals.
    """
    changes = list(changes)
    staged: list[tuple[Change, Path | None]] = []
    created: list[Path] = []
    try:
        for change in changes:
            created += _make_folder(change.path.parent)
            staged.append((change, None if change.after is None else _stage(change)))
        with _signals_held():
            _commit(staged)
    except BaseException as error:
        for _, temporary in staged:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
        for folder in reversed(created):
            with contextlib.suppress(OSError):  # no longer empty: somebody else uses it
                folder.rmdir()
        if isinstance(error, OSError):
            raise _unusable(Path(), error) from None
        raise


def _make_folder(folder: Path) -> list[Path]:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir()
    return missing[::-1]


def _stage(change: Change) -> Path:
    assert change.after is not None
    handle, name = tempfile.mkstemp(prefix=f".{change.path.name}.", dir=change.path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(change.after)
        os.chmod(name, _mode(change.path))
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def _mode(path: Path) -> int:
    """The permissions of the file that is replaced, or those of a new file."""
    if path.exists():
        return path.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _commit(staged: list[tuple[Change, Path | None]]) -> None:
    """Move the staged files into place; on an error put back what was moved."""
    done: list[Change] = []
    try:
        for change, temporary in staged:
            if temporary is None:
                change.path.unlink()
            else:
                os.replace(temporary, change.path)
            done.append(change)
    except OSError:
        for change in reversed(done):
            if change.before is None:
                change.path.unlink(missing_ok=True)
            else:
                os.replace(_stage(Change(change.path, None, change.before)), change.path)
        raise


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Deliver interrupts only afterwards, where the system can hold them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
