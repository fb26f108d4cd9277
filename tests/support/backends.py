"""The backends under test, and the fixtures with which one test serves them all.

A pytest plugin of its own, so that it also works where conftest.py cannot be read.
"""

from __future__ import annotations

import errno
import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import pytest
from requirements import require
from vcpu_state import State, kvm_scramble, kvm_state, whp_scramble, whp_state
from vmm_arch import kvm_x86_64, whp, whp_x86_64
from vmm_arch.abi import kvm_x86_64 as kvm_abi
from vmm_arch.abi import whp_x86_64 as whp_abi
from vmm_arch.abi.whp_x86_64 import PROTOTYPES
from vmm_arch.selftest.x86_64.harness import AnyBackend, AnyVcpu
from vmm_arch.x86_64.entry import RealMode
from vmm_arch.x86_64.platform.memory_map import GuestMemory
from whp.build import PLATFORM, libraries

Before: TypeAlias = Callable[[str], None]
"""Called with the name of a hypervisor call that is about to be made; may raise."""


def before_kvm_calls(patch: pytest.MonkeyPatch, before: Before) -> None:
    """Look at every ioctl but the one that enters the guest."""
    for way in ("ioctl", "ioctl_large"):
        real = getattr(kvm_x86_64, way)

        def watched(fd: int, request: int, *argument: Any, real: Any = real) -> Any:
            before(f"{request:#x}")
            return real(fd, request, *argument)

        patch.setattr(kvm_x86_64, way, watched)


def before_whp_calls(patch: pytest.MonkeyPatch, before: Before) -> None:
    """Look at every function of the platform but those that delete what others made."""
    platform = whp_x86_64.platform
    functions = cast(Mapping[str, object], PROTOTYPES["winhvplatform.h"])
    for name in functions:
        if name.startswith(("Is", "WHvDelete")) or not platform.has(name):
            continue
        real = getattr(platform, name)

        def watched(*arguments: Any, name: str = name, real: Any = real) -> Any:
            before(name)
            return real(*arguments)

        patch.setattr(platform, name, watched)


def around_kvm_entry(patch: pytest.MonkeyPatch, around: Callable[[Any], Any]) -> None:
    real = getattr(kvm_x86_64, "enter_guest")  # noqa: B009 - it is not exported
    patch.setattr(kvm_x86_64, "enter_guest", around(real))


def around_whp_entry(patch: pytest.MonkeyPatch, around: Callable[[Any], Any]) -> None:
    platform = whp_x86_64.platform
    patch.setattr(platform, "WHvRunVirtualProcessor", around(platform.WHvRunVirtualProcessor))


def ask_kvm_about_msrs(vm: Any) -> None:
    space = kvm_abi.kvm_enable_cap(cap=kvm_abi.KVM_CAP_X86_USER_SPACE_MSR)
    space.args[0] = kvm_abi.KVM_MSR_EXIT_REASON_UNKNOWN
    vm.ioctl(kvm_abi.KVM_ENABLE_CAP, space)


def ask_whp_about_msrs(vm: Any) -> None:
    exits = whp_abi.WHV_EXTENDED_VM_EXITS(X64MsrExit=1)
    vm.set_property(whp_abi.WHvPartitionPropertyCodeExtendedVmExits, exits)


@dataclass(frozen=True)
class BackendUnderTest:
    """A backend, and what a test has to know of it that its users need not."""

    prepare: Callable[[], object]
    """Makes it ready."""
    state: Callable[[AnyVcpu], State]
    """Reads all state that the hypervisor gives."""
    scramble: Callable[[AnyVcpu], None]
    """Changes state that the contract has no names for."""
    before_calls: Callable[[pytest.MonkeyPatch, Before], None]
    around_entry: Callable[[pytest.MonkeyPatch, Callable[[Any], Any]], None]
    """Replaces the call that enters the guest by what a function makes of it."""
    no_memory: Callable[[], Exception]
    """What a hypervisor call raises if the host is out of memory."""
    ask_about_msrs: Callable[[Any], object]
    """Prepares a machine whose accesses to MSRs that the hypervisor does not know are exits."""


BACKENDS = {
    "kvm_x86_64": BackendUnderTest(
        prepare=lambda: None,
        state=kvm_state,
        scramble=kvm_scramble,
        before_calls=before_kvm_calls,
        around_entry=around_kvm_entry,
        no_memory=lambda: OSError(errno.ENOMEM, "as if"),
        ask_about_msrs=ask_kvm_about_msrs,
    ),
    "whp_x86_64": BackendUnderTest(
        prepare=lambda: whp.load(libraries() / PLATFORM),  # over KVM as well
        state=whp_state,
        scramble=whp_scramble,
        before_calls=before_whp_calls,
        around_entry=around_whp_entry,
        no_memory=lambda: whp.refused("as if", 0x8007000E - (1 << 32)),
        ask_about_msrs=ask_whp_about_msrs,
    ),
}


def pytest_report_header() -> list[str]:
    """Say what a hypervisor cannot do, by name, so that nobody looks for a test of it."""
    modules = (importlib.import_module(f"vmm_arch.{name}") for name in BACKENDS)
    return [
        f"{module.__name__} has no {operation}: {reason}"
        for module in modules
        for operation, reason in module.UNSUPPORTED.items()
    ]


def backend_module(name: str) -> Any:
    """A backend's module, ready for use on this machine."""
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    BACKENDS[name].prepare()
    return importlib.import_module(f"vmm_arch.{name}")


@pytest.fixture(params=BACKENDS)
def arch(request: pytest.FixtureRequest) -> AnyBackend:
    """Each backend in turn."""
    return cast(AnyBackend, backend_module(request.param))


@pytest.fixture
def backend(arch: Any) -> BackendUnderTest:
    """What there is to know of the present backend."""
    return BACKENDS[arch.__name__.rpartition(".")[2]]


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory(0x100000) as memory:
        yield memory


Start: TypeAlias = Callable[[bytes], Any]


@pytest.fixture
def guest(arch: AnyBackend, memory: GuestMemory) -> Iterator[Start]:
    """Start real-mode code in a new machine."""
    machines = []

    def start(code: bytes) -> Any:
        vm = arch.Vm(memory)
        machines.append(vm)
        memory.write(0x1000, code)
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        return vm.vcpus[0]

    yield start
    for vm in machines:
        vm.close()
