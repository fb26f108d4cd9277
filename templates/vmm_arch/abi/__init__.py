"""The raw ABIs, one module for each hypervisor and CPU; every one imports on every system."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

Prototypes = Mapping[str, tuple[Any, list[Any]]]
"""For each function its result type (None for void) and its argument types."""


def declare(library: ctypes.CDLL, prototypes: Prototypes) -> frozenset[str]:
    """Set the types of a loaded library's functions, and return the names of missing functions.

    An older library lacks newer functions; the caller decides whether that matters. ::

        declare(ctypes.WinDLL("WinHvPlatform.dll"), whp_x86_64.PROTOTYPES["winhvplatform.h"])
    """
    missing = set()
    for name, (result, arguments) in prototypes.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            missing.add(name)
        else:
            function.restype, function.argtypes = result, arguments
    return frozenset(missing)
