"""Memory that is added to a machine which exists, and removed again; the same on every hypervisor.

Either guest memory of its own, or an *alias*: memory that is there already, at another address too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from vmm_arch.dirty import WrittenMemory
from vmm_arch.forks import ForkLock
from vmm_arch.memory import PAGE_SIZE, Annex, GuestMemory, MemoryInUseError, Region


class MappedRegion(NamedTuple):
    """A region as a machine maps it."""

    region: Region
    host: int
    """Its host address."""
    source: int
    """The guest-physical address that its first page is known by: of an alias, the original's."""


class Mapper(Protocol):
    """What is used of a machine."""

    @property
    def memory(self) -> GuestMemory: ...

    _reset_plan: Any
    _written: WrittenMemory | None

    def _map_region(self, mapped: MappedRegion) -> None: ...
    def _unmap_region(self, mapped: MappedRegion) -> None: ...
    def _take_dirty_pages(self) -> list[int]: ...
    def _check_stopped(self) -> None: ...


class _Addition(NamedTuple):
    memory: GuestMemory | None
    """None: it is an alias."""
    mapped: Sequence[MappedRegion]
    annexes: Sequence[Annex]


class AddedMemory:
    """What was added to a machine. Its methods are for any thread."""

    __slots__ = ("_additions", "_lock", "_vm")

    def __init__(self, vm: Any) -> None:
        """``vm`` is a :class:`Mapper`, if its hypervisor maps memory that late."""
        self._vm: Mapper = vm
        self._additions: list[_Addition] = []
        self._lock = ForkLock()

    def add(self, memory: GuestMemory) -> None:
        """Map all of a memory; for ``Vm.add_memory``."""
        if not isinstance(memory, GuestMemory):
            raise TypeError(f"memory: expected GuestMemory, got {type(memory).__name__}")
        with self._lock:
            problems = [*self._refusals(), *self._overlaps("add_memory", memory.regions)]
            if memory.guest_memfd or memory.has_page_source:
                problems.append(
                    "add_memory: guest_memfd and page_source are for a machine's first memory"
                )
            if problems:
                raise ValueError("\n".join(problems))
            mapped = [
                MappedRegion(region, memory.host_address(region), region.address)
                for region in memory.regions
            ]
            annexes = [
                Annex(range(region.address, region.end), memory, 0, region)
                for region in memory.regions
            ]
            memory.hold()
            try:
                self._map(_Addition(memory, mapped, annexes))
            except BaseException:
                memory.release()
                raise

    def remove(self, memory: GuestMemory) -> None:
        """Undo an add(); for ``Vm.remove_memory``."""
        with self._lock:
            for addition in self._additions:
                if addition.memory is memory:
                    break
            else:
                raise ValueError(f"remove_memory: {memory!r} was not added to the machine")
            for alias in self._additions:
                if alias.memory is None and any(one.memory is memory for one in alias.annexes):
                    shown = alias.mapped[0].region
                    raise MemoryInUseError(
                        f"remove_memory: the alias {shown} shows a part of it; remove_alias() it first"
                    )
            self._unmap(addition)
            memory.release()

    def add_alias(self, address: int, source: Region) -> Region:
        """Map a part of the memory that is there at another address; for ``Vm.add_alias``."""
        with self._lock:
            alias = Region(address, source.size, source.read_only)
            problems = [*self._refusals(), *self._overlaps("add_alias", [alias])]
            found = _found(self._vm.memory, source)
            if found is None:
                problems.append(
                    f"add_alias: {source} is not within one region of the machine's memory; make an"
                    " alias of each part"
                )
            if found is None or problems:
                raise ValueError("\n".join(problems))
            memory, start, host, read_only = found
            alias = Region(address, source.size, source.read_only or read_only)
            annex = Annex(range(address, alias.end), memory, address - start, alias)
            self._map(_Addition(None, [MappedRegion(alias, host, start)], [annex]))
            return alias

    def remove_alias(self, address: int) -> None:
        """Undo an add_alias(); for ``Vm.remove_alias``."""
        with self._lock:
            for addition in self._additions:
                if addition.memory is None and addition.mapped[0].region.address == address:
                    self._unmap(addition)
                    return
            raise ValueError(f"remove_alias: there is no alias at {address:#x}")

    def remove_all(self) -> None:
        """Let go of everything when the machine is closed."""
        with self._lock:
            while self._additions:
                addition = self._additions[-1]
                self._let_go(addition)
                if addition.memory is not None:
                    addition.memory.release()

    def _map(self, addition: _Addition) -> None:
        done: list[MappedRegion] = []
        try:
            for mapped in addition.mapped:
                self._vm._map_region(mapped)
                done.append(mapped)
        except BaseException:
            for mapped in reversed(done):
                self._vm._unmap_region(mapped)
            raise
        self._vm._reset_plan = None  # which was made without it
        self._vm.memory.annexes += tuple(addition.annexes)
        self._additions.append(addition)

    def _unmap(self, addition: _Addition) -> None:
        written = self._vm._written
        if written is not None:  # then what was written through an alias must not be lost
            self._vm._check_stopped()
            written.note(self._vm._take_dirty_pages())
        self._let_go(addition)
        if written is not None and addition.memory is not None:
            for mapped in addition.mapped:
                written.forget(range(mapped.region.address, mapped.region.end))

    def _let_go(self, addition: _Addition) -> None:
        for mapped in reversed(addition.mapped):
            self._vm._unmap_region(mapped)
        gone = addition.annexes
        memory = self._vm.memory
        memory.annexes = tuple(one for one in memory.annexes if one not in gone)
        self._additions.remove(addition)

    def _refusals(self) -> Iterator[str]:
        if (holders := self._vm.memory.holders) > 1:
            yield (
                f"the machine's memory is mapped into {holders} machines, which would seem to have"
                " this one too; give each a GuestMemory of its own"
            )

    def _overlaps(self, operation: str, regions: Sequence[Region]) -> Iterator[str]:
        for region in regions:
            for other in self._vm.memory.mapped_regions:
                if region.address < other.end and other.address < region.end:
                    yield f"{operation}: {region} overlaps {other}, which the machine has; move it"


