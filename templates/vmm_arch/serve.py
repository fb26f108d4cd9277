"""Serves a machine until its guest ends: a thread for each vCPU, and every access to the bus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event, Thread, Timer, get_ident
from time import monotonic, sleep
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from vmm_arch.activity import Activity
from vmm_arch.devices.bus import Bus
from vmm_arch.ending import Ending, Reason
from vmm_arch.errors import ClosedError
from vmm_arch.exits import AnyExit, Breakpoint, Failure, Halt, Kicked, Notice, Shutdown, SystemEvent
from vmm_arch.pause import Pause
from vmm_arch.standstill import Standstill

__all__ = ["Ending", "Reason", "serve"]


DRAIN_PERIOD: Final = 0.02
"""Seconds after which collected writes are handled, if the guest makes no exit before."""

ExitT = TypeVar("ExitT", bound=AnyExit)
ExitT_co = TypeVar("ExitT_co", bound=AnyExit, covariant=True)


class Vcpu(Protocol[ExitT_co]):
    """What serving needs of a vCPU."""

    @property
    def index(self) -> int: ...
    def run(self) -> ExitT_co: ...
    def kick(self) -> None: ...
    def get_activity(self) -> Activity: ...


class Machine(Protocol[ExitT_co]):
    """What serving needs of a virtual machine."""

    @property
    def vcpus(self) -> Sequence[Vcpu[ExitT_co]]: ...
    @property
    def irqchip(self) -> bool: ...


class Debugger(Protocol):
    """What serving needs of a debugger, such as a GdbServer."""

    def stops(self, index: int, exit: AnyExit) -> Callable[[], object] | None:
        """What to call, once all vCPUs are stopped, because of an exit that is no access."""

    def ended(self) -> object:
        """The guest ends; called like ``on_end``, and must make that function return."""


_START: Final = 1.0
"""Seconds that a thread may take from start() to its first instruction."""

Trace: TypeAlias = Callable[[int, ExitT], object]


def serve(
    vm: Machine[ExitT],
    bus: Bus,
    *,
    timeout: float | None = None,
    trace: Trace[ExitT] | None = None,
    on_end: Callable[[], object] | None = None,
    debugger: Debugger | None = None,
) -> Ending:
    """Run all vCPUs of a machine until its guest ends, and return why.

    The first vCPU runs in the calling thread, each other one in a thread of its own. ``trace`` is
    called with a vCPU's index and its exit, before the bus answers it. ``timeout`` is in seconds.

    When this returns or raises, no vCPU runs and no thread is left. An exception that a device,
    ``trace`` or a hypervisor raises in any thread is raised here, and so is KeyboardInterrupt (on
    Windows at the first vCPU's next exit). A guest whose vCPUs have all halted with interrupts off
    ends after about a second, although with an irqchip HLT is not an exit; an NMI that a device's
    line would send later is not waited for.

    ``bus.pause(call)`` has a function called meanwhile, while all vCPUs are stopped. ``debugger`` is
    asked about exits, and controls the guest while it is stopped.

    Called again, it continues the guest. A vCPU may have a kick left, which its next ``run()``
    returns. A device that blocks keeps this from returning: use ``on_end`` to wake it. It is called
    in whichever thread or signal handler ends the guest, possibly more than once.
    """
    return _Service(vm, bus, trace, on_end, debugger).run(timeout)


def _join(thread: Thread) -> None:
    """Wait for a thread that was started, or whose start() was interrupted: it may have no number yet."""
    end = monotonic() + _START
    while thread.ident is None and monotonic() < end:
        sleep(0.001)
    if thread.ident is not None:
        thread.join()


class _Runner:
    """One vCPU, and the state of its thread."""

    def __init__(self, vcpu: Vcpu[AnyExit]) -> None:
        self.vcpu = vcpu
        self.index = vcpu.index
        self.thread = 0
        """The thread that runs the vCPU; 0 before and after."""
        self.in_guest = False
        self.asked = False
        self.left = Event()
        """Set once the vCPU has been run for the last time."""
        self.exits: Counter[type[AnyExit]] = Counter()

    @property
    def count(self) -> int:
        """The number of exits so far; for any thread."""
        return sum(list(self.exits.values()))  # a list: the vCPU's thread may add a key meanwhile


class _Service:
    """One call of serve().

    There are no locks, since a signal handler may call ``bus.stop()``, and thereby :meth:`end`, at
    any moment, also while this thread's vCPU is in the guest. The first item of ``ends`` is the
    ending. Whoever appends to it then kicks every runner that is ``in_guest``; a runner first sets
    ``in_guest`` and then checks ``ends``, so one of the two always notices the other.
    """

    def __init__(
        self,
        vm: Machine[AnyExit],
        bus: Bus,
        trace: Trace[Any] | None,
        on_end: Callable[[], object] | None,
        debugger: Debugger | None,
    ) -> None:
        self.bus = bus
        self.debugger = debugger
        self.trace = trace
        self.on_end = on_end
        self.runners = [_Runner(vcpu) for vcpu in vm.vcpus]
        self.ends: list[tuple[Reason, int | None, str, int | None]] = []
        self.errors: list[BaseException] = []
        self.halted: list[int] = []
        self.pause = Pause(self.runners, bus.pauses, self.ends)
        self.standstill = Standstill(self.runners, self.pause, self.all_halted, self.check_failed)
        self.halt_is_an_exit = not vm.irqchip
        self.over = Event()
        """Set once no vCPU runs any more."""

    def run(self, timeout: float | None) -> Ending:
        start = monotonic()
        first, *others = self.runners
        threads = [
            Thread(target=self.drive, args=(runner,), name=f"vCPU {runner.index}", daemon=True)
            for runner in others
        ]
        timer = None if timeout is None else Timer(timeout, self.end, (Reason.TIMEOUT,))
        watch = None if self.halt_is_an_exit else self.standstill.thread
        drain = self.bus.drain
        drainer = drain and Thread(target=self.drain, args=(drain,), name="writes", daemon=True)
        begun: list[Thread] = []
        with self.bus.listening(self.stopped, self.pause.kick):
            try:
                for thread in (timer, *threads, watch, drainer):
                    if thread is not None:
                        thread.daemon = True
                        begun.append(thread)
                        thread.start()
                self.drive(first)
                # Not join(): before Python 3.13, after a signal has interrupted it, the thread
                # counts as ended and the next join() returns at once (CPython issue 90882).
                for runner in others:
                    runner.left.wait()
                if not self.ends:
                    self.end(Reason.HALTED, self.halted[-1])
            finally:
                # There is an ending already, unless an exception was unexpected or a signal handler's.
                self.end(Reason.STOPPED)
                if timer is not None:
                    timer.cancel()
                self.standstill.stop()
                self.over.set()
                for thread in begun:
                    _join(thread)
        if self.errors:
            for other in self.errors[1:]:
                self.errors[0].add_note(f"There was also {other!r}.")
            raise self.errors.pop(0)  # no reference cycle through the traceback's frames
        reason, vcpu, message, code = self.ends[0]
        exits: Counter[str] = Counter()
        for runner in self.runners:
            exits.update({kind.__name__: count for kind, count in runner.exits.items()})
        return Ending(reason, vcpu, monotonic() - start, exits, message, code)

    def drive(self, runner: _Runner) -> None:
        """Run a vCPU until the guest ends or this vCPU halts; record exceptions."""
        run, handle, trace = runner.vcpu.run, self.bus.handle, self.trace
        pause, calls = self.pause, self.pause.calls
        index, exits, ends = runner.index, runner.exits, self.ends
        runner.thread = get_ident()
        try:
            while True:
                runner.in_guest = True
                if ends:
                    break
                if calls:
                    runner.asked = True
                    runner.vcpu.kick()
                exit = run()
                runner.in_guest = False
                if runner.asked and type(exit) is Kicked:
                    pause.wait(runner)
                    continue
                exits[type(exit)] += 1
                if trace is not None:
                    trace(index, exit)
                if not handle(exit) and not self.runs_on(runner, exit):
                    break
            runner.in_guest = False
            pause.leave(runner)
        except BaseException as error:
            runner.in_guest = False
            error.add_note(f"This happened while vCPU {index} was being served.")
            self.errors.append(error)
            self.end(Reason.FAILED, index)
        finally:
            runner.thread, runner.in_guest = 0, False
            pause.leave(runner)  # again, unless something was raised
            runner.left.set()

    def runs_on(self, runner: _Runner, exit: AnyExit) -> bool:
        """Whether a vCPU runs on after an exit that is not an access."""
        index = runner.index
        if self.debugger is not None:
            if (call := self.debugger.stops(index, exit)) is not None:
                self.pause.request(call)
                self.pause.wait(runner)
            if isinstance(exit, Breakpoint):
                return True
        match exit:
            case Notice():
                return True
            case Halt():
                self.halted.append(index)
            case Shutdown():
                self.end(Reason.SHUTDOWN, index)
            case SystemEvent():
                self.end(exit.reason or Reason.SYSTEM_EVENT, index, repr(exit), exit.kind)
            case Failure():
                self.end(Reason.FAILED, index, f"{exit.operation}: {exit.code}: {exit.message}")
            case _:  # running on might return the same exit forever
                self.end(Reason.FAILED, index, f"unhandled exit {exit!r}")
        return False

    def all_halted(self) -> None:
        """End a guest in which no vCPU can wake another."""
        self.end(Reason.HALTED, None, "every vCPU is halted with interrupts off")

    def drain(self, drain: Callable[[], object]) -> None:
        """Have collected writes handled now and then, since a guest may make no exit for long."""
        try:
            while not self.over.wait(DRAIN_PERIOD):
                drain()
        except BaseException as error:
            error.add_note("This happened while handling writes that the hypervisor had collected.")
            self.errors.append(error)
            self.end(Reason.FAILED)

    def check_failed(self, error: BaseException) -> None:
        """Have serve() raise an exception of the standstill check."""
        error.add_note("This happened while checking whether every vCPU has halted for good.")
        self.errors.append(error)
        self.end(Reason.FAILED)

    def end(
        self,
        reason: Reason,
        vcpu: int | None = None,
        message: str = "",
        code: int | None = None,
    ) -> None:
        """Record the ending and make every vCPU leave the guest."""
        self.ends.append((reason, vcpu, message, code))
        if self.on_end is not None:
            self.on_end()
        if self.debugger is not None:
            self.debugger.ended()
        for runner in self.runners:
            if runner.in_guest:
                with suppress(
                    ClosedError
                ):  # it has left the guest, and its machine is closed already
                    runner.vcpu.kick()

    def stopped(self, reason: Reason, code: int | None, thread: int) -> None:
        """Called by ``bus.stop()``."""
        # A signal handler may run in a vCPU's thread in the middle of its run().
        asking = (r.index for r in self.runners if r.thread == thread and not r.in_guest)
        self.end(reason, next(asking, None), code=code)
