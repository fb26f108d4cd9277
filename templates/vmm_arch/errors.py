"""What can go wrong, by name: a hypervisor that refuses, and uses that cannot be.

Every message says the operation, what was wrong and what usually causes it or what to do.
"""

from __future__ import annotations

import errno


class HypervisorError(OSError):
    """The hypervisor refused an operation.

    ``operation`` is the call by its own name (``KVM_SET_SREGS``), ``code`` the name of its answer
    (``EINVAL``), ``cause`` what usually leads to that. ``errno`` is set where the system has one.
    """

    def __init__(self, operation: str, code: str, cause: str, number: int | None = None) -> None:
        super().__init__(number, f"{operation}: {code}: {cause}")
        self.operation = operation
        self.code = code
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.operation}: {self.code}: {self.cause}"

    def __reduce__(self) -> tuple[type[HypervisorError], tuple[str, str, str, int | None]]:
        return type(self), (self.operation, self.code, self.cause, self.errno)


class HypervisorUnavailableError(HypervisorError):
    """This host lacks the hypervisor, the permission to use it, or something that it must offer."""


class ForkedError(HypervisorError):
    """A forked child used its parent's machine, which a hypervisor allows to nobody."""


class VcpuError(RuntimeError):
    """What was asked of a vCPU cannot be done in its present state."""


class ClosedError(VcpuError):
    """The virtual machine is closed."""


class BusyError(VcpuError):
    """Another thread runs the vCPU: kick it, wait until its run() has returned, then go on."""


class UnansweredError(VcpuError):
    """The guest waits for an answer: call the exit's complete(), refuse() or ignore() first."""


UnansweredReadError = UnansweredError
"""Its name from when only reads waited for answers."""


class NotFreshError(VcpuError):
    """The vCPU was configured or has run before: reset_vcpu() is for those."""


def unsupported(operation: str, reason: str) -> HypervisorUnavailableError:
    """Say that this hypervisor does not have an operation, and why."""
    return HypervisorUnavailableError(operation, "ENOTSUP", reason, errno.ENOTSUP)
