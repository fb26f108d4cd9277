"""What needs each rule of ORDER: guests whose state gets lost in another order. No test framework needed.

``python3 order_scenarios.py HYPERVISOR 'RULE=MODULE' ...`` plays the scenario of each rule on the backend,
and on a mutant of it, a module in the same folder, which must lose something. It prints what came of both.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any, TypeAlias

from vmm_arch.abi import kvm_x86_64 as kvm_abi
from vmm_arch.errors import HypervisorUnavailableError, StateError
from vmm_arch.x86_64.cpuid import CpuidEntry
from vmm_arch.x86_64.entry import Protected32, RealMode
from vmm_arch.x86_64.platform.memory_map import GuestMemory

Scenario: TypeAlias = Callable[[Any], None]
"""Uses a backend; raises AssertionError or StateError if state gets lost."""


def machine(arch: Any, memory: GuestMemory, **arguments: Any) -> Any:
    vm = arch.Vm(memory, **arguments)
    entry = RealMode(0x1000)
    for vcpu in vm.vcpus:
        arch.configure_vcpu(vcpu, entry)
    return vm


def latched(arch: Any, memory: GuestMemory) -> Any:
    """A machine whose first vCPU has sent INIT and SIPI to the second, which does not run."""
    code = bytes.fromhex(
        "c7 05 10 03 e0 fe 00 00 00 01"  # mov dword ptr [0xfee00310], 1 << 24
        "c7 05 00 03 e0 fe 00 45 00 00"  # mov dword ptr [0xfee00300], 0x4500
        "c7 05 00 03 e0 fe 11 46 00 00"  # mov dword ptr [0xfee00300], 0x4611
        "e6 10"
    )
    memory.write(0x10000, code)
    vm = arch.Vm(memory, vcpus=2, irqchip=True)
    entry = Protected32(0x10000)
    arch.configure_system(vm, entry)
    for vcpu in vm.vcpus:
        arch.configure_vcpu(vcpu, entry)
    lapic = vm.vcpus[1].get_lapic()
    lapic[0x370] = 0x100FE  # LVT error: masked, and with a vector that INIT clears
    vm.vcpus[1].set_lapic(lapic)
    vm.vcpus[0].run()
    return vm


def a_latched_sipi_is_read_once(arch: Any) -> None:
    with GuestMemory(0x100000) as memory, latched(arch, memory) as vm:
        first = vm.vcpus[1].save()
        assert not first.diff(vm.vcpus[1].save())
        assert first["cs.selector"] == 0x1100


def a_latched_sipi_does_not_survive_a_reset(arch: Any) -> None:
    with GuestMemory(0x100000) as memory, latched(arch, memory) as vm:
        arch.reset_vcpu(vm.vcpus[1], RealMode(0x1000))
        assert vm.vcpus[1].get_sregs().cs.selector == 0xF000


def an_apic_leaves_x2apic_mode(arch: Any) -> None:
    with GuestMemory(0x100000) as memory, machine(arch, memory, irqchip=True) as vm:
        vcpu = vm.vcpus[0]
        plain = vcpu.save().replace({"APIC_LDR": 0x3000000, "APIC_SVR": 0x1FF})
        extended = plain.replace({"apic_base": 0xFEE00D00, "APIC_LDR": 1, "APIC_DFR": 0xFFFFFFFF})
        vcpu.restore(extended)
        vcpu.restore(plain)
        assert vcpu.save()["APIC_LDR"] == 0x3000000


def a_pending_exception_stays(arch: Any) -> None:
    def with_payload(vm: Any) -> None:
        payload = kvm_abi.kvm_enable_cap(cap=kvm_abi.KVM_CAP_EXCEPTION_PAYLOAD)
        payload.args[0] = 1
        vm.ioctl(kvm_abi.KVM_ENABLE_CAP, payload)

    with (
        GuestMemory(0x100000) as memory,
        machine(arch, memory, prepare=with_payload) as vm,
    ):
        vcpu = vm.vcpus[0]
        fault = {
            "events.exception.pending": 1,
            "events.exception.nr": 14,
            "events.exception.has_error_code": 1,
            "events.exception.error_code": 2,
            "events.exception_has_payload": 1,
            "events.exception_payload": 0x1234,
        }
        vcpu.restore(vcpu.save().replace(fault))
        assert vcpu.save()["events.exception.pending"] == 1


def with_deadlines(arch: Any) -> list[CpuidEntry]:
    """CPUID with the deadline mode of the local APIC's timer."""
    return [replace(e, ecx=e.ecx | (e.function == 1) << 24) for e in arch.supported_cpuid()]


DEADLINE = {"APIC_SVR": 0x1FF, "APIC_LVT_TIMER": 0x40040}


