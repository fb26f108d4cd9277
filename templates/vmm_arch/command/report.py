"""Reports the end of a guest: why it ended, where its vCPUs are, and the last exits."""

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
"""How many of the last exits and instructions are kept and shown."""


class History:
    """The last exits and, when single-stepping, the registers before the last instructions."""

    def __init__(self, vcpus: Sequence[AnyVcpu], show: Callable[[str], object] | None) -> None:
        self._vcpus = vcpus
        self._show = show
        self.exits: deque[str] = deque(maxlen=KEPT)
        self.steps: deque[tuple[Any, Any]] = deque(maxlen=KEPT)
        """General registers and Sregs before each instruction."""

    def note(self, index: int, exit: Exit) -> None:
        """Record an exit, and show it if tracing."""
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
    """Describe a guest that ended badly: its vCPUs, and what happened before."""
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
            yield "before the last instruction:"
            yield from describe(*history.steps[-1], memory)
        else:
            yield "use --single-step to find the place, if the hypervisor can single-step"


def started(vcpus: Sequence[AnyVcpu]) -> list[AnyVcpu]:
    """The vCPUs that have been started."""
    return [vcpu for vcpu in vcpus if vcpu.get_activity() is not Activity.NOT_STARTED]


def statistics(ending: Ending) -> str:
    """One line: why the guest ended, and how many exits of each kind it made."""
    kinds = ", ".join(
        f"{count} {kind}" for kind, count in sorted(ending.exits.items(), key=lambda item: -item[1])
    )
    return f"vmm-arch: {ending}" + (f" ({kinds})" if kinds else "")
