"""The user's terminal as a guest's console: raw while the guest runs, with a key that ends it."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from threading import Thread
from types import TracebackType
from typing import Any, Final

if sys.platform != "win32":
    import termios
    import tty

ESCAPE: Final = b"\x1d"
"""Control-]: what ends the guest from the keyboard."""


class Terminal:
    """Hands what is typed to a guest until the escape key is pressed; a context manager.

    Where standard input is a terminal it is raw meanwhile, so that Control-C goes to the guest, and
    as it was afterwards. Where it is a file or a pipe its content is what is typed.
    """

    def __init__(
        self, typed: Callable[[bytes], object], escaped: Callable[[], object], source: int = 0
    ) -> None:
        self._typed = typed
        self._escaped = escaped
        self._source = source
        self._mode: list[Any] | None = None
        self.is_terminal = os.isatty(source)

    def __enter__(self) -> Terminal:
        if sys.platform != "win32" and self.is_terminal:
            self._mode = termios.tcgetattr(self._source)
            tty.setraw(self._source)
        self._stop, self._stopped = os.pipe()
        self._reader = Thread(target=self._read, name="terminal", daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        os.close(self._stopped)
        # Windows waits for files with nothing but threads; that one ends with the process.
        if sys.platform != "win32":
            self._reader.join()
            os.close(self._stop)
            if self._mode is not None:
                termios.tcsetattr(self._source, termios.TCSADRAIN, self._mode)

    def write(self, data: bytes) -> None:
        """Show what the guest writes, at once and unchanged."""
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def _read(self) -> None:
        while True:
            if sys.platform != "win32":
                ready, _, _ = select.select([self._source, self._stop], [], [])
                if self._stop in ready:
                    return
            try:
                data = os.read(self._source, 4096)
            except OSError:  # the terminal is gone
                data = b""
            before, escape, _ = data.partition(ESCAPE) if self.is_terminal else (data, b"", b"")
            if before:
                self._typed(before)
            if escape:
                self._escaped()
            if escape or not data:
                return
