"""Restoring a whole state: all of it, or none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vmm_arch.errors import HypervisorError, StateError
from vmm_arch.state import SavedState


@dataclass
class Refusals:
    """A context in which a hypervisor's refusal is noted, so that the next write is tried as well."""

    problems: list[str] = field(default_factory=list)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> bool:
        if isinstance(error, HypervisorError):
            self.problems.append(str(error))
            return True
        return False


def restore(
    state: SavedState,
    read: Callable[[], Any],
    discard_pending: Callable[[], object],
    write: Callable[[Any, Refusals], object],
    advanced: Callable[[], Any] | None = None,
) -> None:
    """Restore a state, and check that it is there; or put the former one back and raise StateError.

    ``discard_pending`` is called before the first write. ``advanced`` returns what is written instead
    of the state: the same with clocks that have caught up by then.
    """
    if unfit := state.unfit_for(read()):
        raise StateError("restore", unfit)
    discard_pending()
    former = read()
    refusals = Refusals()
    try:
        write(state if advanced is None else advanced(), refusals)
        problems = refusals.problems
        if not problems:
            found = state._differences(read(), with_live=False)
            problems = [f"{difference}: it did not take this value" for difference in found]
    except BaseException:
        write(former, Refusals())
        raise
    if problems:
        undoing = Refusals()
        write(former, undoing)
        problems += [f"the former state could not be put back: {p}" for p in undoing.problems]
        raise StateError("restore", problems)