def a_deadline_is_set_in_its_mode(arch: Any) -> None:
    with (
        GuestMemory(0x100000) as memory,
        machine(arch, memory, irqchip=True, cpuid=with_deadlines(arch)) as vm,
    ):
        vcpu = vm.vcpus[0]
        state = vcpu.save()
        ahead = state["tsc"] + 100 * vcpu.get_tsc_khz() * 1000
        vcpu.restore(state.replace({**DEADLINE, "IA32_TSC_DEADLINE": ahead}))
        assert vcpu.save()["IA32_TSC_DEADLINE"] == ahead


def a_deadline_has_not_passed_yet(arch: Any) -> None:
    with (
        GuestMemory(0x100000) as memory,
        machine(arch, memory, irqchip=True, cpuid=with_deadlines(arch)) as vm,
    ):
        memory.write(0x1000, bytes.fromhex("e6 10 eb fc"))  # out 0x10, al; again
        vcpu = vm.vcpus[0]
        state = vcpu.save()
        hertz = vcpu.get_tsc_khz() * 1000
        ahead = state.replace({**DEADLINE, "IA32_TSC_DEADLINE": state["tsc"] + hertz // 2})
        time.sleep(2)
        vcpu.restore(ahead)
        vcpu.run()
        assert vcpu.get_lapic()[0x220] & 1 == 0


def counters_are_as_far_apart(arch: Any) -> None:
    with GuestMemory(0x100000) as memory, machine(arch, memory, vcpus=2, irqchip=True) as vm:
        state = vm.save()
        before = [value for name, value in state.elements.items() if name.startswith("tsc")]
        for _ in range(3):
            vm.restore(state)
        after = [v for name, v in vm.save().elements.items() if name.startswith("tsc")]
        apart = (after[1] - after[0]) - (before[1] - before[0])
        assert abs(apart) <= LEAST_APART[arch.VmState._backend]


LEAST_APART = {"kvm_x86_64": 0, "whp_x86_64": 20_000}
"""On KVM offsets are compared; on WHP counters that were read one after the other."""


def registers_by_name_count(arch: Any) -> None:
    with GuestMemory(0x100000) as memory, machine(arch, memory) as vm:
        state = vm.vcpus[0].save().replace({"xmm3": 0x1234})
        vm.vcpus[0].restore(state)
        assert bytes(vm.vcpus[0].get_fpu().xmm[3])[:2] == b"\x34\x12"


SCENARIOS: dict[tuple[str, str], Scenario] = {
    ("kvm", "write activity before sregs"): a_latched_sipi_does_not_survive_a_reset,
    ("kvm", "write sregs before lapic"): an_apic_leaves_x2apic_mode,
    ("kvm", "write regs before events"): a_pending_exception_stays,
    ("kvm", "write lapic before msrs"): a_deadline_is_set_in_its_mode,
    ("kvm", "write tsc before msrs"): a_deadline_has_not_passed_yet,
    ("kvm", "read activity before sregs"): a_latched_sipi_is_read_once,
    ("kvm", "read activity before regs"): a_latched_sipi_is_read_once,
    ("kvm", "read activity before lapic"): a_latched_sipi_is_read_once,
    ("kvm", "write vcpus before counters"): counters_are_as_far_apart,
    ("whp", "write xsave before registers"): registers_by_name_count,
    ("whp", "write registers before lapic"): an_apic_leaves_x2apic_mode,
    ("whp", "write lapic before deadline"): a_deadline_is_set_in_its_mode,
    ("whp", "write tsc before deadline"): a_deadline_has_not_passed_yet,
    ("whp", "write vcpus before counters"): counters_are_as_far_apart,
}
"""What needs each rule."""
NEED_THE_COUNTER = (a_deadline_has_not_passed_yet, counters_are_as_far_apart)
"""What shows something only where the guest's time stamp counter can be set."""


def counter_can_be_set(arch: Any) -> bool:
    """Not where guests have the host's, as on a KVM in software, which also serves the stand-in."""
    with GuestMemory(0x100000) as memory, machine(arch, memory) as vm:
        try:
            arch.reset_vcpu(vm.vcpus[0], RealMode(0x1000), tsc=0)
        except HypervisorUnavailableError:
            return False
    return True


def needs(hypervisor: str, rule: str, arch: Any) -> bool:
    """Whether a rule makes a difference on this host."""
    return SCENARIOS[hypervisor, rule] not in NEED_THE_COUNTER or counter_can_be_set(arch)


def lost(scenario: Scenario, arch: Any) -> str:
    """What gets lost on a backend; empty if nothing does."""
    try:
        scenario(arch)
    except (AssertionError, StateError) as error:
        return str(error) or "what the scenario looks for"
    return ""


def main(hypervisor: str, pairs: list[str]) -> None:
    arch = import_module(f"vmm_arch.{hypervisor}_x86_64")
    for pair in pairs:
        rule, _, mutant = pair.partition("=")
        scenario = SCENARIOS[hypervisor, rule]
        for name, module in ("right", arch), ("wrong", import_module(mutant)):
            print(f"{rule}, {name}: {lost(scenario, module) or 'kept'}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
