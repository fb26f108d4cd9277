"""The exceptions: a hypervisor that refuses a call, and misuse of a vCPU or machine.

Every message names the operation, what is wrong, and the usual cause or remedy.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence


class HypervisorError(OSError):
    """The hypervisor refused an operation.

    ``operation`` is the name of the call (``KVM_SET_SREGS``), ``code`` the name of its result
    (``EINVAL``), ``cause`` the usual cause. ``errno`` is set where the system has one.
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
    """A forked child used its parent's machine, which no hypervisor allows."""


class VcpuError(RuntimeError):
    """The vCPU's present state does not allow the operation."""


class ClosedError(VcpuError):
    """The virtual machine is closed."""


class BusyError(VcpuError):
    """Another thread runs the vCPU: kick() it and wait until its run() has returned."""


class UnansweredError(VcpuError):
    """The guest waits for an answer: call complete(), refuse() or ignore() on the exit, or discard_exit()."""


class UnfinishedResetError(VcpuError):
    """A reset_to() of the machine ended in the middle: call it again, or close the machine."""


UnansweredReadError = UnansweredError
"""The former name, from when only reads waited for answers."""


class StateError(ValueError):
    """A state is malformed or cannot be restored; ``problems`` lists everything that is wrong."""

    def __init__(self, operation: str, problems: Sequence[str]) -> None:
        super().__init__(f"{operation}: " + "\n".join(problems))
        self.operation = operation
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[StateError], tuple[str, tuple[str, ...]]]:
        return type(self), (self.operation, self.problems)


class SnapshotError(ValueError):
    """A file is no snapshot, or a snapshot cannot be written; ``problems`` lists everything wrong."""

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        super().__init__("\n".join(f"{where}: {problem}" for problem in problems))
        self.where = where
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[SnapshotError], tuple[str, tuple[str, ...]]]:
        return type(self), (self.where, self.problems)


class NotFreshError(VcpuError):
    """The vCPU was already configured or has run: use reset_vcpu()."""


def unsupported(operation: str, reason: str) -> HypervisorUnavailableError:
    """The error for an operation that this hypervisor does not support."""
    return HypervisorUnavailableError(operation, "ENOTSUP", reason, errno.ENOTSUP)


def without_irqchip(operation: str) -> HypervisorError:
    """The error for an operation on interrupt controllers that the machine does not have."""
    return HypervisorError(
        operation, "ENXIO", "the machine was created without an irqchip", errno.ENXIO
    )
