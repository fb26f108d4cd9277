"""Runs a guest and holds it to its scenario: which exits it makes, what it is told, how it ends.

Works with every backend module and needs nothing else: no test framework, and no assembler where the
guest's code is at hand. What only one CPU's guests do is in its own harness.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from threading import Event, Thread
from time import monotonic
from typing import Any, Protocol, Self

from vmm_arch.errors import HypervisorError, VcpuError
from vmm_arch.exits import Exit, Halt, IoIn, IoOut, Kicked, MmioRead, MmioWrite, Shutdown
from vmm_arch.memory import GuestMemory, MemoryAccessError
from vmm_arch.protocols.common import Backend
from vmm_arch.selftest.watchdog import Watchdog


class Entry(Protocol):
    """Where a guest begins; the rest of it is its CPU's."""

    @property
    def address(self) -> int:
        """Guest-physical."""


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
    track_dirty: bool = False
    patience: float = 20
    """Seconds that the scenario may take, on a slow and busy host as well."""

    @property
    def GUEST(self) -> type[Guest]:
        """What a scenario plays with."""
        return Guest

    def arguments(self, arch: Backend) -> dict[str, Any]:
        """What ``Vm`` is made with."""
        return {
            "vcpus": self.vcpus,
            "irqchip": self.irqchip,
            "track_dirty": self.track_dirty,
        }


class Scenario(Protocol):
    """A module that says how a guest is run."""

    @property
    def MACHINE(self) -> Machine: ...

    def scenario(self, guest: Any, /) -> None:
        """Play it, with what MACHINE has as GUEST."""


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
        """Reset the vCPU and load the code again; what else is in memory stays."""
        self.load()
        self.arch.reset_vcpu(self.vcpu, self.machine.entry)

    # Which exit comes next

    def run(self) -> Exit:
        """Run to the next exit, whatever it is."""
        exit: Exit = self.vcpu.run()
        if self.watchdog.verdict is not None:
            raise ScenarioFailed(f"{self.watchdog.verdict}: {self._came(exit)}")
        return exit

    def expects_mmio_write(self, address: int, size: int, value: int) -> None:
        """The guest writes this value to an address where there is no memory."""
        match exit := self.run():
            case MmioWrite(address=at, data=data) if (at, len(data)) == (address, size):
                if exit.value == value:
                    return
        raise self.failure(f"a write of {size} at {address:#x} with {value:#x}", exit)

    def asks_mmio(self, address: int, size: int) -> MmioRead:
        """The guest reads where there is no memory: return the exit, which waits for the answer."""
        match exit := self.run():
            case MmioRead(address=at, size=width) if (at, width) == (address, size):
                return exit
        raise self.failure(f"a read of {size} at {address:#x}", exit)

    def expects_mmio_read(self, address: int, size: int, *, answer: int | None) -> None:
        """The guest reads where there is no memory; None is ignored, as by an empty bus."""
        answered(self.asks_mmio(address, size), answer)

    def halts(self) -> None:
        """The guest halts, and nothing of the hypervisor's can wake it."""
        exit = self.run()
        if not isinstance(exit, Halt):
            raise self.failure("a halt", exit)

    def shuts_down(self) -> None:
        """The guest is at its end: it cannot even deliver a double fault."""
        exit = self.run()
        if not isinstance(exit, Shutdown):
            raise self.failure("a shutdown", exit)

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
            raise self.failure("to be kicked", exit)

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

    def failure(self, expected: str, exit: Exit) -> ScenarioFailed:
        """What to raise if another exit came."""
        return ScenarioFailed(f"expected {expected}, but {self._came(exit)}")

    def _came(self, exit: Exit) -> str:
        """Say which exit came, and where the guest is."""
        came = f"vCPU {self.vcpu.index} came back with {exit!r}"
        if isinstance(exit, IoOut | MmioWrite):
            came += f", value {exit.value:#x}"
        try:
            if isinstance(exit, IoIn | MmioRead):
                exit.ignore()  # an instruction has to finish before anybody may see where it is
            where = self.where()
            if where is None:
                return came
            place, address = where
            following = self.memory.read(address, 8).hex(" ")
        except (VcpuError, HypervisorError, MemoryAccessError) as error:
            return f"{came}; where the guest is cannot be told ({error})"
        offset = address - self.machine.entry.address
        return f"{came}; {place} (code {offset:+#x}), where {following} comes next"

    def where(self) -> tuple[str, int] | None:
        """The next instruction's place in the CPU's words, and its guest-physical address.

        None: the CPU has no harness of its own that knows.
        """
        return None


def answered(exit: IoIn | MmioRead, answer: int | None) -> None:
    """Answer an exit; None is ignored, as by an empty bus."""
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
