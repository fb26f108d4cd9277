"""``vm.reset_to(snapshot)``: a machine as it was, by writing back only what may have changed.

Of memory that is what the guest has written, as its hypervisor says, and what the host has; of the
state what a guest can change without the hypervisor telling. What a reset needs is laid out once,
as a *plan*, of which a machine has that of its last reset: the first reset to a snapshot compares
all of memory and restores the state as :meth:`Vm.restore` does, the next ones are quick.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from vmm_arch.added_memory import added_problems
from vmm_arch.dirty import not_tracked
from vmm_arch.errors import ClosedError, StateError
from vmm_arch.host_writes import Range
from vmm_arch.lifecycle import IDLE, UNFINISHED
from vmm_arch.memory import Region
from vmm_arch.snapshot.image import Extent, MemoryImage
from vmm_arch.snapshot.snapshot import MachineSnapshot

_NEITHER: Final = object()
"""What memory is like while it is made like another snapshot."""
Prepared = Mapping[str, Any]
"""By sink, what a reset writes; None for what it does not."""


@dataclass(frozen=True)
class ResetCalls:
    """What a backend knows of resets: generated from its tables of state."""

    read: Callable[[Any], Any]
    """Reads the state of a machine as it is."""
    prepare_vcpu: Callable[[Any, Any, frozenset[str]], dict[str, Any]]
    """Lays out a vCPU's state, but for some sinks."""
    prepare_vm: Callable[[Any, Any, frozenset[str]], dict[str, Any]]
    reset: Callable[[Any, Prepared, Sequence[Prepared]], None]
    """Writes what was laid out, of the machine and its vCPUs."""
    groups: Mapping[str, tuple[str, ...]]
    """The groups of the vocabulary that a sink has."""
    clocks: frozenset[str]
    """The sinks that are clocks."""


@dataclass(frozen=True)
class ResetPlan:
    """How a machine is reset to a snapshot."""

    snapshot: MachineSnapshot
    clocks: bool
    unchanged: frozenset[str]
    image: memoryview
    """All memory, to be read."""
    vm: Prepared
    vcpus: Sequence[Prepared]


def reset_machine(
    vm: Any, snapshot: MachineSnapshot, clocks: bool, unchanged: frozenset[str], calls: ResetCalls
) -> None:
    """Reset a machine; for ``Vm.reset_to``, which says how."""
    written, plan = vm._written, vm._reset_plan
    if written is None:
        raise not_tracked("reset_to")
    vm._check_stopped()
    same = plan is not None and plan.snapshot is snapshot
    if not same or plan.clocks != clocks or plan.unchanged != unchanged or snapshot.memory.closed:
        plan = _plan(vm, snapshot, bool(clocks), unchanged, calls)
    for vcpu in vm.vcpus:
        state = vcpu._state
        if state != IDLE and state != UNFINISHED:
            vcpu._discard_pending()  # may write memory
        vcpu._state = UNFINISHED
        vcpu._fresh = False
    changed: Sequence[Range] | None = None
    if written.baseline is snapshot:
        changed = written.changed(vm._take_dirty_pages())
        vm.memory.put_back(plan.image, changed)
    else:
        _make_alike(vm, plan)
        if not same:
            _restore(vm, snapshot)
    calls.reset(vm, plan.vm, plan.vcpus)
    # MSRs may name memory that the hypervisor writes when it is given them.
    if pages := vm._take_dirty_pages():
        more = written.changed(pages)
        vm.memory.put_back(plan.image, more)
        if changed is not None:
            changed = more  # which has the former as well
    written.is_like(snapshot, forget_guests=True)
    vm._reset_plan = plan
    for vcpu in vm.vcpus:
        vcpu._end_reset()
    for call in written.on_reset:
        call(changed)


