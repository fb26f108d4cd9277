"""The time stamp counter, as hypervisors let it be set."""

from __future__ import annotations

from vmm_arch.errors import HypervisorUnavailableError


def check_moved(operation: str, before: int, wanted: int, after: int) -> None:
    """Raise HypervisorUnavailableError if the counter, set after ``before``, runs on from there.

    Some hypervisors take a value, and give every guest the host's counter all the same.
    """
    bits = (1 << 64) - 1
    if after - wanted & bits > after - before & bits:
        cause = "the guest's time stamp counter is the host's here, and cannot be set"
        raise HypervisorUnavailableError(operation, "ENOTSUP", cause)
