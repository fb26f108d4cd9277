"""A file that appears whole or not at all, in place of an old one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vmm_arch.backing import BackingError


@contextmanager
def replacing(file: str | os.PathLike[str]) -> Iterator[int]:
    """Give a descriptor of a new file, which takes the path's place when the block ends well.

    On an error the path is as before. Whoever has mapped the old file keeps it; Windows refuses that
    with a PermissionError. Raises BackingError if the path is no file's, OSError.
    """
    path = os.fspath(file)
    target = os.path.realpath(path)
    if os.path.exists(target) and not os.path.isfile(target):
        raise BackingError(
            path, ["is not a regular file, and would be replaced; give another path"]
        )
    temporary = os.path.join(os.path.dirname(target), f".{os.urandom(8).hex()}.partial")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o666)  # less the umask, as of any new file
    try:
        try:
            yield descriptor
        finally:
            os.close(descriptor)
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