def added_problems(memory: GuestMemory) -> Iterator[str]:
    """Why a machine with added memory has no snapshots, and cannot be reset."""
    if memory.annexes:
        added = ", ".join(str(annex.region) for annex in memory.annexes)
        yield f"memory was added to the machine, which is no part of a snapshot: {added}; remove it first"


def require_pages(operation: str, memory: GuestMemory, address: int, size: int) -> None:
    """Raise ValueError unless these are whole pages of memory that the machine has."""
    end, problem = address + size, ""
    if address % PAGE_SIZE or size % PAGE_SIZE or size < 0:
        problem = f"give whole pages of {PAGE_SIZE:#x} bytes"
    at = address
    for region in sorted(memory.mapped_regions, key=lambda region: region.address):
        if region.address <= at < region.end:
            at = region.end
    if at < end:
        problem = f"there is no memory at {at:#x}"
    if problem:
        raise ValueError(f"{operation}: [{address:#x}, {end:#x}): {problem}")


def _found(memory: GuestMemory, part: Region) -> tuple[GuestMemory, int, int, bool] | None:
    """Where a part of one region is: whose, at which of its addresses, at which of the host's.

    And whether the guest may only read it. A part of an alias is found where the original is.
    """
    start, read_only = part.address, False
    if annex := memory.annex_at(start, part.size):
        memory, start, read_only = annex.memory, start - annex.shift, annex.region.read_only
    for region in memory.regions:
        if region.address <= start and start + part.size <= region.end:
            host = memory.host_address(region) + start - region.address
            return memory, start, host, read_only or region.read_only
    return None
