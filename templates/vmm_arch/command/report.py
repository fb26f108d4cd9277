"""What is said of a guest's end: how it was, where its vCPUs are, and what happened last."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from vmm_arch.activity import Activity
from vmm_arch.ending import Ending, Reason
from vmm_arch.exits import Exit, SingleStep
from vmm_arch.memory import GuestMemory
from vmm_arch.protocols.x86_64 import AnyVcpu
from vmm_arch.x86_64.dump import describe, dump, is_after_init

KEPT: Final = 8
"""How many of the last exits and instructions are shown."""


class History:
    """What happened last: exits, and the registers before the last instructions if they are known."""

    def __init__(self, vcpus: Sequence[AnyVcpu], show: Callable[[str], object] | None) -> None:
        self._vcpus = vcpus
        self._show = show
        self.exits: deque[str] = deque(maxlen=KEPT)
        self.steps: deque[tuple[Any, Any]] = deque(maxlen=KEPT)
        """General registers and Sregs, each time before an instruction."""

    def note(self, index: int, exit: Exit) -> None:
        """Remember an exit, and show it if that was asked for."""
        if isinstance(exit, SingleStep):
            vcpu = self._vcpus[index]
            self.steps.append((vcpu.get_regs(), vcpu.get_sregs()))
        else:
            self.exits.append(f"vCPU {index}: {exit!r}")
        if self._show is not None:
            self._show(f"vCPU {index}: {exit!r}")


def report(
    ending: Ending, vcpus: Sequence[AnyVcpu], memory: GuestMemory, history: History
) -> Iterator[str]:
    """Say where a guest was that ended badly: its vCPUs, and what happened before."""
    about = [vcpus[ending.vcpu]] if ending.vcpu is not None else started(vcpus)
    for vcpu in about:
        yield dump(vcpu, memory)
    if history.exits:
        yield "the last exits:"
        yield from (f"  {exit}" for exit in history.exits)
    if history.steps:
        yield "the last instructions were at:"
        yield "  " + " ".join(f"{regs.rip:#x}" for regs, _ in history.steps)
    if ending.reason is Reason.SHUTDOWN and any(is_after_init(vcpu) for vcpu in about):
        if history.steps:
            yield "before the last one:"
            yield from describe(*history.steps[-1], memory)
        else:
            yield "--single-step shows where it was, where the hypervisor can step"


def started(vcpus: Sequence[AnyVcpu]) -> list[AnyVcpu]:
    """The vCPUs that do not wait for another one to start them."""
    return [vcpu for vcpu in vcpus if vcpu.get_activity() is not Activity.NOT_STARTED]


def statistics(ending: Ending) -> str:
    """Say how the guest ended and what it asked for."""
    kinds = ", ".join(
        f"{count} {kind}" for kind, count in sorted(ending.exits.items(), key=lambda item: -item[1])
    )
    return f"vmm-arch: {ending}" + (f" ({kinds})" if kinds else "")
