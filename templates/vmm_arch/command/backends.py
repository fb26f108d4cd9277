"""Chooses the backend for a command: by hypervisor name, or the default of this system."""

from __future__ import annotations

import argparse
import importlib
import sys
import sysconfig
from importlib.util import find_spec
from typing import Any, Final, cast

from vmm_arch.command.cpu import Cpu
from vmm_arch.command.table import BACKENDS
from vmm_arch.protocols.common import Backend
from vmm_arch.selftest.play import Suite


class MissingPartError(ValueError):
    """A module that each processor needs does not exist for this one."""


_OTHER_NAMES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
"""Windows' names for processors, and the usual ones."""


def hypervisors() -> dict[str, str]:
    """The backends for this processor by hypervisor name, this system's default first."""
    systems = BACKENDS.get(processor(), {})
    present = [name for name in systems if find_spec(_module(name)) is not None]
    return {
        name: _module(name)
        for name in sorted(present, key=lambda name: systems[name] != sys.platform)
    }


def default_hypervisor() -> str:
    """The default hypervisor of this system."""
    known = (name for names in BACKENDS.values() for name in names)
    return next(iter(hypervisors() or known), "none")


def processor() -> str:
    """The processor that this Python was built for, which the host may only emulate."""
    name = sysconfig.get_platform().rpartition("-")[2]
    return _OTHER_NAMES.get(name, name)


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--hypervisor``."""
    default = default_hypervisor()
    parser.add_argument(
        "--hypervisor",
        choices=sorted({default, *(name for names in BACKENDS.values() for name in names)}),
        default=default,
        help="the hypervisor to use (default: %(default)s)",
    )


def backend(hypervisor: str) -> Backend:
    """Import a hypervisor's backend for this processor; raises ValueError if there is none."""
    names = hypervisors()
    if hypervisor not in names:
        there = f"there is {', '.join(names)}" if names else "there is none for this processor"
        raise ValueError(f"vmm-arch has no backend for {hypervisor} on {processor()}; {there}")
    return cast(Backend, importlib.import_module(names[hypervisor]))


def backend_of_file(name: str) -> Any:
    """Import the backend that a file names, of any processor; raises ValueError if there is none.

    Its states and snapshots can be looked at on every host.
    """
    known = {f"{hypervisor}_{cpu}" for cpu, names in BACKENDS.items() for hypervisor in names}
    if name not in known or find_spec(f"vmm_arch.{name}") is None:
        raise ValueError(f"vmm-arch has no backend {name[:40]!r}")
    return importlib.import_module(f"vmm_arch.{name}")


def cpu() -> Cpu:
    """The commands' part for this processor; raises MissingPartError if there is none."""
    name = f"vmm_arch.command.{processor()}"
    if find_spec(name) is None:
        raise MissingPartError(f"vmm-arch has no commands for {processor()}: no module {name}")
    return cast(Cpu, importlib.import_module(name))


def suite() -> Suite:
    """The self-test's scenarios for this processor; raises MissingPartError if there are none."""
    if find_spec(f"vmm_arch.selftest.{processor()}") is None:
        raise MissingPartError(f"vmm-arch has no scenarios for {processor()}")
    return Suite(processor())


def _module(hypervisor: str) -> str:
    return f"vmm_arch.{hypervisor}_{processor()}"
