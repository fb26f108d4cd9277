"""Reports the end of a guest: why it ended, where its vCPUs are, and the last exits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from vmm_arch.activity import Activity
from vmm_arch.command.cpu import Cpu
from vmm_arch.ending import Ending, Reason
from vmm_arch.exits import AnyExit, SingleStep
from vmm_arch.memory import GuestMemory
from vmm_arch.serve import Vcpu

KEPT: Final = 8
"""How many of the last exits and instructions are kept and shown."""


class History:
    """The last exits and, when single-stepping, the registers before the last instructions."""

    def __init__(
        self, cpu: Cpu, vcpus: Sequence[Vcpu[AnyExit]], show: Callable[[str], object] | None
    ) -> None:
        self.cpu = cpu
        self._vcpus = vcpus
        self._show = show
        self.count = 0
        """How many exits there were."""
        self.exits: deque[str] = deque(maxlen=KEPT)
        self.steps: deque[Any] = deque(maxlen=KEPT)
        """The registers before each instruction."""

    def note(self, index: int, exit: AnyExit) -> None:
        """Record an exit, and show it if tracing."""
        self.count += 1
        if isinstance(exit, SingleStep):
            self.steps.append(self.cpu.registers(self._vcpus[index]))
        else:
            self.exits.append(f"vCPU {index}: {exit!r}")
        if self._show is not None:
            self._show(f"vCPU {index}: {exit!r}")


def report(
    ending: Ending, vcpus: Sequence[Vcpu[AnyExit]], memory: GuestMemory, history: History
) -> Iterator[str]:
    """Describe a guest that ended badly: its vCPUs, and what happened before."""
    cpu = history.cpu
    about = [vcpus[ending.vcpu]] if ending.vcpu is not None else started(vcpus)
    for vcpu in about:
        yield cpu.dump(vcpu, memory)
    if history.exits:
        yield "the last exits:"
        yield from (f"  {exit}" for exit in history.exits)
    if history.steps:
        yield "the last instructions were at:"
        yield "  " + " ".join(f"{cpu.next_instruction(step):#x}" for step in history.steps)
    if ending.reason is Reason.SHUTDOWN and any(cpu.was_reset(vcpu) for vcpu in about):
        if history.steps:
            yield "before the last instruction:"
            yield from cpu.describe(history.steps[-1], memory)
        else:
            yield "use --single-step to find the place, if the hypervisor can single-step"


def started(vcpus: Sequence[Vcpu[AnyExit]]) -> list[Vcpu[AnyExit]]:
    """The vCPUs that have been started."""
    return [vcpu for vcpu in vcpus if vcpu.get_activity() is not Activity.NOT_STARTED]


def statistics(ending: Ending) -> str:
    """One line: why the guest ended, and how many exits of each kind it made."""
    kinds = ", ".join(
        f"{count} {kind}" for kind, count in sorted(ending.exits.items(), key=lambda item: -item[1])
    )
    return f"vmm-arch: {ending}" + (f" ({kinds})" if kinds else "")
