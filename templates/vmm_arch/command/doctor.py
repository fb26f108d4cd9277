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
    """Ask each backend of this processor what works, and run a guest where something does."""
    reports = []
    for name in backends.hypervisors():
        arch = backends.backend(name)
        report = arch.probe()
        if report:
            report = Report(report.hypervisor, (*report.checks, *_try_guests(arch)))
        reports.append(report)
    return reports


def _try_guests(backend: Backend[AnyVcpu]) -> list[Check]:
    """Whether guests run at all; and then, whether an operating system can."""
    checks = [_run_a_guest(backend)]
    if checks[0].available:
        checks.append(operating_system(backend))
    return checks


def operating_system(backend: Backend[AnyVcpu]) -> Check:
    """Whether instructions that an operating system cannot do without are executed here."""
    name = "an operating system"
    missing = missing_instructions(backend)
    if not missing:
        return Check(name, True, "the instructions that it needs are executed")
    detail = (
        f"this hypervisor cannot execute {', '.join(missing)}, so a kernel dies while it boots;"
        " use a host where it has hardware virtualization (VMX or SVM)"
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
        return Check("a guest", False, f"it did {' and '.join(seen)}: report this")
    return Check("a guest", True, f"was made, ran and halted in {took:.1f} ms")


def doctor() -> int:
    """Print what was found; 0 if anything works here, else 1."""
    print(f"Python {platform.python_version()}, {platform.system()} {platform.release()}")
    reports = examine()
    for report in reports:
        print(report)
    if not reports:
        print(f"vmm-arch has no backend for {backends.processor()} yet", file=sys.stderr)
    return 0 if any(reports) else 1
