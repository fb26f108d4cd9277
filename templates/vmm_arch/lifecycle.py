"""What a vCPU may be asked for in which state, and by whom: the same on every hypervisor."""

from __future__ import annotations

import os
from threading import get_native_id, local

from vmm_arch.errors import BusyError, ClosedError, UnansweredError, VcpuError

IDLE = 0
"""Everything may be asked for."""
COMPLETION_PENDING = 1
"""The last exit was an access, and its instruction has yet to finish."""
EXIT_PENDING = 2
"""The instruction goes on with another access, which the next run() returns."""
RUNNING = 3
UNANSWERED = 4
"""The guest waits for an answer: to a read, or to what only the caller can do for it."""
CLOSED = 5


_WHY = {
    EXIT_PENDING: "its instruction goes on with another access: call run() to get it",
    RUNNING: "another thread runs it: kick() it and wait for its run() to return",
    UNANSWERED: "the guest waits for an answer: call complete(), refuse() or ignore() of the exit"
    " that run() returned",
    CLOSED: "its machine is closed",
}


def refusal(state: int, index: int) -> VcpuError:
    """Say why a vCPU in this state does not do what was asked."""
    errors = {RUNNING: BusyError, CLOSED: ClosedError}
    return errors.get(state, UnansweredError)(f"vCPU {index}: {_WHY[state]}")


def nothing_unanswered(index: int) -> VcpuError:
    """Say that an answer was given to nothing."""
    return UnansweredError(
        f"vCPU {index}: this exit waits for no answer: it was given, or the exit is an old one"
    )


class _ThisThread(local):
    """What a thread knows of itself: asking each time would cost a system call."""

    def __init__(self) -> None:
        self.id = get_native_id()


THIS_THREAD = _ThisThread()


def _is_another_process() -> None:
    THIS_THREAD.id = get_native_id()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_is_another_process)
