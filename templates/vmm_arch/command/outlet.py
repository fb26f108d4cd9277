"""Guest output that cannot block the end of the guest when its reader has stopped reading."""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from threading import Event
from typing import Final

_PIECE: Final = 512
"""A pipe that is reported as writable takes at least so many bytes (POSIX, _POSIX_PIPE_BUF)."""


class Gate:
    """Whether output may block on its reader; shared by all outlets of one guest."""

    def __init__(self) -> None:
        self._closed = Event()
        self.reader, self._writer = os.pipe()

    def close(self) -> None:
        """Release everyone who waits; safe in any thread and in signal handlers."""
        if not self._closed.is_set():
            self._closed.set()
            os.write(self._writer, b"\0")  # twice at most, so it cannot block

    def open(self) -> None:
        """Let output block again, for the next guest."""
        if self._closed.is_set():
            os.read(self.reader, 4096)
            self._closed.clear()

    def release(self) -> None:
        """Close the descriptors."""
        os.close(self.reader)
        os.close(self._writer)


class Outlet:
    """A descriptor that output is written to, unchanged and unbuffered.

    A vCPU blocks in :meth:`write` while the reader does not read. When the gate is closed it stops
    waiting and the rest is lost. On Windows, which cannot poll a pipe, it keeps waiting.
    """

    def __init__(self, descriptor: int, gate: Gate) -> None:
        self._descriptor = descriptor
        self._gate = gate
        self.broken = False
        """Whether the reader has closed the pipe."""
        self._given_up = False
        """Whether a wait for the reader timed out after the gate was closed."""

    def write(self, data: bytes, patience: float = 0) -> None:
        """Write all of ``data``; with the gate closed, wait at most ``patience`` seconds."""
        while data and not self.broken and self._wait(patience):
            try:
                written = os.write(self._descriptor, data[:_PIECE])
            except BlockingIOError:  # another process that shares the file set O_NONBLOCK
                continue
            except BrokenPipeError:
                self.broken = True
            else:
                data = data[written:]

    def _wait(self, patience: float) -> bool:
        """Wait until the descriptor is writable; False once the wait has been given up."""
        if sys.platform == "win32":
            return True
        gate, out = self._gate.reader, self._descriptor
        closed, ready, _ = select.select([gate], [out], [])
        if closed and not ready and not self._given_up:
            _, ready, _ = select.select([], [out], [], patience)
            self._given_up = not ready and bool(patience)
        return bool(ready)


def flush_standard() -> None:
    """Flush Python's buffers of standard output and error before writing to the descriptors."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
