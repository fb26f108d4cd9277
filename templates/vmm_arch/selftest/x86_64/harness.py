"""The harness for guests of x86_64: ports, and CPUID."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from vmm_arch.protocols.x86_64 import Backend, Fpu, Lapic, Regs, Sregs, Vcpu, Vm
from vmm_arch.selftest import harness
from vmm_arch.selftest.harness import agree, answered
from vmm_arch.selftest.x86_64.instructions import missing_instructions
from vmm_arch.x86_64.cpuid import CpuidEntry
from vmm_arch.x86_64.entry import Entry
from vmm_arch.x86_64.exits import IoIn, IoOut
from vmm_arch.x86_64.features import cpuid_features

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

    def sends_anywhere(self, size: int) -> tuple[int, int]:
        """The guest writes one value to any port: return the port and the value."""
        match exit := self.run():
            case IoOut(port=at, size=width, count=1) if width == size:
                return at, exit.value
        raise self.failure(f"OUT of {size}", exit)

    def expects_out(self, port: int, size: int, value: int) -> None:
        """The guest writes this value to a port."""
        match exit := self.run():
            case IoOut(port=at, size=width, count=1) if (at, width) == (port, size):
                if exit.value == value:
                    return
        raise self.failure(f"OUT of {size} to port {port:#x} with {value:#x}", exit)

    def expects_values(self, port: int, *values: int) -> None:
        """The guest writes these 32-bit values to a port, one after the other."""
        for value in values:
            self.expects_out(port, 4, value)

    def expects_exception(self, vector: int, *, error: int = 0, at: int | None = None) -> None:
        """A handler of the guest's reports an exception, with its error code and its address."""
        self.expects_values(0x20, vector)
        self.expects_values(0x21, error)
        where = self.sends(0x22, 4)
        if at is not None:
            agree(f"the address of exception {vector}", where, at)

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
    prepare: Callable[[AnyVm], object] | None = None
    """Called with the machine while it is empty."""
    every_instruction: bool = False
    """Whether it takes a hypervisor that leaves instructions to the processor: one that emulates each
    has but some of them."""
    features: tuple[str, ...] = ()
    """The features of the processor that the guest uses, by the names of ``cpuid_features``."""

    @property
    def origin(self) -> int:
        """The address that the guest's code is linked to: the offset in its code segment."""
        return self.entry.rip

    @property
    def GUEST(self) -> type[Guest]:
        return Guest

    def lacking(self, arch: Any) -> str:
        """What of the instructions and features that the guest uses the hypervisor does not have."""
        has = cpuid_features(arch.supported_cpuid()) if self.features else frozenset()
        lacks = [f"the feature {name}" for name in self.features if name not in has]
        if self.every_instruction:
            lacks += (f"the instruction {name}" for name in missing_instructions(arch))
        lacks += [super().lacking(arch)] * bool(super().lacking(arch))
        return f"this hypervisor lacks {', '.join(lacks)}" if lacks else ""

    def arguments(self, arch: Any) -> dict[str, Any]:
        """The same as for every CPU, ``cpuid`` and ``prepare``."""
        cpuid = self.cpuid(arch.supported_cpuid()) if self.cpuid else None
        return super().arguments(arch) | {"cpuid": cpuid, "prepare": self.prepare}
