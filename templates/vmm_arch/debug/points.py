"""The breakpoints and watchpoints of a debugger's, and how vCPUs come to stop at them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from vmm_arch.breakpoint import HardwareBreakpoint, On
from vmm_arch.debug.cpu import Abilities, Cpu, SoftwareBreakpoints
from vmm_arch.errors import HypervisorUnavailableError
from vmm_arch.exits import Breakpoint


class Kind(IntEnum):
    """What a client asks for, by the protocol's numbers (Z0 to Z4)."""

    SOFTWARE = 0
    HARDWARE = 1
    WRITE = 2
    READ = 3
    ACCESS = 4


_ON: Final = {Kind.WRITE: On.WRITE, Kind.READ: On.ACCESS, Kind.ACCESS: On.ACCESS}
"""Processors have none for reads alone."""


@dataclass(frozen=True, slots=True)
class Point:
    """A breakpoint or watchpoint, at a guest-virtual address."""

    kind: Kind
    address: int
    size: int


@dataclass(slots=True)
class _Plan:
    hardware: list[HardwareBreakpoint] = field(default_factory=list)
    software: set[int] = field(default_factory=set)


class Points:
    """All points that there are, and where each is: in the processor, or in memory.

    The processor's own come first, for breakpoints of either kind: they leave memory as it is, and
    work before there is code at their address. Those that find no room become breakpoint
    instructions, which are in memory only while the guest runs.
    """

    def __init__(self, vm: Any, cpu: Cpu, abilities: Abilities) -> None:
        self._vm = vm
        self._cpu = cpu
        self._most = cpu.HARDWARE_BREAKPOINTS
        self._abilities = abilities
        self._points: dict[Point, int | None] = {}
        """With the guest-physical address, if there was one when it was inserted."""
        self._in_processor: list[HardwareBreakpoint] = []
        self._in_memory: SoftwareBreakpoints | None = None
        self._placed: set[int] = set()
        try:
            vm.vcpus[0].set_breakpoints([])
        except HypervisorUnavailableError:
            self._most = 0

    def insert(self, point: Point, physical: int | None) -> None:
        """Insert one that is not there yet. Raises ValueError if there is no room for it."""
        points = self._points | {point: physical}
        self._plan(points)
        self._points = points

    def remove(self, point: Point) -> None:
        """Remove one, if it is there."""
        self._points.pop(point, None)

    def apply(self) -> None:
        """Before the guest runs: have vCPUs stop at all of them."""
        plan = self._plan(self._points)
        if plan.hardware != self._in_processor:
            for vcpu in self._vm.vcpus:
                vcpu.set_breakpoints(plan.hardware)
            self._in_processor = plan.hardware
        if plan.software:
            if self._in_memory is None:
                self._in_memory = self._cpu.software_breakpoints(self._vm)
            self._in_memory.add(*plan.software)
            self._placed = plan.software

    def withdraw(self) -> None:
        """When the guest has stopped: leave its memory as it is without them."""
        if self._in_memory is not None:
            self._in_memory.remove(*self._placed)

    def clear(self) -> None:
        """Remove all of them."""
        self._points.clear()
        if self._in_processor:
            for vcpu in self._vm.vcpus:
                vcpu.set_breakpoints([])
            self._in_processor = []
        if self._in_memory is not None:
            self._in_memory.close()
            self._in_memory = None

    def is_guests_own(self, vcpu: Any, exit: Breakpoint) -> bool:
        """Whether the guest executed a breakpoint instruction that none of these is."""
        if exit.hardware is not None:
            return False
        return self._in_memory is None or vcpu.translate(exit.pc) not in self._in_memory

    def watching(self, reached: HardwareBreakpoint) -> Point | None:
        """The watchpoint that a hardware breakpoint is part of."""
        for point in self._points:
            if point.kind in _ON and point.address <= reached.address < point.address + point.size:
                return point
        return None

    def _plan(self, points: dict[Point, int | None]) -> _Plan:
        plan = _Plan()
        for point in points:
            if point.kind in _ON:
                if not self._abilities.watchpoints:
                    raise ValueError(
                        "this hypervisor does not report accesses to data; gdb can single-step"
                        " instead: set can-use-hw-watchpoints 0"
                    )
                plan.hardware += self._cpu.watched(point.address, point.size, _ON[point.kind])
            elif point.kind is Kind.HARDWARE:
                plan.hardware.append(HardwareBreakpoint(point.address))
        if len(plan.hardware) > self._most:
            raise ValueError(f"the processor has {self._most} breakpoints and watchpoints")
        for point, physical in points.items():
            if point.kind is not Kind.SOFTWARE:
                continue
            if len(plan.hardware) < self._most:
                plan.hardware.append(HardwareBreakpoint(point.address))
            elif not self._abilities.software_breakpoints:
                raise ValueError(
                    f"the processor has {self._most} breakpoints and watchpoints, and this"
                    " hypervisor reports no breakpoint instructions"
                )
            elif physical is None:
                raise ValueError(f"{point.address:#x} is not mapped, or has no memory")
            else:
                plan.software.add(physical)
        return plan
