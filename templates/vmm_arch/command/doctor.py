"""``vmm-arch doctor``: what this host can do, what is missing, and how to get it."""

from __future__ import annotations

import platform
import sys
from time import perf_counter

from vmm_arch.command import backends
from vmm_arch.command.cpu import Cpu
from vmm_arch.command.messages import report_error
from vmm_arch.errors import HypervisorError
from vmm_arch.protocols.common import Backend
from vmm_arch.report import Check, Report


def examine() -> list[Report]:
    """Probe each backend for this processor, and run a test guest on each that works."""
    reports = []
    for name in backends.hypervisors():
        arch = backends.backend(name)
        report = arch.probe()
        if report:
            report = Report(report.hypervisor, (*report.checks, *_try_guests(arch, backends.cpu())))
        reports.append(report)
    return reports


def _try_guests(arch: Backend, cpu: Cpu) -> list[Check]:
    """Check that a guest runs and, if so, whether an operating system can."""
    checks = [_run_a_guest(arch, cpu)]
    if checks[0].available:
        checks.append(cpu.operating_system(arch))
    return checks


def _run_a_guest(arch: Backend, cpu: Cpu) -> Check:
    start = perf_counter()
    try:
        seen = cpu.run_small_guest(arch)
    except HypervisorError as error:
        return Check("a guest", False, str(error))
    took = (perf_counter() - start) * 1e3
    if seen != cpu.SMALL_GUEST_EXITS:
        return Check("a guest", False, f"unexpected exits {' and '.join(seen)}: please report this")
    return Check("a guest", True, f"created, ran and halted in {took:.1f} ms")


def doctor() -> int:
    """Print the reports; return 0 if any hypervisor works here, else 1."""
    print(f"Python {platform.python_version()}, {platform.system()} {platform.release()}")
    try:
        reports = examine()
    except backends.MissingPartError as error:
        report_error("doctor", error)
        return 1
    for report in reports:
        print(report)
    if not reports:
        print(f"vmm-arch has no backend for {backends.processor()} yet", file=sys.stderr)
    return 0 if any(reports) else 1
