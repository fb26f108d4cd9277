"""Runs a guest and compares it with its scenario: its exits, their answers, its final state.

Works with every backend and needs nothing else: no test framework and, with the guest's code given,
no assembler. A CPU's own harness has what only its guests do.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from threading import Event, Thread
from time import monotonic
from typing import Any, Protocol, Self

from vmm_arch.errors import HypervisorError, VcpuError
from vmm_arch.exits import (
    AnyExit,
    Halt,
    Kicked,
    MmioRead,
    MmioWrite,
    ReadExit,
    Shutdown,
    WriteExit,
)
from vmm_arch.memory import GuestMemory, MemoryAccessError
from vmm_arch.protocols.common import Backend
from vmm_arch.selftest.watchdog import Watchdog


class Entry(Protocol):
    """What is used of an entry; the rest is specific to a CPU."""

    @property
    def address(self) -> int:
        """Guest-physical."""


class ScenarioFailed(AssertionError):
    """The guest deviated from its scenario."""


@dataclass(frozen=True)
class Machine:
    """The machine that a scenario needs. The guest's code is loaded at its entry."""

    entry: Entry
    memory: int = 0x20_0000
    """The size of memory in bytes, from address 0 on."""
    vcpus: int = 1
    irqchip: bool = False
    track_dirty: bool = False
    operations: tuple[str, ...] = ()
    """The operations that the scenario needs and that a hypervisor may not support."""
    patience: float = 20
    """The time limit in seconds, enough for a slow and busy host."""

    @property
    def origin(self) -> int:
        """The address that the guest's code is linked to."""
        return self.entry.address

    @property
    def GUEST(self) -> type[Guest]:
        """The guest that is passed to the scenario."""
        return Guest

    def lacking(self, arch: Backend) -> str:
        """Why the scenario cannot be played on this host; empty if it can."""
        unsupported = arch.UNSUPPORTED
        lacks = (f"{name} ({unsupported[name]})" for name in self.operations if name in unsupported)
        return ", ".join(lacks)

    def arguments(self, arch: Backend) -> dict[str, Any]:
        """The keyword arguments of ``Vm``."""
        return {
            "vcpus": self.vcpus,
            "irqchip": self.irqchip,
            "track_dirty": self.track_dirty,
        }


class Scenario(Protocol):
    """A module that describes a guest's run."""

    @property
    def MACHINE(self) -> Machine: ...

    def scenario(self, guest: Any, /) -> None:
        """Play the scenario, with a guest on MACHINE."""


def play(arch: Backend, scenario: Scenario, code: bytes) -> None:
    """Run a guest's code through a scenario on a backend; raise ScenarioFailed where they differ."""
    machine = scenario.MACHINE
    with (
        arch.GuestMemory(machine.memory) as memory,
        arch.Vm(memory, **machine.arguments(arch)) as vm,
        Watchdog(vm.vcpus, machine.patience) as watchdog,
    ):
        guest = machine.GUEST(arch, machine, code, vm, vm.vcpus[0], watchdog)
        guest.load()
        for vcpu in vm.vcpus:
            arch.configure_vcpu(vcpu, machine.entry)
        scenario.scenario(guest)


def after(seconds: float) -> Callable[[], bool]:
    """A condition that becomes true after some time."""
    end = monotonic() + seconds
    return lambda: monotonic() >= end


def agree(what: str, found: object, expected: object) -> None:
    """Fail the scenario if something is not as expected."""
    if found != expected:
        raise ScenarioFailed(f"{what}: expected {_readable(expected)}, found {_readable(found)}")


