"""Chooses the backend for a command: by hypervisor name, or the default of this system."""

from __future__ import annotations

import argparse
import importlib
import sys
import sysconfig
from typing import Final, cast

from vmm_arch.protocols.x86_64 import AnyVcpu, Backend

_X86_64: Final = {"kvm": "kvm_x86_64", "whp": "whp_x86_64"}
BACKENDS: Final = {"x86_64": _X86_64, "amd64": _X86_64}
"""By processor, under Linux's or Windows' name for it, then by hypervisor."""


def hypervisors() -> dict[str, str]:
    """The backends for this processor by hypervisor name, this system's default first."""
    names = BACKENDS.get(processor(), {})
    return dict(sorted(names.items(), key=lambda item: item[0] != usual()))


def usual() -> str:
    """The default hypervisor of this system."""
    return "whp" if sys.platform == "win32" else "kvm"


def processor() -> str:
    """The processor that this Python was built for, which the host may only emulate."""
    return sysconfig.get_platform().rpartition("-")[2]


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--hypervisor``."""
    parser.add_argument(
        "--hypervisor",
        choices=sorted({name for names in BACKENDS.values() for name in names}),
        default=usual(),
        help="the hypervisor to use (default: %(default)s)",
    )


def backend(hypervisor: str) -> Backend[AnyVcpu]:
    """Import a hypervisor's backend for this processor; raises ValueError if there is none."""
    names = hypervisors()
    if hypervisor not in names:
        raise ValueError(f"vmm-arch has no backend for {hypervisor} on {processor()}")
    return cast(Backend[AnyVcpu], importlib.import_module(f"vmm_arch.{names[hypervisor]}"))
