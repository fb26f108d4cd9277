"""What every backend's vCPU and machine have inside: the contract between what is written once and
what each hypervisor's folder writes.

The generator compares a hypervisor's macros ``vcpu_parts`` and ``vm_parts`` with these classes.
Nobody imports them to use a vCPU: that is :mod:`vmm_arch.protocols` with its other modules.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol


class VcpuInside(Protocol):
    """A vCPU, for the methods and arch functions that are the same on every hypervisor."""

    vm: Any
    """The machine that it belongs to."""
    index: int
    """Its number in the machine."""
    is_secondary: bool
    """Whether it waits until another vCPU starts it."""
    _state: int
    """What it may be asked for now: one of :mod:`vmm_arch.lifecycle`'s. ``run`` sets it."""
    _fresh: bool
    """Whether it was neither configured nor run: true once it is made, false from then on."""
    _closing: bool
    """Whether no thread may run it any more: false once it is made."""
    _owner: int
    """The native id of the thread that runs it, while one does."""
    _unanswered: Any
    """The exit that waits for an answer while the state is UNANSWERED; it has ``ignore()``."""

    def _complete_pending(self) -> None:
        """Let the guest's last instruction finish, so that the state is IDLE; else raise why not.

        Called before state is read or written, in every state but IDLE. If the instruction goes on
        with another access, the state is EXIT_PENDING and UnansweredError is raised.
        """

    def _drop_pending_exit(self) -> None:
        """Let nobody be told of the exit that is EXIT_PENDING, so that another state follows."""

    def _close(self) -> None:
        """Give back what the vCPU has of the hypervisor's; the state is CLOSED from then on.

        Whoever makes vCPUs has ``Vm.close`` call it, after it has seen to it that none runs.
        """


class VmRequest(Protocol):
    """What the caller asked for when the machine was made; the macro ``create_vm`` reads it.

    It is set by what is written once: a hypervisor's class only lists it among its ``__slots__``,
    if it has any. What machines of one CPU are asked for besides is a class of this name in that CPU's
    contract.
    """

    memory: Any
    """The CPU's own kind of :class:`vmm_arch.memory.GuestMemory`."""
    irqchip: bool
    track_dirty: bool
    _vcpu_count: int
    """How many vCPUs are asked for: not yet checked."""
    _device: int | None
    """The descriptor that the caller gave, while the machine is made."""
    _prepare: Callable[[Any], object] | None
    """What the caller wants called, while the machine is made: ``_call_prepare()`` does."""


class VmInside(VmRequest, Protocol):
    """A machine, for the methods that are the same on every hypervisor.

    The macro ``create_vm`` makes the machine and appends its vCPUs to ``vcpus``. What undoes each
    step it leaves to ``opened``, and it calls ``_call_prepare()`` once the hypervisor has made a
    machine and before anything is in it.
    """

    vcpus: list[Any]
    """In order."""
    _opened: ExitStack | None
    """What ``close`` undoes, the last first; None once it has."""
