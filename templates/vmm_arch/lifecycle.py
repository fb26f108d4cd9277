"""The lifecycle of a vCPU: which operations each state allows; the same on every hypervisor."""

from __future__ import annotations

import os
from threading import get_native_id, local

from vmm_arch.errors import (
    BusyError,
    ClosedError,
    UnansweredError,
    UnfinishedResetError,
    VcpuError,
)

IDLE = 0
"""Every operation is allowed."""
COMPLETION_PENDING = 1
"""The last exit was an access whose instruction has not finished."""
EXIT_PENDING = 2
"""Another exit is pending, such as the next access of the same instruction; run() returns it."""
RUNNING = 3
UNANSWERED = 4
"""The guest waits for an answer to a read or another exit that needs one."""
CLOSED = 5
UNFINISHED = 6
"""A reset of its machine ended in the middle, so that its state is neither the old nor the new."""


_WHY = {
    EXIT_PENDING: "another exit is pending: call run() to get it",
    RUNNING: "another thread runs it: kick() it and wait for its run() to return",
    UNANSWERED: "the guest waits for an answer: call complete(), refuse() or ignore() on the exit"
    " that run() returned, or discard_exit()",
    CLOSED: "its machine is closed",
    UNFINISHED: "reset_to() was not finished: call it again, or close the machine",
}


def refusal(state: int, index: int) -> VcpuError:
    """The error for an operation that a vCPU in this state does not allow."""
    errors = {RUNNING: BusyError, CLOSED: ClosedError, UNFINISHED: UnfinishedResetError}
    return errors.get(state, UnansweredError)(f"vCPU {index}: {_WHY[state]}")


def nothing_waits(index: int) -> VcpuError:
    """The error for discarding an exit where none waits for an answer."""
    return UnansweredError(f"vCPU {index}: no exit waits for an answer")


def not_waiting(index: int) -> VcpuError:
    """The error for an answer to an exit that is not waiting for one."""
    return UnansweredError(
        f"vCPU {index}: this exit does not wait for an answer: it was answered already, or is"
        " not the last one"
    )


class _ThisThread(local):
    """The thread's own native id, cached: get_native_id() is a system call."""

    def __init__(self) -> None:
        self.id = get_native_id()


THIS_THREAD = _ThisThread()


def _is_another_process() -> None:
    THIS_THREAD.id = get_native_id()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_is_another_process)