def _plan(
    vm: Any, snapshot: MachineSnapshot, clocks: bool, unchanged: frozenset[str], calls: ResetCalls
) -> ResetPlan:
    """Look whether a machine can be reset to a snapshot, and lay out how. Changes nothing."""
    if snapshot.memory.closed:
        raise ClosedError("the snapshot is closed")
    named = {group for groups in calls.groups.values() for group in groups}
    if unknown := sorted(unchanged - named):
        raise ValueError(
            f"unchanged: no such group: {', '.join(map(repr, unknown))};"
            f" the groups are {', '.join(sorted(named))}"
        )
    if problems := list(_unfit(vm, snapshot)) or snapshot.state.unfit_for(calls.read(vm)):
        raise StateError("reset_to", problems)
    left_out = {sink for sink, groups in calls.groups.items() if unchanged.issuperset(groups)}
    if not clocks:
        left_out |= calls.clocks
    out = frozenset(left_out)
    states = snapshot.state.vcpus
    return ResetPlan(
        snapshot,
        clocks,
        unchanged,
        _readable(snapshot.memory, vm.memory.regions),
        calls.prepare_vm(vm, snapshot.state, out),
        [calls.prepare_vcpu(vcpu, s, out) for vcpu, s in zip(vm.vcpus, states, strict=True)],
    )


def _unfit(vm: Any, snapshot: MachineSnapshot) -> Iterable[str]:
    """How a machine was made otherwise than the one that a snapshot is of."""
    made = snapshot.configuration
    present = {
        "regions": vm.memory.regions,
        "vcpus": len(vm.vcpus),
        "irqchip": vm.irqchip,
        **{name: getattr(vm, name) for name in made.requests},
    }
    wanted = {"regions": made.regions, "vcpus": made.vcpus, "irqchip": made.irqchip}
    for name, value in {**wanted, **made.requests}.items():
        if present[name] != value:
            shown = f": {value}, and not {present[name]}" if name in wanted else ""
            yield f"the snapshot is of a machine with other {name}{shown}"
    yield from added_problems(vm.memory)
    if vm.memory.holders > 1:
        yield f"memory is mapped into {vm.memory.holders} machines, and each tracks only its own guest"


def _readable(image: MemoryImage, regions: Iterable[Region]) -> memoryview:
    """Map all memory of an image to be read."""
    whole = image.whole
    offset = whole.offset - whole.offset % mmap.ALLOCATIONGRANULARITY
    size = whole.offset - offset + whole.size
    if sys.platform == "win32":
        mapping = mmap.mmap(whole.descriptor, size, access=mmap.ACCESS_READ, offset=offset)
    else:
        mapping = mmap.mmap(whole.descriptor, size, prot=mmap.PROT_READ, offset=offset)
    return memoryview(mapping)[whole.offset - offset :]


def _make_alike(vm: Any, plan: ResetPlan) -> None:
    """Write memory that is like another snapshot, or like none that is known."""
    changed = vm._written.changed(vm._take_dirty_pages())
    differing = _differing(vm._written.baseline, plan.snapshot)
    vm._written.baseline = _NEITHER
    if differing is None:
        vm.memory.overwrite(plan.image)
        return
    vm.memory.put_back(plan.image, changed)
    vm.memory.put_back(plan.image, _addresses(differing, vm.memory.regions))


def _differing(baseline: object, snapshot: MachineSnapshot) -> list[Extent] | None:
    """Where two snapshots' memory may differ; None if nothing is known of that."""
    mine, its = _lineage(snapshot), _lineage(baseline)
    common = next((base for base in mine if any(base is other for other in its)), None)
    if common is None:
        return None
    extents: list[Extent] = []
    for lineage in (mine, its):
        for one in lineage:
            if one is common:
                break
            if one.memory.closed:
                return None
            extents += one.memory.top.extents
    return extents


def _lineage(snapshot: object) -> list[MachineSnapshot]:
    """A snapshot, what it is an increment of, and so on."""
    found = []
    while isinstance(snapshot, MachineSnapshot):
        found.append(snapshot)
        snapshot = snapshot.base
    return found


def _addresses(extents: Iterable[Extent], regions: Iterable[Region]) -> Iterable[Range]:
    """The guest-physical addresses of extents of an image."""
    for start, end in extents:
        offset = 0
        for region in regions:
            low, high = max(start, offset), min(end, offset + region.size)
            if low < high:
                yield low - offset + region.address, high - offset + region.address
            offset += region.size


def _restore(vm: Any, snapshot: MachineSnapshot) -> None:
    """Restore the state the first time: with all that is checked then."""
    for vcpu in vm.vcpus:
        vcpu._state = IDLE
    try:
        vm.restore(snapshot.state)
    finally:
        for vcpu in vm.vcpus:
            vcpu._state = UNFINISHED
