"""Output that nobody has to wait for once the guest has ended, though its reader does not read."""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from threading import Event
from typing import Final

_PIECE: Final = 512
"""A pipe that can take anything takes so many bytes (POSIX, _POSIX_PIPE_BUF)."""


class Gate:
    """Whether output may wait for its reader; one for all that one guest's end concerns."""

    def __init__(self) -> None:
        self._closed = Event()
        self.reader, self._writer = os.pipe()

    def close(self) -> None:
        """Let nobody wait any longer; for any thread, and for handlers of signals."""
        if not self._closed.is_set():
            self._closed.set()
            os.write(self._writer, b"\0")  # once or twice: never so often that it would wait

    def open(self) -> None:
        """Let output wait again: for the next guest."""
        if self._closed.is_set():
            os.read(self.reader, 4096)
            self._closed.clear()

    def release(self) -> None:
        """Give the descriptors back."""
        os.close(self.reader)
        os.close(self._writer)


class Outlet:
    """A descriptor that text and characters go to, unchanged and at once.

    A guest's vCPU waits in :meth:`write` while the reader does not read. It stops waiting, and what
    is left is lost, when the gate is closed. That needs poll: on Windows it waits for the reader.
    """

    def __init__(self, descriptor: int, gate: Gate) -> None:
        self._descriptor = descriptor
        self._gate = gate
        self.broken = False
        """Whether the reader is gone."""
        self._given_up = False
        """Whether somebody waited for the reader in vain after the gate was closed."""

    def write(self, data: bytes, patience: float = 0) -> None:
        """Write all of it; ``patience`` is how many seconds to wait though the gate is closed."""
        while data and not self.broken and self._wait(patience):
            try:
                written = os.write(self._descriptor, data[:_PIECE])
            except BlockingIOError:  # another one who has the file made it so
                continue
            except BrokenPipeError:
                self.broken = True
            else:
                data = data[written:]

    def _wait(self, patience: float) -> bool:
        """Wait until the descriptor takes something; False if that is not worth it any more."""
        if sys.platform == "win32":
            return True
        gate, out = self._gate.reader, self._descriptor
        closed, ready, _ = select.select([gate], [out], [])
        if closed and not ready and not self._given_up:
            _, ready, _ = select.select([], [out], [], patience)
            self._given_up = not ready and bool(patience)
        return bool(ready)


def flush_standard() -> None:
    """Send what Python keeps of standard output and error, before something is written past it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
