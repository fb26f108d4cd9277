"""How KVM waits while a guest has nothing to do."""

from __future__ import annotations

from typing import Any

import pytest
from vmm_arch import kvm_x86_64 as kvm
from vmm_arch import whp_x86_64 as whp
from vmm_arch.abi import kvm_x86_64 as abi

EVERYTHING = ("cstate", "hlt", "mwait", "pause")


@pytest.fixture
def memory() -> kvm.GuestMemory:
    return kvm.GuestMemory(0x100000)


def test_halt_polling_can_be_changed_at_any_time(memory: Any) -> None:
    with kvm.Vm(memory, irqchip=True) as vm:
        for nanoseconds in (0, 200_000, (1 << 32) - 1):
            vm.set_halt_polling(nanoseconds)
        for wrong in (-1, 1 << 32):
            with pytest.raises(ValueError, match="from 0 to 4294967295"):
                vm.set_halt_polling(wrong)


def test_halt_polling_is_the_kernels(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with kvm.Vm(memory) as vm:
        monkeypatch.setattr(kvm, "_call", lambda *arguments: 0)
        with pytest.raises(kvm.HypervisorUnavailableError, match=r"use Linux 5\.10"):
            vm.set_halt_polling(0)
        monkeypatch.undo()


def test_exits_are_disabled_before_there_are_vcpus(memory: Any) -> None:
    refusals: list[str] = []

    def prepare(vm: Any) -> None:
        allowed = vm.ioctl(abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_X86_DISABLE_EXITS)
        names = {"mwait": 1, "hlt": 2, "pause": 4, "cstate": 8}
        can = [name for name in EVERYTHING if allowed & names[name]]
        cannot = [name for name in EVERYTHING if name not in can]
        if cannot:
            with pytest.raises(kvm.HypervisorUnavailableError) as refused:
                vm.disable_exits(EVERYTHING)
            refusals.append(str(refused.value))
            assert str(refused.value).endswith(", ".join(cannot))
        vm.disable_exits(can)
        vm.disable_exits([])
        with pytest.raises(ValueError, match="invlpg, rdtsc: there are mwait, hlt, pause, cstate"):
            vm.disable_exits(["rdtsc", "invlpg", "hlt"])

    with (
        kvm.Vm(memory, irqchip=True, prepare=prepare) as vm,
        pytest.raises(kvm.HypervisorUnavailableError, match=r"Vm\(prepare="),
    ):
        vm.disable_exits(["hlt"])


def test_whp_has_neither() -> None:
    assert {"set_halt_polling", "disable_exits"} <= whp.UNSUPPORTED.keys()
