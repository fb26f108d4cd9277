"""The raw ABIs, one module for each hypervisor and CPU; every one imports on every system."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

Prototypes = Mapping[str, tuple[Any, list[Any]]]
"""For each function its result type (None for void) and its argument types."""


def declare(library: ctypes.CDLL, prototypes: Prototypes) -> frozenset[str]:
    """Give the functions of a loaded library their types, and return the names that it lacks.

    An older library lacks newer functions: that is for the caller to judge. ::

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
