"""Clocks of a saved machine that catch up: as they would be if it had not stood still."""

from __future__ import annotations

from collections.abc import Mapping
from time import time_ns
from typing import Any, Final, TypeAlias, TypeVar

from vmm_arch.errors import StateError
from vmm_arch.state import SavedMachineState, SavedState
from vmm_arch.state_forms import Element

_MILLISECOND: Final = 1_000_000
"""In nanoseconds."""

Rates: TypeAlias = Mapping[str, Mapping[str, int]]
"""By sinks and elements: how far each counts in a millisecond."""

StateT = TypeVar("StateT", bound=SavedMachineState)


def check_time(state: SavedMachineState) -> None:
    """Raise StateError if the state does not say when it was saved."""
    if state.saved_at is None:
        raise StateError(
            "restore",
            ["it does not say when it was saved, so its clocks cannot catch up; leave that out"],
        )


def caught_up(state: StateT, of_machine: Rates, of_vcpus: Rates) -> StateT:
    """A state whose clocks have advanced by the real time since it was saved.

    One time for all of them, so that they keep in step. If the host's clock was set back since,
    none has passed.
    """
    check_time(state)
    assert state.saved_at is not None
    passed = max(time_ns() - state.saved_at, 0)
    return type(state)(
        _advanced(state, of_machine, passed),
        [type(vcpu)(_advanced(vcpu, of_vcpus, passed)) for vcpu in state.vcpus],
        state.saved_at,
    )


def _advanced(state: SavedState, rates: Rates, passed: int) -> dict[str, Any]:
    saved = dict(state._saved)
    for sink, known in rates.items():
        if saved[sink] is None:
            continue
        form = state._sinks[sink].form
        changed = {
            name: Element((value + passed * known[key] // _MILLISECOND) % (1 << bits), bits)
            for name, (value, bits) in form.elements(saved[sink]).items()
            for key in known
            if name.partition("[")[0] == key
        }
        saved[sink] = form.changed(saved[sink], changed)
    return saved
