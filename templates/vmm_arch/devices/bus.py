"""The device bus: routes each guest access to the device that owns the address.

::

    bus = Bus()
    bus.attach_memory(range(0x9000000, 0x9000008), Serial16550(partial(os.write, 1), raise_line))
    while bus.handle(exit := vcpu.run()):
        pass

A CPU with other ways to reach devices has a bus of its own: x86_64 one with ports.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from threading import get_ident
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

from vmm_arch.devices.state import StatefulDevice, problems
from vmm_arch.ending import Reason
from vmm_arch.errors import ClosedError, HypervisorUnavailableError, StateError
from vmm_arch.events import AnyDoorbell, check_free, new_event, ring
from vmm_arch.exits import AnyExit, MmioRead, MmioWrite

ADDRESSES = range(1 << 64)

Access: TypeAlias = MmioRead | MmioWrite
BellT_contra = TypeVar("BellT_contra", bound=AnyDoorbell, contravariant=True)


class Device(Protocol):
    """A device on a bus. Offsets are relative to the start of its range.

    Values are unsigned and little-endian: the byte at ``offset`` is the lowest one. An access
    begins in the device's range; a wide one may reach beyond its end. Each vCPU calls from its own
    thread, so a device with state needs a lock. One that is to be saved with its machine has what
    :class:`~vmm_arch.devices.state.StatefulDevice` has, too. A device whose writes to some offsets
    can wait until the guest's next other access, because the guest cannot see earlier what they do,
    lists them in an attribute ``DEFERRABLE``: see :meth:`Bus.coalesce`.
    """

    def read(self, offset: int, size: int) -> int:
        """Return the ``size`` bytes at an offset. Higher bits are cut off, so -1 is all ones."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Write ``size`` bytes at an offset."""


Read: TypeAlias = Callable[[int, int], int]
Write: TypeAlias = Callable[[int, int, int], None]
Listener: TypeAlias = Callable[[Reason, int | None, int], object]
Coalesce: TypeAlias = Callable[[Iterable[range], Iterable[range], Callable[[Any], object]], object]
Routes: TypeAlias = Mapping[type, Callable[[Any, Any], bool]]
"""For each class of accesses the bus's method that hands one on; it returns whether it could."""


class CoalescingMachine(Protocol):
    """What :meth:`Bus.coalesce` needs of a machine."""

    @property
    def coalesce_writes(self) -> Coalesce:
        """Collect writes to addresses, and to the numbers of the CPU's other space, for a function."""

    def drain_writes(self) -> int: ...


class RingingMachine(Protocol[BellT_contra]):
    """What :meth:`Bus.doorbells` needs of a machine."""

    def add_ioeventfd(self, event: int, doorbell: BellT_contra, /) -> None: ...
    def remove_ioeventfd(self, doorbell: BellT_contra, /) -> None: ...


class Space:
    """The devices of one address space, each with its range. Attach them before the guest runs."""

    def __init__(self, what: str, numbers: range) -> None:
        """``what`` is what messages call its numbers."""
        self._what = what
        self._numbers = numbers
        self._attached: list[tuple[range, Device]] = []
        self.deferred: list[range] = []
        """Where nothing is attached, and writes can wait."""

    def claim(self, new: range, device: Device) -> None:
        """Record what is attached where; raises ValueError if the range is not free."""
        place = self._place(new, device)
        if new.step != 1 or not new:
            raise ValueError(f"{place}: expected a non-empty range with step 1")
        if new.start < self._numbers.start or new.stop > self._numbers.stop:
            beyond = f"which has {self._what} {_interval(self._numbers)}"
            raise ValueError(f"{place} is beyond the bus, {beyond}")
        for old, neighbour in self._attached:
            if new.start < old.stop and old.start < new.stop:
                other = f"{type(neighbour).__name__} at {_interval(old)}"
                raise ValueError(f"{place} overlaps {other}; move or shrink one of them")
        self._attached.append((new, device))

    def deferrable(self) -> list[range]:
        """Where writes can wait."""
        return self.deferred + [
            range(numbers.start + offset, numbers.start + offset + 1)
            for numbers, device in self._attached
            for offset in getattr(device, "DEFERRABLE", ())
        ]

    def devices(self) -> Iterator[tuple[str, Device]]:
        """Each device with its name: its class and its place."""
        for numbers, device in self._attached:
            yield self._place(numbers, device), device

    def _place(self, numbers: range, device: Device) -> str:
        return f"{type(device).__name__} at {self._what} {_interval(numbers)}"