@dataclass(repr=False)
class Guest:
    """A guest on one of its vCPUs: the first one, unless :meth:`on` selects another."""

    arch: Any
    machine: Machine
    code: bytes
    vm: Any
    vcpu: Any
    watchdog: Watchdog

    @property
    def memory(self) -> GuestMemory:
        memory: GuestMemory = self.vm.memory
        return memory

    def on(self, index: int) -> Self:
        """The same guest on another vCPU."""
        vcpu = self.vm.vcpus[index]
        return replace(self, vcpu=vcpu)

    def load(self) -> None:
        """Write the code, and the tables that its mode needs, to guest memory."""
        self.memory.write(self.machine.entry.address, self.code)
        self.arch.configure_system(self.vm, self.machine.entry)

    def restart(self) -> None:
        """Reset the vCPU and load the code again; the rest of memory is kept."""
        self.load()
        self.arch.reset_vcpu(self.vcpu, self.machine.entry)

    # The next exit

    def run(self) -> AnyExit:
        """Run to the next exit of any kind."""
        exit: AnyExit = self.vcpu.run()
        if self.watchdog.verdict is not None:
            raise ScenarioFailed(f"{self.watchdog.verdict}: {self._described(exit)}")
        return exit

    def expects_mmio_write(self, address: int, size: int, value: int) -> None:
        """The guest writes this value to an address without memory."""
        match exit := self.run():
            case MmioWrite(address=at, data=data) if (at, len(data)) == (address, size):
                if exit.value == value:
                    return
        raise self.failure(f"a write of {size} at {address:#x} with {value:#x}", exit)

    def asks_mmio(self, address: int, size: int) -> MmioRead:
        """The guest reads an address without memory: return the exit, which waits for the answer."""
        match exit := self.run():
            case MmioRead(address=at, size=width) if (at, width) == (address, size):
                return exit
        raise self.failure(f"a read of {size} at {address:#x}", exit)

    def expects_mmio_read(self, address: int, size: int, *, answer: int | None) -> None:
        """The guest reads an address without memory; ``answer=None`` means ignore()."""
        answered(self.asks_mmio(address, size), answer)

    def halts(self) -> None:
        """The guest halts, and the hypervisor cannot wake it."""
        exit = self.run()
        if not isinstance(exit, Halt):
            raise self.failure("a halt", exit)

    def shuts_down(self) -> None:
        """The guest cannot continue, on x86_64 after a triple fault."""
        exit = self.run()
        if not isinstance(exit, Shutdown):
            raise self.failure("a shutdown", exit)

    def is_kicked(self, once: Callable[[], bool]) -> None:
        """The guest runs without an exit until another thread kicks it, once a condition is true."""
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
        """The exit is a kick, which may have come before the run."""
        exit = self.run()
        if not isinstance(exit, Kicked):
            raise self.failure("a kick", exit)

    def together(self, *parts: Callable[[], None]) -> None:
        """Play the parts of several vCPUs, each in its own thread; a failure of one ends all."""
        with ThreadPoolExecutor(len(parts)) as threads:
            playing = [threads.submit(part) for part in parts]
            done, _ = wait(playing, return_when=FIRST_EXCEPTION)
            failures = [error for part in done if (error := part.exception())]
            if failures:
                self.watchdog.end("another vCPU's part failed")
                raise failures[0]

    # The state

    def has_registers(self, **expected: int) -> None:
        """General registers have these values."""
        regs = self.vcpu.get_regs()
        found = {name: getattr(regs, name) for name in expected}
        agree("registers", *_differences(found, expected))

    def has_memory(self, address: int, expected: bytes) -> None:
        """Guest memory at an address has these bytes."""
        agree(f"memory at {address:#x}", self.memory.read(address, len(expected)), expected)

    def failure(self, expected: str, exit: AnyExit) -> ScenarioFailed:
        """The exception for an unexpected exit."""
        return ScenarioFailed(f"expected {expected}, but {self._described(exit)}")

    def _described(self, exit: AnyExit) -> str:
        """Describe the exit, and where the guest is."""
        text = f"vCPU {self.vcpu.index} returned {exit!r}"
        if isinstance(exit, WriteExit):
            text += f", value {exit.value:#x}"
        try:
            where = self.where()
            if where is None:
                return text
            place, address = where
            following = self.memory.read(address, 8).hex(" ")
        except (VcpuError, HypervisorError, MemoryAccessError) as error:
            return f"{text}; the guest's position is unknown ({error})"
        offset = address - self.machine.entry.address
        return f"{text}; {place} (code {offset:+#x}), next bytes {following}"

    def where(self) -> tuple[str, int] | None:
        """The next instruction's address as text, and as a guest-physical address.

        None if the CPU's harness does not define it.
        """
        return None


def answered(exit: ReadExit, answer: int | None) -> None:
    """Answer an exit; None means ignore(), as on an empty bus."""
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
