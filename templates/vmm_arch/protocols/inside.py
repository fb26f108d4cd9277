"""The private members of every backend's vCPU and machine: the contract between the neutral code
and each hypervisor's folder.

The generator compares a hypervisor's macros ``vcpu_members`` and ``vm_members`` with these classes.
They are not for users of a vCPU, who import the other modules of :mod:`vmm_arch.protocols`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol

from vmm_arch.added_memory import MappedRegion
from vmm_arch.dirty import WrittenMemory


class VcpuFrame(Protocol):
    """The attributes of every vCPU, which its ``__init__`` sets by calling ``_begin()``."""

    vm: Any
    """The machine that it belongs to."""
    index: int
    """Its index in the machine."""
    is_secondary: bool
    """Whether it waits until another vCPU starts it."""
    _state: int
    """Its lifecycle state, a constant of :mod:`vmm_arch.lifecycle`.

    The frame of ``run`` sets it to RUNNING; the macro leaves the state that the exit asks for.
    """
    _fresh: bool
    """Whether it was neither configured nor run: true after creation, then false for good."""
    _closing: bool
    """Whether no thread may run it any more: false after creation."""
    _owner: int
    """The native id of the thread that runs it; valid while the state is RUNNING."""


class VcpuInside(VcpuFrame, Protocol):
    """What a hypervisor's vCPU adds for the neutral methods and the arch functions."""

    _unanswered: Any
    """The exit that waits for an answer while the state is UNANSWERED; it has ``ignore()``."""

    def _complete_pending(self) -> None:
        """Complete the guest's last instruction, so that the state is IDLE, or raise the reason.

        Called before vCPU state is read or written, unless the state is IDLE. If the instruction
        makes another access, the state becomes EXIT_PENDING and UnansweredError is raised.
        """

    def _drop_pending_exit(self) -> None:
        """Discard the pending exit, so that the state is no longer EXIT_PENDING."""

    def _end_reset(self) -> None:
        """Let the vCPU be used again after its state was reset: the state is IDLE.

        Or COMPLETION_PENDING, if the hypervisor takes some of it when the vCPU is entered next.
        """

    def _close(self) -> None:
        """Release the vCPU's hypervisor resources; the state is CLOSED from then on.

        ``create_vm`` registers it with ``opened``, so that ``Vm.close`` calls it once no vCPU runs.
        """


class VmRequest(Protocol):
    """The constructor's arguments, which the macro ``create_vm`` reads.

    The frame sets them. A CPU's additional arguments are a class of this name in that CPU's contract.
    """

    memory: Any
    """The CPU's own kind of :class:`vmm_arch.memory.GuestMemory`."""
    irqchip: bool
    track_dirty: bool
    _vcpu_count: int
    """The number of vCPUs asked for: not yet checked."""
    _device: int | None
    """The caller's descriptor; None again after creation."""
    _prepare: Callable[[Any], object] | None
    """The caller's callback, for ``_call_prepare()``; None again after creation."""


class VmFrame(VmRequest, Protocol):
    """The attributes of every machine, which the frame sets.

    The macro ``create_vm`` creates the machine and appends its vCPUs to ``vcpus``. It registers the
    undoing of each step with ``opened``, and calls ``_call_prepare()`` once the hypervisor has
    created the machine and while that is still empty.
    """

    vcpus: list[Any]
    """By index."""
    _opened: ExitStack | None
    """The steps that ``close`` undoes, the last first; None once closed."""
    _reset_plan: Any
    """Of the last ``reset_to``, or None."""
    _written: WrittenMemory | None
    """What of its memory was written; None without ``track_dirty``."""


class VmInside(VmFrame, Protocol):
    """What a hypervisor's machine adds for the neutral methods."""

    def _take_dirty_pages(self) -> list[int]:
        """Return and clear the addresses of the pages that the guest has written.

        In any order, and perhaps some of them twice. Only with ``track_dirty``.
        """

    def _map_region(self, mapped: MappedRegion) -> None:
        """Map a region beside those that the machine was created with, and track its dirty pages.

        Those are known by ``mapped.source``.
        """

    def _unmap_region(self, mapped: MappedRegion) -> None:
        """Undo a _map_region(); in a forked child it does nothing."""
