"""A snapshot: a whole machine at one moment, from which machines are made that go on from there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Self

from vmm_arch.added_memory import added_problems
from vmm_arch.dirty import WrittenMemory
from vmm_arch.errors import ClosedError, HypervisorError, SnapshotError, StateError
from vmm_arch.host_writes import Range
from vmm_arch.snapshot import file, pickled, record
from vmm_arch.snapshot.image import MemoryImage
from vmm_arch.snapshot.record import Configuration, Processor, Record
from vmm_arch.state import SavedMachineState, other_facts


class MachineSnapshot:
    """A machine's state and memory at one moment; made by ``vm.take_snapshot()``, or of a file.

    A backend's class ``Snapshot`` adds what its machines are. A snapshot does not depend on the
    machine that it came from, never changes, and may be used by several threads. Its memory costs
    what is not zero; the machines forked from it share that until they write. ::

        with arch.Vm(memory) as vm:
            ...
            snapshot = vm.take_snapshot()
        with snapshot.fork() as vm:
            vm.vcpus[0].run()
        snapshot.save("machine.snapshot")
        snapshot = arch.Snapshot.load("machine.snapshot")

    Other processes get it pickled: see :meth:`__reduce__`.

    An increment, ``vm.take_snapshot(base=snapshot)``, has the memory that was written since its base,
    and is a snapshot like others. Its base may be closed before it, and is needed to load its file.
    """

    __slots__ = (
        "_digest",
        "_fits_host",
        "_host",
        "_path",
        "_was_taken",
        "base",
        "configuration",
        "devices",
        "memory",
        "state",
    )
    _vm: ClassVar[Callable[..., Any]]
    _guest_memory: ClassVar[Callable[..., Any]]
    _machine_state: ClassVar[type[SavedMachineState]]
    _requests: ClassVar[tuple[str, ...]] = ()
    """The names of the CPU's own arguments."""
    _facts: ClassVar[str]
    """The digest of the facts that the state's records are made of."""
    _cpu: ClassVar[Processor]
    _host_now: ClassVar[Callable[..., Any]]
    """Asks the hypervisor what it can give a guest."""

    configuration: Configuration
    state: SavedMachineState
    memory: MemoryImage
    devices: Mapping[str, Any]
    """What the caller says of its devices, by their names: values that JSON has."""
    base: MachineSnapshot | None
    """What it is an increment of."""
    _host: Any
    """The host that it was taken on; None if that could not be asked."""
    _digest: str | None
    """That of its file, once somebody wanted to know."""
    _fits_host: bool
    """Whether this host can give its machines what they need; False until that was looked at."""
    _was_taken: bool
    """Whether a machine of this host has taken the state, which then is not checked again."""
    _path: str | None
    """Where it was saved, or loaded from."""

    def __init__(
        self,
        configuration: Configuration,
        state: SavedMachineState,
        memory: MemoryImage,
        devices: Mapping[str, Any],
        *,
        base: MachineSnapshot | None = None,
        host: Any = None,
    ) -> None:
        self.configuration = configuration
        self.state = state
        self.memory = memory
        self.devices = devices
        self.base = base
        self._host = host
        self._digest = self._path = None
        self._fits_host = host is None
        self._was_taken = False

    @classmethod
    def of(cls, vm: Any, devices: Mapping[str, Any], base: MachineSnapshot | None) -> Self:
        """Take a snapshot of a machine whose vCPUs do not run; for ``Vm.take_snapshot``."""
        written: WrittenMemory | None = vm._written
        problems = list(record.not_json(devices))
        problems += added_problems(vm.memory)
        if base is not None:
            problems += _not_known_since(base, written)
        if problems:
            raise SnapshotError("take_snapshot", problems)
        devices = json.loads(json.dumps(devices))  # the caller may change its own
        state = vm.save()
        changed: Sequence[Range] = ()
        if written is not None:  # before memory is copied: who writes meanwhile has written since
            written.note(vm._take_dirty_pages())
            changed = written.since_baseline()
        requests = {name: getattr(vm, name) for name in cls._requests}
        configuration = Configuration(
            vm.memory.regions, len(vm.vcpus), vm.irqchip, vm.track_dirty, requests
        )
        host = None
        # Where a process has one machine at a time, it may be too late to ask.
        with suppress(HypervisorError):
            host = cls._host_now()
        if base is None:
            image = MemoryImage.of(vm.memory)
        else:
            image = MemoryImage.of_written(vm.memory, changed, base.memory)
        snapshot = cls(configuration, state, image, devices, base=base, host=host)
        snapshot._fits_host = True
        if written is not None:
            written.is_like(snapshot)
        return snapshot

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        base: MachineSnapshot | None = None,
        verify: bool = False,
    ) -> Self:
        """Make a snapshot of a file that :meth:`save` wrote; the caller closes it.

        Anybody may have written the file: it is checked, and nothing in it is executed. Memory is not
        read but mapped, when machines are forked: so the file must stay as it is while the snapshot
        and its machines are in use, and what cuts it short ends the processes that use it. ``verify``
        reads it, and compares it with its checksum, which tells damage. An increment needs its
        ``base``, which may be closed afterwards.

        Raises SnapshotError, which lists everything that is wrong; OSError.
        """
        where = os.fspath(path)
        contents = file.read_file(path)
        with contents.memory as layer:
            problems: list[str] = []
            found = cls.read_header(contents.header, problems)
            if found is not None:
                made = found.configuration
                if made.size != layer.size:
                    problems.append(
                        f"has {layer.size:#x} bytes of memory, and regions of {made.size:#x}"
                    )
                problems += _wrong_base(found, base)
            if verify:
                problems += file.damage_of_memory(contents)
            if problems or found is None:
                raise file.refused(where, problems)
            image = MemoryImage(layer, base.memory if base is not None else None)
        snapshot = cls(made, found.state, image, found.devices, base=base, host=found.host)
        snapshot._digest = contents.digest
        snapshot._path = os.path.abspath(where)
        return snapshot

    @classmethod
    def read_header(cls, header: Mapping[str, Any], problems: list[str]) -> Record | None:
        """The record in a file's header, for those who want no more; None if anything is wrong."""
        backend = cls._machine_state._backend
        try:
            found = record.of_data(
                header, backend, cls._requests, cls._cpu, cls._machine_state, problems
            )
        except RecursionError:
            problems.append("lies too deep in itself to be read")
            return None
        if found is None and header.get("facts", cls._facts) != cls._facts:
            problems.append(other_facts(backend))
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file, which appears whole or not at all, in place of an old one.

        It is as large as memory, but pages of zeros are holes, and take no space where files have
        them. An increment's file has what was written since its base, and knows that by its digest.
        Raises SnapshotError, OSError; ClosedError.
        """
        top = self.memory.top
        self._digest = file.write_file(path, self._header(), top)
        self._path = os.path.abspath(os.fspath(path))

    @property
    def digest(self) -> str:
        """The SHA-256 that names it in its file and in its increments' files.

        Unless it was saved or loaded, all of its memory is read for that. Raises ClosedError, OSError.
        """
        if self._digest is None:
            self._digest = file.digest_of(self._header(), self.memory.top)
        return self._digest

    def _header(self) -> dict[str, Any]:
        base = self.base.digest if self.base is not None else None
        found = Record(self.configuration, self.state, self.devices, self._host, base)
        return record.as_data(found, self._machine_state._backend, self._facts, self._cpu)

    def fork(
        self,
        *,
        catch_up: bool = False,
        track_dirty: bool | None = None,
        device: int | None = None,
        prepare: Callable[[Any], object] | None = None,
    ) -> Any:
        """Create a machine that goes on where the snapshot was taken; the caller closes it.

        Its memory is the snapshot's until it is written, and is freed with the machine. The first
        machine is compared with the state; those after it are only given it. What the
        snapshot does not have is made again by the caller: devices, and what ``prepare`` did.
        ``track_dirty`` is as in the machine that the snapshot came from unless it is given;
        ``device`` and ``prepare`` are those of ``Vm``. The guest's clocks go on where they were, or
        with ``catch_up`` by the real time since, as in ``Vm.restore``.

        Raises StateError if this host cannot have the state, HypervisorError, OSError.
        """
        if self.memory.closed:
            raise ClosedError("the snapshot is closed")
        self._check_host(device)
        made = self.configuration
        memory = self.memory.map(self._guest_memory, made.regions)
        try:
            vm = self._vm(
                memory,
                vcpus=made.vcpus,
                irqchip=made.irqchip,
                track_dirty=made.track_dirty if track_dirty is None else track_dirty,
                device=device,
                prepare=prepare,
                **made.requests,
            )
        except BaseException:
            memory.close()  # again, unless it was created and closed
            raise
        try:
            if vm._written is not None:
                vm._written.begin(self)
            if self._was_taken and prepare is None:
                vm._restore_known(self.state, catch_up)
            else:
                vm.restore(self.state, catch_up=catch_up)
                self._was_taken = self._was_taken or prepare is None
        except BaseException:
            vm.close()
            raise
        return vm

    def _check_host(self, device: int | None) -> None:
        """Raise StateError if the machine has what only its former host can give."""
        if self._fits_host:
            return
        with suppress(HypervisorError):  # as above; then the hypervisor has the last word
            present = self._host_now(device=device)
            if lacking := self._cpu.lacking(self.configuration.requests, self._host, present):
                raise StateError("fork", lacking)
            self._fits_host = True

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it: the path of its file, or without one all that it has, if that is not too much.

        So workers, of :mod:`multiprocessing` or any :class:`concurrent.futures.Executor`, make
        machines from it. As ever, unpickle only what comes from whom you trust; a file may come from
        anybody. Raises SnapshotError, ClosedError.
        """
        return pickled.reduce(self)

    def close(self) -> None:
        """Free the snapshot's memory, once nothing shares it any more: machines, and increments."""
        self.memory.close()

    def __enter__(self) -> Self:
        """Return the snapshot itself."""
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        made = self.configuration
        state = "closed" if self.memory.closed else f"{made.size:#x} bytes of memory"
        return f"<snapshot of {self.state._backend}: {state}, {made.vcpus} vCPUs>"


def _not_known_since(base: MachineSnapshot, written: WrittenMemory | None) -> Iterator[str]:
    if written is None:
        yield "base: the machine was created without track_dirty; take a whole snapshot"
    elif written.baseline is not base:
        yield (
            "base: not the snapshot that the machine was last forked from or reset to, nor its last"
            " one, so that nobody knows what was written since; take a whole snapshot"
        )
    if base.memory.closed:
        yield "base: the snapshot is closed"


def _wrong_base(found: Record, base: MachineSnapshot | None) -> list[str]:
    if found.base is None:
        return [] if base is None else ["is no increment; give no base"]
    if base is None:
        return [f"is an increment; give as base the snapshot with the digest {found.base}"]
    if base.digest != found.base:
        return [
            f"is an increment of the snapshot with the digest {found.base}; this base has {base.digest}"
        ]
    if base.configuration.regions != found.configuration.regions:
        return ["has other regions of memory than its base"]
    return []
