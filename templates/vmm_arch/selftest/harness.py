"""Runs a guest and holds it to its scenario: which exits it makes, what it is told, how it ends.

Works with every backend module of x86_64 and needs nothing else: no test framework, and no
assembler where the guest's code is at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event, Thread
from time import monotonic
from typing import Any, Protocol, TypeAlias

from vmm_arch.errors import HypervisorError, VcpuError
from vmm_arch.exits import Exit, Halt, IoIn, IoOut, Kicked, MmioRead, MmioWrite, Shutdown
from vmm_arch.memory import GuestMemory, MemoryAccessError
from vmm_arch.protocols.x86_64 import Backend, Fpu, Lapic, Regs, Sregs, Vcpu, Vm
from vmm_arch.selftest.watchdog import Watchdog
from vmm_arch.x86_64.cpuid import CpuidEntry
from vmm_arch.x86_64.entry import Entry

AnyVcpu: TypeAlias = Vcpu[Regs, Sregs, Fpu, Lapic]
AnyVm: TypeAlias = Vm[AnyVcpu]
AnyBackend: TypeAlias = Backend[Any]


class ScenarioFailed(AssertionError):
    """The guest did not do what its scenario says."""


@dataclass(frozen=True)
class Machine:
    """What a scenario wants to run on. The guest's code is loaded to where it is entered."""

    entry: Entry
    memory: int = 0x20_0000
    """In bytes, from address 0 on."""
    vcpus: int = 1
    irqchip: bool = False
    cpuid: Callable[[list[CpuidEntry]], list[CpuidEntry]] | None = None
    """Makes what the guest's CPUID says out of what the hypervisor supports."""
    track_dirty: bool = False
    patience: float = 20
    """Seconds that the scenario may take, on a slow and busy host as well."""

    @property
    def origin(self) -> int:
        """What the guest's code is linked to: the offset in its code segment."""
        return self.entry.rip


class Scenario(Protocol):
    """A module that says how a guest is run."""

    @property
    def MACHINE(self) -> Machine: ...

    def scenario(self, guest: Guest, /) -> None: ...


def play(arch: AnyBackend, scenario: Scenario, code: bytes) -> None:
    """Run a guest's code through a scenario on a backend; raise ScenarioFailed where they differ."""
    machine = scenario.MACHINE
    cpuid = machine.cpuid(arch.supported_cpuid()) if machine.cpuid else None
    with (
        arch.GuestMemory(machine.memory) as memory,
        arch.Vm(
            memory,
            vcpus=machine.vcpus,
            irqchip=machine.irqchip,
            cpuid=cpuid,
            track_dirty=machine.track_dirty,
        ) as vm,
        Watchdog(vm.vcpus, machine.patience) as watchdog,
    ):
        guest = Guest(arch, machine, code, vm, vm.vcpus[0], watchdog)
        guest.load()
        for vcpu in vm.vcpus:
            arch.configure_vcpu(vcpu, machine.entry)
        scenario.scenario(guest)


def after(seconds: float) -> Callable[[], bool]:
    """A condition that holds once some time has passed."""
    end = monotonic() + seconds
    return lambda: monotonic() >= end


def agree(what: str, found: object, expected: object) -> None:
    """Fail the scenario if something is not as it should be."""
    if found != expected:
        raise ScenarioFailed(f"{what}: expected {_readable(expected)}, found {_readable(found)}")


