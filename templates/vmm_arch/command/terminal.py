"""The user's terminal as a guest's console: raw mode while the guest runs, and an escape key."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable
from threading import Thread, current_thread, main_thread
from time import sleep
from types import FrameType, TracebackType
from typing import Any, Final, Protocol

if sys.platform != "win32":
    import termios
    import tty

ESCAPE: Final = b"\x1d"
"""Control-] ends the guest."""
_ENDING: Final = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGBREAK")
"""The signals that end a command; no system has all of them."""
_SOON: Final = 0.05
"""Seconds between two checks for room in the guest's queue."""
_ENOUGH: Final = 1 << 16
"""How many characters may wait for the guest before reading pauses."""


class Line(Protocol):
    """The receiver of typed characters: a serial port."""

    @property
    def waiting(self) -> int: ...
    def receive(self, data: bytes, /) -> object: ...


class Terminal:
    """Sends standard input to a guest until the escape key is pressed; a context manager.

    A terminal is in raw mode meanwhile, so that Control-C goes to the guest. Its mode is restored
    afterwards, also when a signal terminates or suspends the command. A terminating signal ends the
    guest; a second one ends the command at once. A file or a pipe is sent as if it were typed.
    """

    def __init__(self, source: int = 0) -> None:
        self._source = source
        self._mode: list[Any] | None = None
        self._line: Line | None = None
        self._end: Callable[[], object] | None = None
        self._escaped = False
        self._handlers: dict[signal.Signals, Any] = {}
        self.is_terminal = os.isatty(source)
        self.signal: int | None = None
        """The signal that ended the guest, if one did."""

    def connect(self, line: Line, end: Callable[[], object]) -> None:
        """Send input to this guest from now on; ``end`` ends the guest."""
        self._line, self._end = line, end
        if self._escaped or self.signal is not None:
            end()

    def __enter__(self) -> Terminal:
        self._stop, self._stopped = os.pipe()
        if sys.platform != "win32" and self.is_terminal:
            self._mode = termios.tcgetattr(self._source)
        for name in _ENDING:
            self._handle(name, self._request_end)
        if self._mode is not None:
            self._handle("SIGTSTP", self._suspend)
            self._handle("SIGCONT", self._resume)
        self._make_raw()
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
        self._restore_mode()
        self._mode = None
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._stopped)
        # On Windows nothing can interrupt the thread's read; it ends with the process.
        if sys.platform != "win32":
            self._reader.join()
            os.close(self._stop)

    def _handle(self, name: str, handler: Callable[[int, FrameType | None], object]) -> None:
        """Handle a signal, unless the command was started with it ignored (nohup, ``&``)."""
        number = getattr(signal, name, None)
        if current_thread() is not main_thread():  # only that thread can install handlers
            return
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            self._handlers[number] = signal.signal(number, handler)

    def _request_end(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:  # the second signal: ending the guest takes too long
            self._restore_mode()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.signal = number
        if self._end is not None:
            self._end()

    def _suspend(self, number: int, frame: FrameType | None) -> None:
        self._restore_mode()
        if sys.platform != "win32":
            os.kill(os.getpid(), signal.SIGSTOP)

    def _resume(self, number: int, frame: FrameType | None) -> None:
        self._make_raw()

    def _make_raw(self) -> None:
        if sys.platform != "win32" and self._mode is not None and self._in_foreground():
            tty.setraw(self._source)

    def _restore_mode(self) -> None:
        if sys.platform != "win32" and self._mode is not None and self._in_foreground():
            # Not TCSADRAIN: the user may have stopped the output (Control-S).
            termios.tcsetattr(self._source, termios.TCSANOW, self._mode)

    def _in_foreground(self) -> bool:
        """Whether the command is in the foreground: else the terminal's mode is not ours to set."""
        if sys.platform == "win32":
            return False
        try:
            return os.tcgetpgrp(self._source) == os.getpgrp()
        except OSError:  # not a controlling terminal
            return True

    def _read(self) -> None:
        while self._may_read():
            try:
                data = os.read(self._source, 4096)
            except OSError:  # the terminal is gone
                data = b""
            before, escape, _ = data.partition(ESCAPE) if self.is_terminal else (data, b"", b"")
            if before and self._line is not None:
                self._line.receive(before)
            if escape:
                self._escaped = True
                if self._end is not None:
                    self._end()
            if escape or not data:
                return

    def _may_read(self) -> bool:
        """Wait until there is input and room for it; False once the terminal is being closed."""
        while True:
            full = self._line is None or self._line.waiting >= _ENOUGH
            if sys.platform == "win32":  # select() takes sockets only there
                if not full:
                    return True
                sleep(_SOON)
                continue
            sources = [self._stop] if full else [self._source, self._stop]
            ready, _, _ = select.select(sources, [], [], _SOON if full else None)
            if ready:
                return self._stop not in ready
