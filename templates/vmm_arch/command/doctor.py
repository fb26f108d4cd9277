"""``vmm-arch doctor``: what this host can do, what is missing, and how to get it."""

from __future__ import annotations

import platform
import sys
from time import perf_counter

from vmm_arch.command import backends
from vmm_arch.errors import HypervisorError
from vmm_arch.protocols.x86_64 import AnyVcpu, Backend
from vmm_arch.report import Check, Report
from vmm_arch.x86_64.entry import RealMode
from vmm_arch.x86_64.instructions import missing_instructions

# mov al, 0x2a; out 0xe9, al; hlt
_GUEST = b"\xb0\x2a\xe6\xe9\xf4"


def examine() -> list[Report]:
    """Probe each backend for this processor, and run a test guest on each that works."""
    reports = []
    for name in backends.hypervisors():
        arch = backends.backend(name)
        report = arch.probe()
        if report:
            report = Report(report.hypervisor, (*report.checks, *_try_guests(arch)))
        reports.append(report)
    return reports


def _try_guests(backend: Backend[AnyVcpu]) -> list[Check]:
    """Check that a guest runs and, if so, whether an operating system can."""
    checks = [_run_a_guest(backend)]
    if checks[0].available:
        checks.append(operating_system(backend))
    return checks


def operating_system(backend: Backend[AnyVcpu]) -> Check:
    """Check that the hypervisor executes the instructions that every operating system needs."""
    name = "an operating system"
    missing = missing_instructions(backend)
    if not missing:
        return Check(name, True, "the hypervisor executes the instructions that it needs")
    detail = (
        f"this hypervisor cannot execute {', '.join(missing)}, so a kernel crashes during boot;"
        " use a host with hardware virtualization (VMX or SVM)"
    )
    return Check(name, False, detail, required=False)


def _run_a_guest(backend: Backend[AnyVcpu]) -> Check:
    start = perf_counter()
    try:
        with backend.GuestMemory(0x10000) as memory, backend.Vm(memory) as vm:
            memory.write(0x1000, _GUEST)
            backend.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
            seen = [repr(vm.vcpus[0].run()) for _ in range(2)]
    except HypervisorError as error:
        return Check("a guest", False, str(error))
    took = (perf_counter() - start) * 1e3
    if seen != ["IoOut(port=0xe9, data=b'*', size=1)", "Halt()"]:
        return Check("a guest", False, f"unexpected exits {' and '.join(seen)}: please report this")
    return Check("a guest", True, f"created, ran and halted in {took:.1f} ms")


def doctor() -> int:
    """Print the reports; return 0 if any hypervisor works here, else 1."""
    print(f"Python {platform.python_version()}, {platform.system()} {platform.release()}")
    reports = examine()
    for report in reports:
        print(report)
    if not reports:
        print(f"vmm-arch has no backend for {backends.processor()} yet", file=sys.stderr)
    return 0 if any(reports) else 1
