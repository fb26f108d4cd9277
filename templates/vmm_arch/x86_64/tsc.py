"""Checks whether a hypervisor lets the time stamp counter be set."""

from __future__ import annotations

from vmm_arch.errors import HypervisorUnavailableError


def check_moved(operation: str, before: int, wanted: int, after: int) -> None:
    """Raise HypervisorUnavailableError if setting the counter to ``wanted`` had no effect.

    ``before`` and ``after`` are its values before and after. Some hypervisors accept a value, but
    give every guest the host's counter all the same.
    """
    bits = (1 << 64) - 1
    if after - wanted & bits > after - before & bits:
        cause = "this hypervisor's guests have the host's time stamp counter, which cannot be set"
        raise HypervisorUnavailableError(operation, "ENOTSUP", cause)