class Bus:
    """Routes accesses to devices. Attach devices before the guest runs.

    Unclaimed reads return all ones and unclaimed writes are dropped, as on an empty bus.
    ``unclaimed`` is called with each such access first: ``Bus(unclaimed=print)`` shows what a guest
    probes for.
    """

    def __init__(self, unclaimed: Callable[[Access], object] | None = None) -> None:
        self._unclaimed: Callable[[Any], object] | None = unclaimed
        self._addresses = Space("addresses", ADDRESSES)
        self._spaces = [self._addresses]
        self._starts: list[int] = []
        self._memory: list[tuple[int, int, Read, Write]] = []
        """In ascending order: start and end of a device's address range, and its methods."""
        self._request: tuple[Reason, int | None, int] | None = None
        self._listener: Listener | None = None
        self._pauser: Callable[[], object] | None = None
        self._bells: dict[AnyDoorbell, int] = {}
        """The doorbells that the hypervisor does not ring, with their event descriptors."""
        self.drain: Callable[[], object] | None = None
        """Has collected writes handled, if :meth:`coalesce` has some collected; for ``serve()``."""
        self.pauses: deque[Callable[[], object]] = deque()
        """What is to be called while no vCPU runs; for ``serve()``, which takes them out."""

    def attach_memory(self, addresses: range, device: Device) -> None:
        """Attach a device to a range of guest-physical addresses.

        Raises ValueError if it overlaps another device. Accesses that guest memory serves never come here.
        """
        self._addresses.claim(addresses, device)
        at = bisect_right(self._starts, addresses.start)
        self._starts.insert(at, addresses.start)
        self._memory.insert(at, (addresses.start, addresses.stop, device.read, device.write))

    def handle(self, exit: AnyExit) -> bool:
        """Route an access to its device and answer it; False if the exit is not an access.

        An exception that a device raises is propagated, with a note that names the access; a read
        is then left unanswered.
        """
        route = self._ROUTES.get(type(exit))
        if route is None:
            return False
        if self._bells and self._ring(exit):
            return True
        try:
            if route(self, exit):
                return True
        except Exception as error:
            error.add_note(f"The guest access was {exit!r}.")
            raise
        if self._unclaimed is not None:
            self._unclaimed(exit)
        exit.ignore()
        return True

    def _write_memory(self, exit: MmioWrite) -> bool:
        address = exit.address
        if at := bisect_right(self._starts, address):
            start, stop, _, write = self._memory[at - 1]
            if address < stop:
                data = exit.data
                write(address - start, len(data), int.from_bytes(data, "little"))
                return True
        return False

    def _read_memory(self, exit: MmioRead) -> bool:
        address = exit.address
        if at := bisect_right(self._starts, address):
            start, stop, read, _ = self._memory[at - 1]
            if address < stop:
                size = exit.size
                exit.complete(read(address - start, size) & (1 << 8 * size) - 1)
                return True
        return False

    @contextmanager
    def doorbells(
        self, vm: RingingMachine[BellT_contra], doorbells: Iterable[BellT_contra]
    ) -> Iterator[list[int]]:
        """Event descriptors for a device of one's own thread, or event loop: one for each doorbell.

        What rings a doorbell does not reach a device's ``write``; what does not does. The hypervisor
        rings without an exit if it can, or else the bus. The descriptors can be waited for and read
        (``os.eventfd_read``), and are closed at the end::

            with bus.doorbells(vm, [Doorbell(address=0xD0000050, size=4)]) as [event]:
                loop.add_reader(event, notified)

        Raises EventInUseError for two at one place, and what ``vm.add_ioeventfd`` raises.
        """
        with ExitStack() as stack:
            events = []
            for doorbell in doorbells:
                event = new_event()
                stack.callback(os.close, event)
                try:
                    vm.add_ioeventfd(event, doorbell)
                except HypervisorUnavailableError:
                    check_free(doorbell, self._bells)
                    self._bells[doorbell] = event
                    stack.callback(self._bells.pop, doorbell)
                else:
                    stack.callback(_take_back, vm, doorbell)
                events.append(event)
            yield events

    def _ring(self, exit: AnyExit) -> bool:
        """Whether an exit rings doorbells that the hypervisor does not ring."""
        rung = False
        for doorbell, event in list(self._bells.items()):
            if count := doorbell.rings(exit):
                ring(event, count)
                rung = True
        return rung

    def coalesce(self, vm: CoalescingMachine) -> bool:
        """Have the hypervisor collect the writes that devices marked as ``DEFERRABLE``.

        They are no exits then, and reach their devices, in order, before anything else that the guest
        does afterwards, or by ``serve()`` within hundredths of a second. Call it once the devices are
        attached. Returns False, and each write remains an exit, if no device has marked any, or the
        hypervisor cannot.
        """
        addresses, *others = (space.deferrable() for space in self._spaces)
        if not addresses and not any(others):
            return False
        try:
            vm.coalesce_writes(addresses, others[0] if others else (), self.handle)
        except HypervisorUnavailableError:
            return False
        self.drain = vm.drain_writes
        return True

    _ROUTES: ClassVar[Routes] = {MmioRead: _read_memory, MmioWrite: _write_memory}

    def save(self) -> dict[str, Any]:
        """Return the state of all devices by their names: values that JSON has.

        No vCPU may be running, nor another thread use the devices: see :meth:`held`. Raises
        StateError, which names the devices that cannot be saved.
        """
        return {name: device.save() for name, device in self._stateful("save")}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Have all devices take over the state of their like on another bus, as :meth:`save` gave it.

        Interrupt lines are left alone: restore the machine, which has the interrupt controllers, as
        well. Raises StateError, which lists everything that is wrong; the devices are then as they
        were.
        """
        if not isinstance(saved, Mapping):
            raise StateError("restore", [f"expected a dictionary, got {type(saved).__name__}"])
        devices = dict(self._stateful("restore"))
        wrong = [f"{name}: this bus has no such device" for name in saved if name not in devices]
        for name, device in devices.items():
            if name not in saved:
                wrong.append(f"{name}: the state does not have this device")
            else:
                wrong += (f"{name}: {what}" for what in problems(device.STATE, saved[name]))
        if wrong:
            raise StateError("restore", wrong)
        former = {name: device.save() for name, device in devices.items()}
        try:
            for name, device in devices.items():
                device.restore(saved[name])
        except BaseException:  # of a device that has conditions beside its STATE
            for name, device in devices.items():
                device.restore(former[name])
            raise

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other threads than this one out of the devices; they wait.

        So that the devices and the machine can be saved together, once no vCPU runs::

            with bus.held():
                snapshot = vm.take_snapshot(devices=bus.save())
        """
        with ExitStack() as stack:
            for _, device in self._devices():
                if (lock := getattr(device, "lock", None)) is not None:
                    stack.enter_context(lock)
            yield

    def _devices(self) -> Iterator[tuple[str, Device]]:
        for space in self._spaces:
            yield from space.devices()

    def _stateful(self, operation: str) -> list[tuple[str, StatefulDevice]]:
        found: list[tuple[str, Any]] = list(self._devices())
        needed = ("STATE", "save", "restore")
        lacking = [
            f"{name}: it has no {' and no '.join(missing)}; a device without a state inherits them"
            " from Stateless (vmm_arch.devices.state)"
            for name, device in found
            if (missing := [name for name in needed if not hasattr(device, name)])
        ]
        if lacking:
            raise StateError(operation, lacking)
        return found

    def stop(self, reason: Reason = Reason.STOPPED, code: int | None = None) -> None:
        """End ``serve()``: the current call, or else the next one.

        ``reason`` and ``code`` go into its :class:`Ending`; the first call's reason counts. Safe in
        devices, other threads and signal handlers.
        """
        # No lock, which the thread that a signal handler interrupts could hold. The request is
        # written before the listener is read; listening() does the opposite.
        self._request = self._request or (reason, code, get_ident())
        listener = self._listener
        if listener is not None:
            listener(reason, code, get_ident())

    def pause(self, call: Callable[[], object]) -> None:
        """Have ``serve()`` stop all vCPUs, call this and go on: the current call, or else the next.

        The vCPUs have then completed their last instructions, so that the machine can be saved. The
        function is called once, in the thread of a vCPU, unless the guest ends before; if it raises
        so does ``serve()``, and if it calls :meth:`stop` the guest ends there. Safe in devices,
        other threads and signal handlers, none of which it waits for.
        """
        # No lock, as in stop().
        self.pauses.append(call)
        pauser = self._pauser
        if pauser is not None:
            pauser()

    @contextmanager
    def listening(
        self, listener: Listener, pauser: Callable[[], object] | None = None
    ) -> Iterator[None]:
        """Call ``listener`` at each :meth:`stop`, an earlier one included: reason, code, thread.

        ``pauser`` is called after each addition to ``pauses``, which are forgotten at the end. For
        ``serve()``. Raises RuntimeError if the bus already has a listener.
        """
        if self._listener is not None:
            raise RuntimeError("the bus is already being served: use one bus for each machine")
        self._listener, self._pauser = listener, pauser
        try:
            if self._request is not None:
                listener(*self._request)
            yield
        finally:
            self._listener = self._pauser = None
            self._request = None
            self.pauses.clear()


def _take_back(vm: RingingMachine[BellT_contra], doorbell: BellT_contra) -> None:
    with suppress(ClosedError):  # a machine that is closed rings no more
        vm.remove_ioeventfd(doorbell)


def _interval(numbers: range) -> str:
    return f"[{numbers.start:#x}, {numbers.stop:#x})"
