"""A pool of machines that are alike: whoever is done with one gives it back, and it is reset.

A reset writes back what changed, which takes microseconds. A machine made anew takes many times as
long, and destroying one with interrupt controllers takes the kernel milliseconds.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Condition
from typing import Any, Self

from vmm_arch.errors import ClosedError, ForkedError
from vmm_arch.forks import forks
from vmm_arch.snapshot.snapshot import MachineSnapshot


@dataclass(frozen=True)
class PoolStatistics:
    """What a pool has done so far, and has now."""

    idle: int
    """Machines that wait for somebody."""
    in_use: int
    made: int
    """Machines forked from the snapshot, the replaced ones included."""
    acquired: int
    waits: int
    """How often somebody had to wait for a machine."""
    resets: int
    discarded: int
    """Machines that failed, or could not be reset, and were closed instead."""


class MachinePool:
    """Machines of one snapshot, at most `size` of them, for any number of threads. ::

        with arch.MachinePool(snapshot, size=8) as pool:
            with pool.machine(timeout=1) as vm:
                vm.vcpus[0].run()

    A machine that is given back is reset to the snapshot, so that nobody finds anything of whoever
    had it before: by :meth:`Vm.reset_to`, with the arguments ``reset``. It is closed instead if
    that fails, or if its user failed, and another one is made when somebody needs it. ``ready``
    machines are made at once, the others when they are needed. ``device`` and ``prepare`` are those of
    ``Vm``. Whoever kicks vCPUs of a machine stops that before it is given back, since a late kick would
    stop its next user's run. The snapshot stays the caller's, and open while machines are made. A pool belongs to one
    process: a forked child makes its own.

    Raises ValueError if the numbers do not fit, and what :meth:`MachineSnapshot.fork` raises.
    """

    def __init__(
        self,
        snapshot: MachineSnapshot,
        size: int,
        *,
        ready: int = 1,
        reset: Mapping[str, Any] | None = None,
        device: int | None = None,
        prepare: Callable[[Any], object] | None = None,
    ) -> None:
        if not 0 <= ready <= size or size < 1:
            raise ValueError(
                f"size={size}, ready={ready}: give a size of 1 or more, and ready of 0 to size"
            )
        self.snapshot = snapshot
        self.size = size
        self.last_failure: BaseException | None = None
        """Why a machine was discarded the last time: what its user raised, or its reset."""
        self._reset = dict(reset or {})
        self._make = partial(snapshot.fork, track_dirty=True, device=device, prepare=prepare)
        self._forks = forks()
        self._changed = Condition()
        self._idle: list[Any] = []
        self._in_use: dict[int, Any] = {}
        """By their ids: machines are compared with nothing else."""
        self._making = 0
        self._closed = False
        self._made = self._acquired = self._waits = self._resets = self._discarded = 0
        try:
            for _ in range(ready):
                self._idle.append(self._make())
                self._made += 1
        except BaseException:
            self.close()
            raise

    @contextmanager
    def machine(self, timeout: float | None = None) -> Iterator[Any]:
        """Have a machine for a while: :meth:`acquire`, then :meth:`release`.

        An error that leaves the block is the machine's end, since it may be the machine's fault.
        """
        vm = self.acquire(timeout)
        try:
            yield vm
        except BaseException as error:
            self._discard(vm, error)
            raise
        self.release(vm)

    def acquire(self, timeout: float | None = None) -> Any:
        """Return a machine at the moment of the snapshot; :meth:`release` it, or close the pool.

        Raises TimeoutError if all are in use for so many seconds, ClosedError once the pool is
        closed, and what :meth:`MachineSnapshot.fork` raises where a machine has to be made.
        """
        self._check_process()
        end = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            waited = False
            while not self._closed and not self._idle and self._all >= self.size:
                if not waited:
                    waited = True
                    self._waits += 1
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    problem = (
                        f"all {self.size} machines are in use; release some, or make it larger"
                    )
                    raise TimeoutError(errno.ETIMEDOUT, f"MachinePool.acquire: {problem}")
                self._changed.wait(left)
            self._check_open()
            self._acquired += 1
            if self._idle:
                vm = self._idle.pop()  # the last one: its memory is still in the caches
                self._in_use[id(vm)] = vm
                return vm
            self._making += 1
        vm = None
        try:
            vm = self._make()
        finally:
            with self._changed:
                self._making -= 1
                self._made += vm is not None
                if vm is not None and not self._closed:
                    self._in_use[id(vm)] = vm
                else:
                    self._changed.notify()
        if id(vm) not in self._in_use:
            vm.close()
            self._check_open()
        return vm

    def release(self, vm: Any) -> None:
        """Give a machine back: it is reset here, by this thread, or else closed.

        No thread may be running it. Raises ValueError if the pool did not give it.
        """
        if self._forks != forks():
            vm.close()
            return
        with self._changed:
            if self._closed:  # and the machine with it
                return
            if id(vm) not in self._in_use:
                raise ValueError("release: not a machine that this pool has given; or given back")
        try:
            vm.reset_to(self.snapshot, **self._reset)
        except Exception as error:
            self._discard(vm, error)
            return
        except BaseException as error:
            self._discard(vm, error)
            raise
        with self._changed:
            self._resets += 1
            if self._in_use.pop(id(vm), None) is not None:
                self._idle.append(vm)
            self._changed.notify()

    @property
    def statistics(self) -> PoolStatistics:
        """What it has done so far."""
        with self._changed:
            return PoolStatistics(
                len(self._idle),
                len(self._in_use),
                self._made,
                self._acquired,
                self._waits,
                self._resets,
                self._discarded,
            )

    def close(self) -> None:
        """Close all machines, those in use as well: a thread that runs one is stopped.

        Whoever waits for one gets a ClosedError. May be called again.
        """
        if self._forks != forks():  # another thread of the parent may have held the lock
            machines = [*self._idle, *self._in_use.values()]
            self._idle, self._in_use, self._closed = [], {}, True
        else:
            with self._changed:
                self._closed = True
                machines = [*self._idle, *self._in_use.values()]
                self._idle, self._in_use = [], {}
                self._changed.notify_all()
        for vm in machines:
            vm.close()

    def __enter__(self) -> Self:
        """Return the pool itself."""
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._in_use)} of {self.size} in use"
        return f"<pool of machines of {self.snapshot!r}: {state}>"

    @property
    def _all(self) -> int:
        return len(self._idle) + len(self._in_use) + self._making

    def _discard(self, vm: Any, error: BaseException) -> None:
        """Close a machine that is in use, and let another one be made."""
        try:
            vm.close()
        finally:
            if self._forks == forks():
                with self._changed:
                    self.last_failure = error
                    self._discarded += 1
                    self._in_use.pop(id(vm), None)
                    self._changed.notify()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the pool is closed")

    def _check_process(self) -> None:
        if self._forks != forks():
            cause = "this is a forked child, and the pool is its parent's: make another one here"
            raise ForkedError("MachinePool", "EIO", cause, errno.EIO)
