"""A server for gdb: ``target remote localhost:1234``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol

from vmm_arch.debug.commands import Commands
from vmm_arch.debug.connection import ClientEvent, Connected, Connection, Gone, Listener
from vmm_arch.debug.cpu import EVERYTHING, Abilities, Cpu
from vmm_arch.debug.monitor import Monitor
from vmm_arch.debug.packets import Interrupt, Packet
from vmm_arch.debug.points import Points
from vmm_arch.debug.stop import Detach, Kill, Resume, Signal, Stop
from vmm_arch.devices.bus import Bus
from vmm_arch.ending import Reason
from vmm_arch.errors import ClosedError, HypervisorError, HypervisorUnavailableError
from vmm_arch.exits import (
    AnyExit,
    Breakpoint,
    Failure,
    Halt,
    Kicked,
    Notice,
    Shutdown,
    SingleStep,
    SystemEvent,
)

LOCALHOST: Final = "127.0.0.1"


class Vm(Protocol):
    """What is used of a machine."""

    @property
    def vcpus(self) -> Sequence[Any]: ...
    @property
    def memory(self) -> Any: ...


class GdbServer:
    """Lets gdb look at a machine and control it while ``serve()`` runs it.

    The guest waits for a client before its first instruction, unless ``wait`` is false; a client
    that comes later stops it. One client at a time; its threads are the vCPUs, and all of them stop
    together. What happens to the client:

    - it detaches: its breakpoints are removed, and the guest runs on;
    - it vanishes: its breakpoints are removed. A guest that runs runs on; one that is stopped
      remains so, until another client comes;
    - it kills the guest: ``serve()`` returns with ``Reason.STOPPED``;
    - the guest cannot continue (a triple fault, for instance): it is shown like any other stop, and
      ends when the client has it continue.

    Whoever can connect controls the guest, though not the host: so it listens on this host only,
    unless another address is given.
    """

    def __init__(
        self,
        vm: Vm,
        bus: Bus,
        cpu: Cpu,
        address: tuple[str, int] = (LOCALHOST, 0),
        *,
        architecture: str | None = None,
        wait: bool = True,
        abilities: Abilities = EVERYTHING,
        say: Callable[[str], object] | None = None,
    ) -> None:
        """``architecture`` is what gdb is told; by default what fits the first vCPU's mode then.

        ``say`` is called with a line whenever a client comes or goes.
        Raises OSError if the address cannot be used, ValueError if there is no such architecture.
        """
        self._vm = vm
        self._bus = bus
        self._cpu = cpu
        self._say = say
        self._architecture = architecture
        if architecture is not None:
            cpu.architecture(architecture, vm.vcpus[0])
        self._points = Points(vm, cpu, abilities)
        self._can_step = _can_step(vm)
        self._events: SimpleQueue[ClientEvent | None] = SimpleQueue()
        """What the client does; None once the guest has ended."""
        self._client: Connection | None = None
        self._commands: Commands | None = None
        self._running = not wait
        """Whether the guest runs, as far as the client knows."""
        self._resumed = 0
        """How often it was."""
        self._stepping: frozenset[int] = frozenset()
        self._alone: Any = None
        """The vCPU that runs in a session, while all others wait."""
        self._over = False
        self._ends: Reason | None = None
        """If the guest ends when it continues, why."""
        self._listener = Listener(address, self._received)
        self.address = self._listener.address
        """Host and number to connect to."""
        if wait:
            bus.pause(self._attend)

    def close(self, status: int = 0) -> None:
        """Tell the client that the guest has ended, with an exit status, and listen no more."""
        self.ended()
        client = self._client
        if client is not None and self._running:
            client.send(b"W%02x" % (status & 0xFF))
        self._listener.close()

    def __enter__(self) -> GdbServer:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.close()

    # For serve()

    def stops(self, index: int, exit: AnyExit) -> Callable[[], object] | None:
        """What to call once all vCPUs are stopped because of an exit; None if it is no reason to."""
        stop = self._reason_to_stop(index, exit)
        if stop is None or self._client is None:
            return None
        return partial(self._reached, stop, self._resumed)

    def ended(self) -> None:
        """The guest ends; for any thread and for signal handlers, and more than once."""
        self._over = True
        self._events.put(None)
        self._kick_alone()

    # In the thread of the connection

    def _received(self, event: ClientEvent) -> None:
        self._events.put(event)
        if not isinstance(event, Packet):
            self._bus.pause(self._attend)
            self._kick_alone()

    def _kick_alone(self) -> None:
        alone = self._alone
        if alone is not None:
            with suppress(ClosedError):  # then it does not run
                alone.kick()

    # While all vCPUs are stopped

    def _reached(self, stop: Stop, resumed: int) -> None:
        """A vCPU has a reason to stop; several may have come together."""
        if self._client is None or (stop.happens_again and resumed != self._resumed):
            return
        self._report(stop)
        self._attend()

    def _attend(self) -> None:
        """Do what the client wants until the guest is to run."""
        while not self._over:
            try:
                event = self._events.get(block=not self._running)
            except Empty:
                return
            match event:
                case Packet(data):
                    self._answer(data)
                case Interrupt():
                    if self._running and self._client is not None:
                        self._report(Stop(0, Signal.INT))
                case Connected(connection):
                    self._connect(connection)
                case Gone(connection) if connection is self._client:
                    self._disconnect("gdb has gone without detaching")

    def _connect(self, connection: Connection) -> None:
        self._halt()
        self._client = connection
        monitor = Monitor(self._vm, self._cpu, self._reset)
        self._commands = Commands(
            self._vm, self._cpu, self._points, monitor, self._architecture, self._can_step
        )
        self._commands.stopped(Stop(0, Signal.TRAP))
        self._tell("gdb is connected")

    def _disconnect(self, why: str) -> None:
        self._client = self._commands = None
        self._points.clear()
        self._tell(why if self._running else f"{why}; the guest waits for the next one")

    def _report(self, stop: Stop) -> None:
        """Tell the client that the guest has stopped."""
        self._halt()
        if self._client is not None and self._commands is not None:
            self._client.send(self._commands.stopped(stop))

    def _halt(self) -> None:
        """From running to stopped."""
        self._running = False
        self._points.withdraw()
        for index in self._stepping:
            self._vm.vcpus[index].step(False)
        self._stepping = frozenset()

    def _answer(self, data: bytes) -> None:
        client, commands = self._client, self._commands
        if client is None or commands is None:
            return  # it has gone
        client.unanswered -= 1
        answer = commands.answer(data)
        if commands.wants_no_acknowledgements:
            client.acknowledges = False
        match answer:
            case Resume():
                self._resume(client, answer)
            case Detach():
                client.send(b"OK")
                self._running = True
                self._disconnect("gdb has detached")
                self._end_if_dead()
            case Kill(wanted):
                if wanted:
                    client.send(b"OK")
                self._bus.stop()
            case _:
                client.send(answer)

    def _resume(self, client: Connection, resume: Resume) -> None:
        if self._end_if_dead():
            self._running = True
            return
        try:
            self._points.apply()
            if len(resume.running) < len(self._vm.vcpus):
                (index,) = resume.running
                self._run_alone(index, index in resume.stepping)
                return
            for index in resume.stepping:
                self._vm.vcpus[index].step(True)
        except HypervisorError as error:
            client.send(f"E.{error}".encode())
            return
        self._stepping = resume.stepping
        self._running = True
        self._resumed += 1

    def _run_alone(self, index: int, steps: bool) -> None:
        """Run one vCPU, here, while the others wait, until it stops."""
        vcpu = self._vm.vcpus[index]
        self._resumed += 1
        if self._can_step:
            vcpu.step(steps)
        self._alone = vcpu
        try:
            while (stop := self._run_once(vcpu)) is None:
                pass
        finally:
            self._alone = None
            if steps:
                vcpu.step(False)
        if not self._over:
            self._report(stop)

    def _run_once(self, vcpu: Any) -> Stop | None:
        """One exit of a vCPU that runs alone, and why it stops, if it does."""
        index = vcpu.index
        if self._over:
            return Stop(index, Signal.INT)
        exit = vcpu.run()
        if self._bus.handle(exit):
            return None
        stop = self._reason_to_stop(index, exit)
        if stop is not None:
            if isinstance(exit, Shutdown):
                self._ends = Reason.SHUTDOWN
            elif isinstance(exit, Failure):
                self._ends = Reason.FAILED
            return stop
        match exit:
            case Kicked() if not self._events.empty():
                return Stop(index, Signal.INT)
            case Notice() | Breakpoint():
                return None
            case SystemEvent():
                self._ends = exit.reason or Reason.SYSTEM_EVENT
            case Halt():
                pass
            case _:
                self._ends = Reason.FAILED
        return Stop(index, Signal.TRAP)

    def _end_if_dead(self) -> bool:
        """End a guest that cannot continue."""
        if self._ends is None:
            return False
        self._bus.stop(self._ends)
        return True

    def _reset(self) -> None:
        self._ends = Reason.RESET

    def _reason_to_stop(self, index: int, exit: AnyExit) -> Stop | None:
        """Why an exit stops the guest; a breakpoint of the guest's own is given to it."""
        vcpu = self._vm.vcpus[index]
        match exit:
            case Breakpoint():
                if self._points.is_guests_own(vcpu, exit):
                    exit.ignore()
                    return None
                point = None if exit.hardware is None else self._points.watching(exit.hardware)
                if point is not None:
                    return Stop(index, Signal.TRAP, point)
                return Stop(index, Signal.TRAP, software=exit.hardware is None)
            case SingleStep():
                return Stop(index, Signal.TRAP)
            case Shutdown():
                return Stop(index, Signal.SEGV)
            case Failure():
                return Stop(index, Signal.ABRT)
        return None

    def _tell(self, text: str) -> None:
        if self._say is not None:
            self._say(text)


def _can_step(vm: Vm) -> bool:
    try:
        vm.vcpus[0].step(False)
    except HypervisorUnavailableError:
        return False
    return True
