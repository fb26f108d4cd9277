"""What a vCPU may be asked for in which state: the same on every hypervisor."""

from __future__ import annotations

from vmm_arch.errors import BusyError, ClosedError, UnansweredReadError, VcpuError

IDLE = 0
"""Everything may be asked for."""
SETTLING = 1
"""The last exit was an access, and its instruction has yet to finish."""
QUEUED = 2
"""The instruction goes on with another access, which the next run() returns."""
RUNNING = 3
UNANSWERED = 4
"""The guest waits for the answer to a read."""
CLOSED = 5


def refusal(state: int, index: int) -> VcpuError:
    """Say why a vCPU in this state does not do what was asked."""
    who = f"vCPU {index}"
    match state:
        case 2:
            return UnansweredReadError(
                f"{who}: its instruction goes on with another access: call run() to get it"
            )
        case 3:
            return BusyError(f"{who}: another thread runs it: kick() it and wait for its run()")
        case 4:
            return UnansweredReadError(
                f"{who}: the guest waits for the answer to a read: call complete() or ignore() of"
                " the exit that run() returned"
            )
    return ClosedError(f"{who}: its machine is closed")
