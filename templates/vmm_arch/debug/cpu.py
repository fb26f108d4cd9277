"""What debugging needs of a CPU: a module that serves one, such as ``vmm_arch.x86_64.gdb``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from vmm_arch.breakpoint import HardwareBreakpoint, On
from vmm_arch.memory import GuestMemory


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a hypervisor does for a debugger, apart from what it declares to lack.

    One that emulates the processor may do less than one on hardware.
    """

    software_breakpoints: bool = True
    """Whether breakpoint instructions are reported."""
    watchpoints: bool = True
    """Whether accesses to data are."""


EVERYTHING: Final = Abilities()


class AddressSpace(Protocol):
    """Guest-virtual memory as a vCPU sees it."""

    def translate(self, address: int) -> int | None: ...
    def walk(self, address: int) -> Any: ...
    def read_mapped(self, address: int, size: int) -> bytes: ...
    def write(self, address: int, data: bytes, /) -> None: ...


class Architecture(Protocol):
    """The registers as one of gdb's architectures has them, by their numbers there."""

    @property
    def name(self) -> str:
        """What the user chooses it by."""

    @property
    def description(self) -> str:
        """The target description, an XML document (GDB manual, G)."""

    @property
    def sizes(self) -> Sequence[int]:
        """The size of each register in bytes."""

    def read(self, vcpu: Any, /) -> list[bytes]:
        """Read all registers."""

    def write(self, vcpu: Any, values: Mapping[int, bytes], /) -> None:
        """Write some registers. Raises ValueError about those that cannot be written so."""


class SoftwareBreakpoints(Protocol):
    """Breakpoints in memory, by guest-physical addresses."""

    def __contains__(self, address: object) -> bool: ...
    def add(self, *addresses: int) -> None: ...
    def remove(self, *addresses: int) -> None: ...
    def close(self) -> None: ...


class Cpu(Protocol):
    """The part of debugging that depends on the CPU."""

    @property
    def HARDWARE_BREAKPOINTS(self) -> int:
        """How many a vCPU has, if the hypervisor gives access to them."""

    def architecture(self, name: str | None, vcpu: Any, /) -> Architecture:
        """The architecture of that name, or the one for a vCPU's mode. Raises ValueError."""

    def address_space(self, vcpu: Any, /) -> AddressSpace: ...

    def software_breakpoints(self, vm: Any, /) -> SoftwareBreakpoints: ...

    def watched(self, address: int, size: int, on: On, /) -> list[HardwareBreakpoint]:
        """The hardware breakpoints that watch an interval together."""

    def go_to(self, vcpu: Any, address: int, /) -> None:
        """Set the program counter."""

    def dump(self, vcpu: Any, memory: GuestMemory, /) -> str:
        """Describe a vCPU."""
