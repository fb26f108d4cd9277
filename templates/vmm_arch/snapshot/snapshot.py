"""A snapshot: a whole machine at one moment, from which machines are made that go on from there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from vmm_arch.errors import ClosedError
from vmm_arch.memory import Region
from vmm_arch.snapshot.image import MemoryImage
from vmm_arch.state import SavedMachineState


@dataclass(frozen=True)
class Configuration:
    """How a machine was made, so that another one like it can be."""

    regions: tuple[Region, ...]
    vcpus: int
    irqchip: bool
    track_dirty: bool
    requests: Mapping[str, Any]
    """The arguments that only machines of its CPU have, such as ``cpuid``, by their names."""


class MachineSnapshot:
    """A machine's state and memory at one moment; made by ``vm.take_snapshot()``.

    A backend's class ``Snapshot`` adds what its machines are. A snapshot does not depend on the
    machine that it came from, never changes, and may be used by several threads. Its memory costs
    what is not zero; the machines forked from it share that until they write. ::

        with arch.Vm(memory) as vm:
            ...
            snapshot = vm.take_snapshot()
        with snapshot.fork() as vm:
            vm.vcpus[0].run()
    """

    __slots__ = ("configuration", "devices", "memory", "state")
    _vm: ClassVar[Callable[..., Any]]
    _guest_memory: ClassVar[Callable[..., Any]]
    _requests: ClassVar[tuple[str, ...]] = ()
    """The names of the CPU's own arguments."""

    configuration: Configuration
    state: SavedMachineState
    memory: MemoryImage
    devices: Mapping[str, Any]
    """What the caller says of its devices, by their names: values that JSON has."""

    def __init__(
        self,
        configuration: Configuration,
        state: SavedMachineState,
        memory: MemoryImage,
        devices: Mapping[str, Any],
    ) -> None:
        self.configuration = configuration
        self.state = state
        self.memory = memory
        self.devices = devices

    @classmethod
    def of(cls, vm: Any, devices: Mapping[str, Any]) -> Self:
        """Take a snapshot of a machine whose vCPUs do not run; for ``Vm.take_snapshot``."""
        state = vm.save()
        requests = {name: getattr(vm, name) for name in cls._requests}
        configuration = Configuration(
            vm.memory.regions, len(vm.vcpus), vm.irqchip, vm.track_dirty, requests
        )
        return cls(configuration, state, MemoryImage.of(vm.memory), dict(devices))

    def fork(
        self,
        *,
        track_dirty: bool | None = None,
        device: int | None = None,
        prepare: Callable[[Any], object] | None = None,
    ) -> Any:
        """Create a machine that goes on where the snapshot was taken; the caller closes it.

        Its memory is the snapshot's until it is written, and is freed with the machine. What the
        snapshot does not have is made again by the caller: devices, and what ``prepare`` did.
        ``track_dirty`` is as in the machine that the snapshot came from unless it is given;
        ``device`` and ``prepare`` are those of ``Vm``.

        Raises StateError if this host cannot have the state, HypervisorError, OSError.
        """
        if self.memory.closed:
            raise ClosedError("the snapshot is closed")
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
            vm.restore(self.state)
        except BaseException:
            vm.close()
            raise
        return vm

    def close(self) -> None:
        """Free the snapshot's memory, once the last machine that shares it is closed as well."""
        self.memory.close()

    def __enter__(self) -> Self:
        """Return the snapshot itself."""
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        size = sum(region.size for region in self.configuration.regions)
        state = "closed" if self.memory.closed else f"{size:#x} bytes of memory"
        return f"<snapshot of {self.state._backend}: {state}, {self.configuration.vcpus} vCPUs>"