@dataclass(repr=False)
class Guest:
    """A guest as one of its vCPUs runs it: the first one, where :meth:`on` names no other."""

    arch: AnyBackend
    machine: Machine
    code: bytes
    vm: AnyVm
    vcpu: AnyVcpu
    watchdog: Watchdog

    @property
    def memory(self) -> GuestMemory:
        return self.vm.memory

    def on(self, index: int) -> Guest:
        """The same guest on another vCPU."""
        vcpu = self.vm.vcpus[index]
        return Guest(self.arch, self.machine, self.code, self.vm, vcpu, self.watchdog)

    def load(self) -> None:
        """Write the code, and the tables that its mode needs, to guest memory."""
        self.memory.write(self.machine.entry.address, self.code)
        self.arch.configure_system(self.vm, self.machine.entry)

    def restart(self) -> None:
        """Reset the vCPU and load the code again; what else is in memory stays."""
        self.load()
        self.arch.reset_vcpu(self.vcpu, self.machine.entry)

    # Which exit comes next

    def run(self) -> Exit:
        """Run to the next exit, whatever it is."""
        exit = self.vcpu.run()
        if self.watchdog.verdict is not None:
            raise ScenarioFailed(f"{self.watchdog.verdict}: {self._came(exit)}")
        return exit

    def sends(self, port: int, size: int) -> int:
        """The guest writes one value to a port: return it."""
        match exit := self.run():
            case IoOut(port=at, size=width, count=1) if (at, width) == (port, size):
                return exit.value
        raise self._failure(f"OUT of {size} to port {port:#x}", exit)

    def expects_out(self, port: int, size: int, value: int) -> None:
        """The guest writes this value to a port."""
        match exit := self.run():
            case IoOut(port=at, size=width, count=1) if (at, width) == (port, size):
                if exit.value == value:
                    return
        raise self._failure(f"OUT of {size} to port {port:#x} with {value:#x}", exit)

    def expects_outs(self, port: int, size: int, data: bytes) -> None:
        """The guest writes a string of values to a port: in one exit or in several."""
        sent = 0
        while sent < len(data):
            expected = f"OUTS of {size} to port {port:#x} with {data[sent:]!r} or its beginning"
            match exit := self.run():
                case IoOut(port=at, size=width) if (at, width) == (port, size):
                    end = sent + exit.size * exit.count
                    if exit.data != data[sent:end]:
                        raise self._failure(expected, exit)
                    sent = end
                case _:
                    raise self._failure(expected, exit)

    def asks_port(self, port: int, size: int) -> IoIn:
        """The guest reads one value from a port: return the exit, which waits for the answer."""
        match exit := self.run():
            case IoIn(port=at, size=width, count=1) if (at, width) == (port, size):
                return exit
        raise self._failure(f"IN of {size} from port {port:#x}", exit)

    def expects_in(self, port: int, size: int, *, answer: int | None) -> None:
        """The guest reads one value from a port; None is ignored, as by an empty bus."""
        _answer(self.asks_port(port, size), answer)

    def expects_ins(self, port: int, size: int, *, answer: bytes) -> None:
        """The guest reads a string of values from a port: in one exit or in several."""
        given = 0
        while given < len(answer):
            expected = f"INS of {size} from port {port:#x}, {len(answer) - given} bytes at most"
            match exit := self.run():
                case IoIn(port=at, size=width) if (at, width) == (port, size):
                    end = given + exit.size * exit.count
                    if end > len(answer):
                        raise self._failure(expected, exit)
                    exit.complete(answer[given:end])
                    given = end
                case _:
                    raise self._failure(expected, exit)

    def expects_mmio_write(self, address: int, size: int, value: int) -> None:
        """The guest writes this value to an address where there is no memory."""
        match exit := self.run():
            case MmioWrite(address=at, data=data) if (at, len(data)) == (address, size):
                if exit.value == value:
                    return
        raise self._failure(f"a write of {size} at {address:#x} with {value:#x}", exit)

    def asks_mmio(self, address: int, size: int) -> MmioRead:
        """The guest reads where there is no memory: return the exit, which waits for the answer."""
        match exit := self.run():
            case MmioRead(address=at, size=width) if (at, width) == (address, size):
                return exit
        raise self._failure(f"a read of {size} at {address:#x}", exit)

    def expects_mmio_read(self, address: int, size: int, *, answer: int | None) -> None:
        """The guest reads where there is no memory; None is ignored, as by an empty bus."""
        _answer(self.asks_mmio(address, size), answer)

    def halts(self) -> None:
        """The guest executes HLT, and nothing of the hypervisor's can wake it."""
        exit = self.run()
        if not isinstance(exit, Halt):
            raise self._failure("HLT", exit)

    def shuts_down(self) -> None:
        """The guest is at its end: it cannot even deliver a double fault."""
        exit = self.run()
        if not isinstance(exit, Shutdown):
            raise self._failure("a shutdown", exit)

    def is_kicked(self, once: Callable[[], bool]) -> None:
        """The guest runs without an exit until another thread, once a condition holds, kicks it."""
        ended = Event()
        troubles: list[BaseException] = []

        def kick() -> None:
            try:
                while not once():
                    if ended.wait(0.001):
                        return
            except BaseException as trouble:
                troubles.append(trouble)
            self.vcpu.kick()

        kicker = Thread(target=kick, daemon=True)
        kicker.start()
        try:
            self.was_kicked()
        finally:
            ended.set()
            kicker.join()
        if troubles:
            raise troubles[0]

    def was_kicked(self) -> None:
        """The vCPU comes back because of a kick, which may have come before it ran."""
        exit = self.run()
        if not isinstance(exit, Kicked):
            raise self._failure("to be kicked", exit)

    def together(self, *parts: Callable[[], None]) -> None:
        """Play several vCPUs' parts at once, each in its own thread; one that fails ends all."""
        with ThreadPoolExecutor(len(parts)) as threads:
            playing = [threads.submit(part) for part in parts]
            done, _ = wait(playing, return_when=FIRST_EXCEPTION)
            failures = [error for part in done if (error := part.exception())]
            if failures:
                self.watchdog.end("another vCPU's part failed")
                raise failures[0]

    # Which state it is in

    def has_registers(self, **expected: int) -> None:
        """The general registers named here hold these values."""
        regs = self.vcpu.get_regs()
        found = {name: getattr(regs, name) for name in expected}
        agree("registers", *_differences(found, expected))

    def has_memory(self, address: int, expected: bytes) -> None:
        """Guest memory holds these bytes at an address."""
        agree(f"memory at {address:#x}", self.memory.read(address, len(expected)), expected)

    def _failure(self, expected: str, exit: Exit) -> ScenarioFailed:
        return ScenarioFailed(f"expected {expected}, but {self._came(exit)}")

    def _came(self, exit: Exit) -> str:
        """Say which exit came, and where the guest is."""
        came = f"vCPU {self.vcpu.index} came back with {exit!r}"
        if isinstance(exit, IoOut | MmioWrite):
            came += f", value {exit.value:#x}"
        try:
            if isinstance(exit, IoIn | MmioRead):
                exit.ignore()  # an instruction has to finish before anybody may see RIP
            rip = self.vcpu.get_regs().rip
            address = rip + self.vcpu.get_sregs().cs.base
            following = self.memory.read(address, 8).hex(" ")
        except (VcpuError, HypervisorError, MemoryAccessError) as error:
            return f"{came}; where the guest is cannot be told ({error})"
        offset = address - self.machine.entry.address
        return f"{came}; RIP is now {rip:#x} (code {offset:+#x}), where {following} comes next"


def _answer(exit: IoIn | MmioRead, answer: int | None) -> None:
    if answer is None:
        exit.ignore()
    else:
        exit.complete(answer)


def _differences(
    found: dict[str, int], expected: dict[str, int]
) -> tuple[dict[str, int], dict[str, int]]:
    names = [name for name in expected if found[name] != expected[name]]
    return {name: found[name] for name in names}, {name: expected[name] for name in names}


def _readable(value: object) -> str:
    match value:
        case bool():
            return str(value)
        case int():
            return hex(value)
        case bytes():
            return value.hex(" ")
        case dict():
            return ", ".join(f"{name} {_readable(item)}" for name, item in value.items())
    return repr(value)
