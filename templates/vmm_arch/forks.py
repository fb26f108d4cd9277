"""Forked children: of their parent's threads only the one that forked is there."""

from __future__ import annotations

import os
from threading import RLock, get_ident
from types import TracebackType
from weakref import WeakSet

_forks = 0


def forks() -> int:
    """How many forks lie between this process and the one that imported this; 0 in that one."""
    return _forks


class ForkLock:
    """A reentrant lock that is free in a forked child, unless the thread that forked holds it.

    An ordinary one that another thread holds would never be released there.
    """

    def __init__(self) -> None:
        self._renew()
        _LOCKS.add(self)

    def _renew(self) -> None:
        self._lock = RLock()
        self._holder = 0
        """The thread that holds it, or 0; another thread may have taken it a moment ago."""
        self._taken = 0
        """How often that thread has taken it."""

    def acquire(self, blocking: bool = True) -> bool:
        """Take the lock; without ``blocking`` return False if another thread has it."""
        taken = self._lock.acquire(blocking)
        if taken:
            self._holder = get_ident()
            self._taken += 1
        return taken

    def release(self) -> None:
        """Give it back as often as it was taken."""
        self._taken -= 1
        if not self._taken:
            self._holder = 0
        self._lock.release()

    def __enter__(self) -> None:
        """Take the lock."""
        self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Give it back."""
        self.release()


_LOCKS: WeakSet[ForkLock] = WeakSet()


def _is_a_child() -> None:
    global _forks
    _forks += 1
    for lock in _LOCKS:
        if lock._holder != get_ident():
            lock._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_is_a_child)
