"""The harness for guests of x86_64: ports, and CPUID."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from vmm_arch.protocols.x86_64 import Backend, Fpu, Lapic, Regs, Sregs, Vcpu, Vm
from vmm_arch.selftest import harness
from vmm_arch.selftest.harness import answered
from vmm_arch.x86_64.cpuid import CpuidEntry
from vmm_arch.x86_64.entry import Entry
from vmm_arch.x86_64.exits import IoIn, IoOut

AnyVcpu: TypeAlias = Vcpu[Regs, Sregs, Fpu, Lapic]
AnyVm: TypeAlias = Vm[AnyVcpu]
AnyBackend: TypeAlias = Backend[Any]


@dataclass(repr=False)
class Guest(harness.Guest):
    """A guest on one of its vCPUs."""

    arch: AnyBackend
    machine: Machine
    vm: AnyVm
    vcpu: AnyVcpu

    def sends(self, port: int, size: int) -> int:
        """The guest writes one value to a port: return it."""
        match exit := self.run():
            case IoOut(port=at, size=width, count=1) if (at, width) == (port, size):
                return exit.value
        raise self.failure(f"OUT of {size} to port {port:#x}", exit)

    def expects_out(self, port: int, size: int, value: int) -> None:
        """The guest writes this value to a port."""
        match exit := self.run():
            case IoOut(port=at, size=width, count=1) if (at, width) == (port, size):
                if exit.value == value:
                    return
        raise self.failure(f"OUT of {size} to port {port:#x} with {value:#x}", exit)

    def expects_outs(self, port: int, size: int, data: bytes) -> None:
        """The guest writes a string of values to a port: in one exit or in several."""
        sent = 0
        while sent < len(data):
            expected = f"OUTS of {size} to port {port:#x} with {data[sent:]!r} or its beginning"
            match exit := self.run():
                case IoOut(port=at, size=width) if (at, width) == (port, size):
                    end = sent + exit.size * exit.count
                    if exit.data != data[sent:end]:
                        raise self.failure(expected, exit)
                    sent = end
                case _:
                    raise self.failure(expected, exit)

    def asks_port(self, port: int, size: int) -> IoIn:
        """The guest reads one value from a port: return the exit, which waits for the answer."""
        match exit := self.run():
            case IoIn(port=at, size=width, count=1) if (at, width) == (port, size):
                return exit
        raise self.failure(f"IN of {size} from port {port:#x}", exit)

    def expects_in(self, port: int, size: int, *, answer: int | None) -> None:
        """The guest reads one value from a port; ``answer=None`` means ignore()."""
        answered(self.asks_port(port, size), answer)

    def expects_ins(self, port: int, size: int, *, answer: bytes) -> None:
        """The guest reads a string of values from a port: in one exit or in several."""
        given = 0
        while given < len(answer):
            expected = f"INS of {size} from port {port:#x}, {len(answer) - given} bytes at most"
            match exit := self.run():
                case IoIn(port=at, size=width) if (at, width) == (port, size):
                    end = given + exit.size * exit.count
                    if end > len(answer):
                        raise self.failure(expected, exit)
                    exit.complete(answer[given:end])
                    given = end
                case _:
                    raise self.failure(expected, exit)

    def where(self) -> tuple[str, int]:
        """RIP, and RIP with the code segment's base; paging is not considered."""
        rip = self.vcpu.get_regs().rip
        return f"RIP is now {rip:#x}", rip + self.vcpu.get_sregs().cs.base


@dataclass(frozen=True)
class Machine(harness.Machine):
    """The machine that a scenario needs. The guest's code is loaded at its entry."""

    entry: Entry
    cpuid: Callable[[list[CpuidEntry]], list[CpuidEntry]] | None = None
    """Makes the guest's CPUID from what the hypervisor supports."""

    @property
    def origin(self) -> int:
        """The address that the guest's code is linked to: the offset in its code segment."""
        return self.entry.rip

    @property
    def GUEST(self) -> type[Guest]:
        return Guest

    def arguments(self, arch: Any) -> dict[str, Any]:
        """The same as for every CPU, and ``cpuid``."""
        cpuid = self.cpuid(arch.supported_cpuid()) if self.cpuid else None
        return super().arguments(arch) | {"cpuid": cpuid}
