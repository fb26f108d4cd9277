"""The whole state of a vCPU and a machine: saved, printed, compared, changed, stored, restored."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from backends import BackendUnderTest
from guests.assemble import assemble
from vmm_arch import kvm_x86_64, whp_x86_64
from vmm_arch.errors import (
    BusyError,
    ClosedError,
    HypervisorError,
    NotFreshError,
    StateError,
    UnansweredError,
)
from vmm_arch.lifecycle import RUNNING
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.x86_64.cpuid import CpuidEntry
from vmm_arch.x86_64.entry import Long64, RealMode
from vmm_arch.x86_64.exits import IoOut
from vmm_arch.x86_64.features import with_features
from vmm_arch.x86_64.platform.memory_map import GuestMemory
from vmm_arch.x86_64.state_forms import element_label, msr_element, msr_of_element
from vmm_arch.x86_64.vocabulary import STATE
from vmm_arch.x86_64.xsave import xsave_registers
from vmm_arch_gen.arch.hypervisor import read_hypervisor
from vmm_arch_gen.project import Project

CODE = 0x10000
RANDOM_STATES = int(os.environ.get("RANDOM_STATES", "100"))
"""How many are tried with an irqchip, and without."""
COMPUTES = Path(__file__).parents[1] / "guests/x86_64/save_restore.S"
SENDS = bytes.fromhex("b0 05 e6 10 fe c0 e6 10 f4")  # mov al, 5; out; inc al; out; hlt


@pytest.fixture
def long_mode(arch: AnyBackend) -> Iterator[Callable[[], Any]]:
    """Makes machines of one vCPU that computes for ever."""
    code = assemble(COMPUTES, CODE)
    opened: list[Any] = []

    def machine() -> Any:
        while opened:  # a process may have one at a time
            opened.pop().close()
        memory = GuestMemory(0x200000)
        memory.write(CODE, code)
        vm = arch.Vm(memory)
        opened.append(vm)
        entry = Long64(CODE)
        arch.configure_system(vm, entry)
        arch.configure_vcpu(vm.vcpus[0], entry)
        return vm

    yield machine
    for vm in opened:
        vm.close()


def exits(vcpu: Any, count: int) -> list[str]:
    """The next values that a guest sends."""
    found = []
    for _ in range(count):
        exit = vcpu.run()
        assert isinstance(exit, IoOut), exit
        found.append(f"{exit.port:#x}: {exit.value:#x}")
    return found


# Values


def test_a_state_has_every_element_by_name(guest: Callable[[bytes], Any]) -> None:
    vcpu = guest(SENDS)
    vcpu.run()
    state = vcpu.save()
    assert state["rax"] & 0xFF == 5
    assert state["rip"] == vcpu.get_regs().rip
    assert state["cs.limit"] == 0xFFFF
    assert state["fcw"] == 0x37F
    assert state["IA32_PAT"] == 0x7040600070406
    assert len(state.elements) > 300
    with pytest.raises(KeyError):
        state["no such thing"]


def test_a_state_has_the_whole_vocabulary(
    arch: AnyBackend, memory: GuestMemory, paths: Project
) -> None:
    """And so does not depend on what a kernel lists: KVM's list lacks MSRs that guests change."""
    name = vars(arch)["__name__"].rpartition(".")[2].partition("_")[0]
    hypervisor = read_hypervisor(paths.templates, name, "x86_64")
    with arch.Vm(memory, irqchip=True) as vm:
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        vcpu = vm.vcpus[0]
        known = vcpu.save().elements
        for group, elements in STATE.items():
            for element, reset in elements.items():
                index = msr_of_element(element)
                if index and isinstance(readable(vcpu, index), HypervisorError):
                    continue  # this processor has none
                if isinstance(hypervisor.slot(group, element), str):
                    name = f"{element}.base" if isinstance(reset, tuple) else element
                    assert name in known, f"{element} would be lost"


def test_every_msr_that_the_kernel_lists_is_saved(memory: GuestMemory) -> None:
    """They are found once CPUID is set: before, KVM answers that some are not there, or 0."""
    with kvm_x86_64.Vm(memory, irqchip=True) as vm:
        vcpu = vm.vcpus[0]
        known = vcpu.save().elements
        indices = vars(kvm_x86_64)["_RESTORABLE"]
        there = [i for i in indices if not isinstance(readable(vcpu, i), HypervisorError)]
        assert len(there) > 100
        assert all(msr_element(index) in known for index in there)


def readable(vcpu: Any, index: int) -> object:
    try:
        return vcpu.get_msrs([index])
    except HypervisorError as error:
        return error


def test_restoring_writes_no_wall_clock_into_memory(memory: GuestMemory) -> None:
    """KVM writes it when it is given its address, where the guest has something else by now."""
    with kvm_x86_64.Vm(memory, irqchip=True) as vm:
        vcpu = vm.vcpus[0]
        for index in (0x4B564D00, 0x11):  # the second one is the first one's old number
            vcpu.set_msrs({index: 0x3000})
            assert memory.read(0x3000, 12) != bytes(12)
            for owner in (vcpu, vm):
                memory.write(0x3000, b"\xaa" * 16)
                owner.restore(owner.save())
                assert memory.read(0x3000, 16) == b"\xaa" * 16
            with vm.take_snapshot() as snapshot, snapshot.fork() as other:
                assert other.memory.read(0x3000, 16) == b"\xaa" * 16
                assert other.vcpus[0].save()["MSR 0x4b564d00"] == 0x3000
            vcpu.set_msrs({index: 1 << 40})  # outside memory
            vm.restore(vm.save())
            memory.write(0x3000, bytes(16))


def test_memory_types_survive(vcpu: Any) -> None:
    """MTRRs were lost by other VMMs: the kernel's list leaves them out."""
    mtrrs = {
        "IA32_MTRR_PHYSBASE3": 0x80000006,
        "IA32_MTRR_PHYSMASK3": 0xFFF80000800,
        "IA32_MTRR_DEF_TYPE": 0xC06,
        "MSR 0x250": 0x0606060606060606,
    }
    known = vcpu.save()
    vcpu.restore(known.replace({n: v for n, v in mtrrs.items() if n in known.elements}))
    found = vcpu.save()
    assert [found[name] for name in mtrrs if name in known.elements] == list(mtrrs.values())


def test_a_state_prints_itself(guest: Callable[[bytes], Any]) -> None:
    state = guest(SENDS).save()
    assert repr(state).startswith("<vCPU state of ")
    assert " elements>" in repr(state)
    text = str(state)
    assert "  cr0 = 0x10 (ET)\n" in text
    assert "  rip = 0x1000\n" in text
    assert "others are 0\n" in text
    assert format(state) == text


def test_an_msr_that_is_only_a_number_has_linuxs_name_as_well(
    guest: Callable[[bytes], Any],
) -> None:
    """In text for people; names that programs use stay as they are."""
    state = guest(b"\xf4").save()
    number = next(name for name in state.elements if name.startswith("MSR ") and state[name] == 0)
    label = element_label(number)
    assert label.startswith(number)
    known = next(n for n in state.elements if n.startswith("MSR ") and element_label(n) != n)
    other = state.replace({known: state[known] ^ 2})
    (difference,) = state.diff(other)
    assert difference.name == known
    assert str(difference).startswith(f"{element_label(known)}: 0x")
    assert f"  {element_label(known)} = " in str(other if other[known] else state)
    assert f'"{known}": ' in other.to_json()
    assert element_label("MSR 0xce") == "MSR 0xce (MSR_PLATFORM_INFO)"
    assert element_label("rax") == "rax"


def test_a_difference_names_the_element_and_its_bits(guest: Callable[[bytes], Any]) -> None:
    vcpu = guest(SENDS)
    vcpu.run()
    before = vcpu.save()
    assert before.diff(vcpu.save()) == ()
    assert str(before.diff(before)) == "no differences"
    vcpu.run()
    found = before.diff(vcpu.save())
    assert {difference.name for difference in found} == {"rax", "rip", "rflags"}
    assert "rax: 0x5 -> 0x6" in str(found)
    assert "rip: 0x1004 -> 0x1008" in str(found)
    assert "(+PF)" in str(found)
    assert before != vcpu.save()
    with pytest.raises(TypeError, match="expected VcpuState, got object"):
        before.diff(object())


def test_a_changed_state_is_another_one(guest: Callable[[bytes], Any]) -> None:
    vcpu = guest(SENDS)
    state = vcpu.save()
    wide = (1 << 128) - 7
    other = state.replace({"rbx": 0x1234, "xmm3": wide, "IA32_LSTAR": 0x5678, "dr2": 9})
    assert {d.name for d in state.diff(other)} == {"rbx", "xmm3", "IA32_LSTAR", "dr2"}
    assert state["rbx"] == 0
    vcpu.restore(other)
    assert vcpu.get_regs().rbx == 0x1234
    assert bytes(vcpu.get_fpu().xmm[3]) == wide.to_bytes(16, "little")
    assert vcpu.get_msrs([0xC0000082]) == {0xC0000082: 0x5678}
    assert vcpu.get_debugregs()["dr2"] == 9


def test_what_cannot_be_changed_is_said_at_once(guest: Callable[[bytes], Any]) -> None:
    state = guest(SENDS).save()
    with pytest.raises(StateError) as caught:
        state.replace({"rbx": 1 << 64, "rcx": -1, "nonsense": 0})
    assert caught.value.problems == (
        "rbx: 0x10000000000000000 is not an unsigned 64-bit value",
        "rcx: -0x1 is not an unsigned 64-bit value",
        "nonsense: no such element",
    )
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems


def test_a_state_goes_to_json_and_back(guest: Callable[[bytes], Any], arch: AnyBackend) -> None:
    vcpu = guest(SENDS)
    vcpu.run()
    state = vcpu.save()
    text = state.to_json()
    again = arch.VcpuState.from_json(text)
    assert state.elements == again.elements
    assert again.to_json() == text
    vcpu.run()
    vcpu.restore(again)
    assert exits(vcpu, 1) == ["0x10: 0x6"]


def test_a_state_can_be_copied_and_pickled(guest: Callable[[bytes], Any]) -> None:
    state = guest(SENDS).save()
    assert pickle.loads(pickle.dumps(state)).elements == state.elements
    assert copy.deepcopy(state) == state


def change(text: str, edit: Callable[[dict[str, Any]], object]) -> str:
    data = json.loads(text)
    edit(data)
    return json.dumps(data)


def regs_of(data: dict[str, Any]) -> Any:
    """The sink that has the general registers."""
    return next(sink for sink in data["sinks"].values() if sink and "rax" in sink)


def test_everything_wrong_with_a_text_is_said_at_once(
    guest: Callable[[bytes], Any], arch: AnyBackend
) -> None:
    text = guest(SENDS).save().to_json()

    def spoil(data: dict[str, Any]) -> None:
        regs_of(data)["rax"] = "0x10000000000000000"
        regs_of(data)["rbx"] = 5
        regs_of(data)["rcx"] = "0xg"
        regs_of(data)["nonsense"] = "0x1"
        data["sinks"]["cpuid"] = []
        data["sinks"]["more"] = {}
        data["extra"] = 1
        del data["sinks"]["xsave"]

    with pytest.raises(StateError) as caught:
        arch.VcpuState.from_json(change(text, spoil))
    said = "\n".join(caught.value.problems)
    for expected in (
        "rax: 0x10000000000000000 does not fit in 64 bits",
        "rbx: 5 is not a number like 0x1f",
        "rcx: '0xg' is not a number like 0x1f",
        "nonsense: ",
        "cpuid: neither null nor a JSON object",
        "more: unknown",
        "extra: unknown",
        "xsave: missing",
    ):
        assert expected in said
    assert len(caught.value.problems) == 8


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda data: data.update(version=2), "version: 2 instead of 1"),
        (lambda data: data.update(version=True), "version: True instead of 1"),
        (lambda data: data.update(backend="kvm_aarch64"), "backend: 'kvm_aarch64' instead of "),
        (lambda data: data.update(format="x"), "format: 'x' instead of 'vmm-arch vCPU state'"),
        (lambda data: data.pop("sinks"), "sinks: missing or not a JSON object"),
    ],
)
def test_a_text_of_another_kind_is_refused(
    guest: Callable[[bytes], Any],
    arch: AnyBackend,
    edit: Callable[[dict[str, Any]], object],
    complaint: str,
) -> None:
    with pytest.raises(StateError) as caught:
        arch.VcpuState.from_json(change(guest(SENDS).save().to_json(), edit))
    (problem,) = caught.value.problems
    assert problem.startswith(complaint)


def test_a_text_may_have_other_facts_if_its_names_agree(
    guest: Callable[[bytes], Any], arch: AnyBackend
) -> None:
    state = guest(SENDS).save()
    text = state.to_json()
    for edit in (lambda data: data.update(facts="0" * 64), lambda data: data.pop("facts")):
        assert arch.VcpuState.from_json(change(text, edit)) == state  # without: older versions'

    def rename(data: dict[str, Any]) -> None:
        regs = regs_of(data)
        regs["former"] = regs.pop("rax")

    def rename_with_other_facts(data: dict[str, Any]) -> None:
        rename(data)
        data["facts"] = "0" * 64

    with pytest.raises(StateError) as same:
        arch.VcpuState.from_json(change(text, rename))
    with pytest.raises(StateError) as other:
        arch.VcpuState.from_json(change(text, rename_with_other_facts))
    assert other.value.problems[:-1] == same.value.problems
    assert other.value.problems[-1].startswith("written with other facts about ")
    with pytest.raises(StateError, match="facts: 5 is not a digest"):
        arch.VcpuState.from_json(change(text, lambda data: data.update(facts=5)))


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "null", '{"a": 1, "a": 2}', "[" * 100000])
def test_a_text_that_is_no_state_is_refused(arch: AnyBackend, text: str) -> None:
    with pytest.raises(StateError, match="from_json: "):
        arch.VcpuState.from_json(text)


def test_numbers_of_any_length_are_whole_bytes(
    guest: Callable[[bytes], Any], arch: AnyBackend
) -> None:
    def shorten(data: dict[str, Any]) -> None:
        area = data["sinks"]["xsave"]
        area["xsave.extended"] = area["xsave.extended"][:-1]

    state = guest(SENDS).save()
    with pytest.raises(StateError, match="digits are no whole number of bytes"):
        arch.VcpuState.from_json(change(state.to_json(), shorten))

    def cut(data: dict[str, Any]) -> None:
        area = data["sinks"]["xsave"]
        area["xsave.extended"] = area["xsave.extended"][:202]  # of 0x and two for each byte

    shorter = arch.VcpuState.from_json(change(state.to_json(), cut))
    assert any("xsave.extended: 800 bits" in problem for problem in shorter.unfit_for(state))


def test_damaged_texts_are_refused_or_are_states(
    guest: Callable[[bytes], Any], arch: AnyBackend
) -> None:
    """Seeded: whatever one byte becomes, there is a state or a StateError, and nothing else."""
    text = guest(SENDS).save().to_json()
    numbers = random.Random(20)
    refused = 0
    for _ in range(60):
        at = numbers.randrange(len(text))
        damaged = text[:at] + chr(numbers.randrange(1, 128)) + text[at + 1 :]
        try:
            arch.VcpuState.from_json(damaged)
        except StateError:
            refused += 1
    assert refused


# Restoring


def test_a_guest_continues_in_another_machine_as_in_its_own(
    long_mode: Callable[[], Any], arch: AnyBackend
) -> None:
    vm = long_mode()
    exits(vm.vcpus[0], 7)  # in the middle of a round
    state = vm.vcpus[0].save()
    memory = vm.memory.read(0, 0x200000)
    own = exits(vm.vcpus[0], 40)
    assert len(set(own)) == 40
    vm.memory.write(0, memory)
    vm.vcpus[0].restore(state)
    assert exits(vm.vcpus[0], 40) == own

    text = state.to_json()
    other = long_mode()
    other.memory.write(0, memory)
    other.vcpus[0].restore(arch.VcpuState.from_json(text))
    assert exits(other.vcpus[0], 40) == own


def test_saving_changes_nothing(long_mode: Callable[[], Any]) -> None:
    vm = long_mode()
    expected = exits(vm.vcpus[0], 20)
    other = long_mode()
    found = []
    for _ in range(20):
        found += exits(other.vcpus[0], 1)
        assert other.vcpus[0].save() == other.vcpus[0].save()
    assert found == expected


def random_changes(numbers: random.Random, state: Any) -> dict[str, int]:
    """Other values for much of a state, such as a processor accepts."""

    def bits(count: int) -> int:
        return numbers.getrandbits(count)

    def canonical() -> int:
        value = bits(47)
        return value if bits(1) else (1 << 64) - 1 - value

    general = [
        "rax",
        "rbx",
        "rcx",
        "rdx",
        "rsi",
        "rdi",
        "rsp",
        "rbp",
        *(f"r{n}" for n in range(8, 16)),
    ]
    changes = {name: bits(64) for name in general}
    changes |= {"rip": bits(32), "rflags": 2 | bits(32) & 0x240CD5}
    for segment in ("ds", "es", "fs", "gs"):
        changes |= {f"{segment}.base": bits(32), f"{segment}.selector": bits(16) & 0xFFF8}
    changes |= {"cr2": bits(64), "gdt.base": bits(32), "idt.base": bits(32), "gdt.limit": bits(16)}
    changes |= {f"xmm{n}": bits(128) for n in range(16)}
    changes |= {f"dr{n}": canonical() for n in range(4)}
    changes |= {"mxcsr": 0x1F80 | bits(16) & 0xE040, "fcw": 0x37F, "fsw": bits(16) & 0x4700}
    for name in ("IA32_LSTAR", "IA32_KERNEL_GS_BASE"):
        changes[name] = canonical()
    is_amd = state.elements.get("cpuid 0x0 ebx") == int.from_bytes(b"Auth", "little")
    for name in ("IA32_SYSENTER_ESP", "IA32_SYSENTER_EIP"):
        changes[name] = bits(32) if is_amd else canonical()
    changes |= {"IA32_STAR": bits(64), "IA32_FMASK": bits(32), "IA32_TSC_AUX": bits(32)}
    changes["IA32_PAT"] = sum(numbers.choice((0, 1, 4, 5, 6, 7)) << 8 * n for n in range(8))
    for n in range(8):
        changes[f"IA32_MTRR_PHYSBASE{n}"] = bits(20) << 12 | numbers.choice((0, 1, 4, 5, 6))
        changes[f"IA32_MTRR_PHYSMASK{n}"] = bits(20) << 12 | bits(1) << 11
    changes["nmi_masked"] = bits(1)
    if "APIC_SVR" in state.elements:
        changes |= {"APIC_TPR": bits(8), "APIC_LDR": bits(8) << 24, "APIC_SVR": 0x100 | bits(8)}
        changes |= {"APIC_LVT_LINT0": 0x10000 | bits(8), "APIC_LVT_ERROR": bits(8)}
        changes["cr8"] = changes["APIC_TPR"] >> 4
    known = state.elements
    return {name: value for name, value in changes.items() if name in known}


@pytest.mark.parametrize("irqchip", [False, True])
def test_random_states_come_out_as_they_went_in(
    arch: AnyBackend, memory: GuestMemory, irqchip: bool
) -> None:
    numbers = random.Random(7)
    with arch.Vm(memory, irqchip=irqchip) as vm:
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        vcpu = vm.vcpus[0]
        state = vcpu.save()
        for _ in range(RANDOM_STATES):
            wanted = state.replace(random_changes(numbers, state))
            vcpu.restore(wanted)
            found = vcpu.save()
            assert not wanted.diff(found)
            assert arch.VcpuState.from_json(found.to_json()).elements == found.elements


def test_the_timer_of_a_local_apic_goes_on(arch: AnyBackend, memory: GuestMemory) -> None:
    memory.write(0x1000, bytes.fromhex("e6 10 eb fc"))  # out 0x10, al; again
    with arch.Vm(memory, irqchip=True) as vm:
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        vcpu = vm.vcpus[0]
        state = vcpu.save()
        one_shot = {"APIC_SVR": 0x1FF, "APIC_LVT_TIMER": 0x40, "APIC_TIMER_DIVIDE": 0xB}
        wanted = state.replace({**one_shot, "APIC_TIMER_INITIAL": 50_000_000})
        wanted = wanted.replace({"APIC_TIMER_CURRENT": 50_000_000})
        vcpu.restore(wanted)
        assert 0 < vcpu.get_lapic()[0x390] < 50_000_000
        requested = 0
        end = time.monotonic() + 20
        while not requested and time.monotonic() < end:
            vcpu.run()
            requested = vcpu.get_lapic()[0x200 + 0x10 * (0x40 // 32)]
        assert requested == 1


def test_the_counter_continues_from_its_saved_value(arch: AnyBackend, memory: GuestMemory) -> None:
    with arch.Vm(memory) as vm:
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        vcpu = vm.vcpus[0]
        state = vcpu.save()
        hertz = vcpu.get_tsc_khz() * 1000
        time.sleep(0.5)
        vcpu.restore(state)
        passed = vcpu.get_msrs([0x10])[0x10] - state["tsc"]
        assert passed < hertz // 4 or vcpu.save()["tsc"] - state["tsc"] > hertz // 2


def test_what_a_timer_changes_meanwhile_is_no_error(
    arch: AnyBackend, memory: GuestMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 8254 of a stopped machine goes on, and requests an interrupt 18 times a second."""
    with arch.Vm(memory, irqchip=True) as vm:
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        state = vm.save()
        module = type(state).__module__
        real = getattr(__import__(module, fromlist=["x"]), "_write_vm")  # noqa: B009

        def meanwhile(*arguments: Any) -> None:
            real(*arguments)
            vm.vcpus[0].restore(vm.vcpus[0].save().replace({"APIC_0x210": 0x10000}))
            if arch.__name__.endswith("kvm_x86_64"):  # type: ignore[attr-defined]
                vm.set_irq_line(0, True)

        monkeypatch.setattr(f"{module}._write_vm", meanwhile)
        vm.restore(state)
        assert any(found.name.endswith("APIC_0x210") for found in state.diff(vm.save()))


# Refusals


@pytest.fixture
def vcpu(arch: AnyBackend, memory: GuestMemory) -> Iterator[Any]:
    memory.write(0x1000, SENDS)
    with arch.Vm(memory) as vm:
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        yield vm.vcpus[0]


def test_what_the_hypervisor_refuses_is_said_and_undone(vcpu: Any) -> None:
    vcpu.run()
    before = vcpu.save()
    wrong = before.replace(
        {"IA32_MTRR_DEF_TYPE": 0x2, "rbx": 0x77, "xmm1": 5, "IA32_LSTAR": 0x1234}
    )
    with pytest.raises(StateError) as caught:
        vcpu.restore(wrong)
    (problem,) = caught.value.problems
    assert "cannot be 0x2" in problem
    assert before == vcpu.save()
    assert vcpu.run().data == b"\x06"


def test_several_refusals_are_said_at_once(vcpu: Any) -> None:
    before = vcpu.save()
    wrong = before.replace({"IA32_MTRR_PHYSBASE0": 0x2, "IA32_MTRR_DEF_TYPE": 0x2, "dr7": 1 << 40})
    with pytest.raises(StateError) as caught:
        vcpu.restore(wrong)
    said = "\n".join(caught.value.problems)
    assert said.count("cannot be 0x2") == 2
    assert before == vcpu.save()


def test_a_value_that_the_hypervisor_changes_is_noticed(vcpu: Any) -> None:
    before = vcpu.save()
    with pytest.raises(StateError) as caught:
        vcpu.restore(before.replace({"rflags": 0}))  # bit 1 is always 1
    (problem,) = caught.value.problems
    assert problem == "rflags: 0x0 -> 0x2: it did not take this value"
    assert before == vcpu.save()


def test_a_machine_that_is_not_alike_is_refused_untouched(
    arch: AnyBackend, memory: GuestMemory, backend: BackendUnderTest
) -> None:
    entries = [e for e in arch.supported_cpuid() if e.function != 0x40000001]
    changed = [
        CpuidEntry(e.function, e.index, e.eax ^ (e.function == 6), e.ebx, e.ecx, e.edx)
        for e in entries
    ]
    with arch.Vm(memory, irqchip=True, cpuid=changed) as vm:
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        state = vm.vcpus[0].save()
    with arch.Vm(memory, cpuid=entries) as vm:
        vcpu: Any = vm.vcpus[0]
        arch.configure_vcpu(vcpu, RealMode(0x1000))
        before = vcpu.save()
        with pytest.raises(StateError) as caught:
            vcpu.restore(state)
        said = caught.value.problems
        assert "lapic: the state has it and the machine does not" in said
        assert any(p.startswith("cpuid 0x6 eax: ") and "was created with" in p for p in said)
        assert before == vcpu.save()


def test_only_states_are_restored(vcpu: Any) -> None:
    with pytest.raises(TypeError, match="expected VcpuState, got dict"):
        vcpu.restore({})
    with pytest.raises(TypeError, match="expected VmState, got VcpuState"):
        vcpu.vm.restore(vcpu.save())


def test_an_interrupted_restore_is_undone(vcpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = vcpu.save()
    changed = before.replace({"rbx": 1, "xmm0": 2, "IA32_LSTAR": 3})
    module = type(before).__module__
    writes = []
    real = getattr(__import__(module, fromlist=["x"]), "_write_vcpu")  # noqa: B009

    def interrupted(*arguments: Any) -> None:
        real(*arguments)
        writes.append(arguments)
        if len(writes) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(f"{module}._write_vcpu", interrupted)
    with pytest.raises(KeyboardInterrupt):
        vcpu.restore(changed)
    assert before == vcpu.save()


def test_a_running_vcpu_is_neither_saved_nor_restored(
    arch: AnyBackend, memory: GuestMemory
) -> None:
    memory.write(0x1000, b"\xeb\xfe")
    with arch.Vm(memory) as vm:
        vcpu: Any = vm.vcpus[0]
        arch.configure_vcpu(vcpu, RealMode(0x1000))
        state, machine = vcpu.save(), vm.save()
        thread = threading.Thread(target=vcpu.run)
        thread.start()
        try:
            while vcpu._state != RUNNING:
                time.sleep(0.01)
            for use in (
                vcpu.save,
                vm.save,
                lambda: vcpu.restore(state),
                lambda: vm.restore(machine),
            ):
                with pytest.raises(BusyError):
                    use()
        finally:
            vcpu.kick()
            thread.join()
        vcpu.restore(state)
    with pytest.raises(ClosedError):
        vcpu.save()
    with pytest.raises(ClosedError):
        vcpu.restore(state)
    with pytest.raises(ClosedError):
        vm.restore(machine)


def test_a_restored_vcpu_is_no_new_one(arch: AnyBackend, memory: GuestMemory) -> None:
    with arch.Vm(memory) as vm:
        vm.vcpus[0].restore(vm.vcpus[0].save())
        with pytest.raises(NotFreshError):
            arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))


# In the middle of an exit

ASKS = bytes.fromhex(
    "e4 10"  # in al, 0x10
    "e6 11"  # out 0x11, al
    "8e d8"  # mov ds, ax
    "f4"
)


def test_a_read_that_waits_is_answered_first(guest: Callable[[bytes], Any]) -> None:
    vcpu = guest(ASKS)
    asked = vcpu.run()
    with pytest.raises(UnansweredError, match="waits for an answer"):
        vcpu.save()
    with pytest.raises(UnansweredError):
        vcpu.vm.save()
    asked.complete(0x21)
    state = vcpu.save()
    assert state["rax"] & 0xFF == 0x21
    assert vcpu.run().data == b"\x21"
    vcpu.restore(state)
    assert vcpu.run().data == b"\x21"


def test_restoring_discards_a_read_that_waits(guest: Callable[[bytes], Any]) -> None:
    vcpu = guest(ASKS)
    state = vcpu.save()
    for _ in range(3):
        asked = vcpu.run()
        assert asked.port == 0x10
        vcpu.restore(state)
    vcpu.run().complete(7)
    assert vcpu.run().data == b"\x07"


def test_a_refused_restore_leaves_a_read_waiting(guest: Callable[[bytes], Any]) -> None:
    vcpu = guest(ASKS)
    state = vcpu.save()
    other = type(state)({**state._saved, "cpuid": ()})
    asked = vcpu.run()
    with pytest.raises(StateError):
        vcpu.restore(other)
    asked.complete(9)
    assert vcpu.run().data == b"\x09"


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("e6 10", None),  # out 0x10, al
        ("66 ef", None),  # out dx, eax
        ("e5 10", 0x1234),  # in ax, 0x10
        ("a0 00 f0", 0x42),  # mov al, [0xf000], where no memory is
        ("a2 00 f0", None),
        ("f4", None),
    ],
)
def test_each_kind_of_exit_can_be_saved_and_continued(
    arch: AnyBackend, code: str, answer: int | None
) -> None:
    """What follows is the same in the guest that was saved, and in itself restored."""
    with GuestMemory(0xF000) as memory, arch.Vm(memory) as vm:
        memory.write(0x1000, bytes.fromhex(code + "01 c3 fe c3 e6 20 f4"))
        vcpu: Any = vm.vcpus[0]
        arch.configure_vcpu(vcpu, RealMode(0x1000))
        exit = vcpu.run()
        if answer is not None:
            exit.complete(answer)
        state = vcpu.save()
        expected = [repr(vcpu.run()), vcpu.save()]
        vcpu.restore(state)
        assert [repr(vcpu.run()), vcpu.save()] == expected


def test_an_msr_exit_is_answered_first(
    arch: AnyBackend, memory: GuestMemory, backend: BackendUnderTest
) -> None:
    memory.write(0x1000, bytes.fromhex("66 b9 ff 0f 00 00 0f 32 e6 10 f4"))  # rdmsr of 0xfff
    with arch.Vm(memory, prepare=backend.ask_about_msrs) as vm:
        vcpu: Any = vm.vcpus[0]
        arch.configure_vcpu(vcpu, RealMode(0x1000))
        asked = vcpu.run()
        with pytest.raises(UnansweredError):
            vcpu.save()
        asked.complete(0x55)
        state = vcpu.save()
        assert state["rax"] == 0x55
        assert vcpu.run().data == b"\x55"
        vcpu.restore(state)
        assert vcpu.run().data == b"\x55"


# Machines


def test_a_machine_with_its_controllers(arch: AnyBackend, memory: GuestMemory) -> None:
    with arch.Vm(memory, vcpus=2, irqchip=True) as vm:
        entry = RealMode(0x1000)
        arch.configure_system(vm, entry)
        for each in vm.vcpus:
            arch.configure_vcpu(each, entry)
        vm.set_irq_line(5, True)
        state = vm.save()
        assert repr(state).startswith("<machine state of ")
        assert "and 2 vCPUs>" in repr(state)
        assert "vCPU 1: vCPU state of" in str(state)
        vm.set_irq_line(5, False)
        vm.set_irq_line(9, True)
        changed: Any = vm.save()
        assert state.diff(changed)
        vm.restore(arch.VmState.from_json(state.to_json()))
        assert not state.diff(vm.save())
        assert pickle.loads(pickle.dumps(state)) == state
        other = changed.vcpus[1].replace({"rbx": 5})
        assert str(state.vcpus[1].diff(other)) == "rbx: 0x0 -> 0x5"


def test_another_number_of_vcpus_is_refused(arch: AnyBackend, memory: GuestMemory) -> None:
    with arch.Vm(memory, vcpus=2, irqchip=True) as vm:
        state: Any = vm.save()
    with arch.Vm(memory, vcpus=1, irqchip=True) as vm:
        with pytest.raises(StateError) as caught:
            vm.restore(state)
        assert "2 vCPUs, this machine has 1" in caught.value.problems
        text = json.loads(state.to_json())
        text["vcpus"][1]["sinks"]["cpuid"] = 5
        del text["vcpus"][0]["version"]
        with pytest.raises(StateError) as caught:
            arch.VmState.from_json(json.dumps(text))
        assert caught.value.problems == (
            "vCPU 0: version: None instead of 1",
            "vCPU 1: cpuid: neither null nor a JSON object",
        )


def test_a_vcpu_takes_no_other_vcpus_state(arch: AnyBackend, memory: GuestMemory) -> None:
    with arch.Vm(memory, vcpus=2, irqchip=True) as vm:
        first, second = vm.vcpus
        state = second.save()
        with pytest.raises(StateError) as caught:
            first.restore(state)
        assert any("cpuid 0x1 ebx: " in problem for problem in caught.value.problems)


def test_counters_stay_as_far_apart_as_they_were(arch: AnyBackend, memory: GuestMemory) -> None:
    with arch.Vm(memory, vcpus=2, irqchip=True) as vm:
        state: Any = vm.save()
        apart = [c for name, c in state.elements.items() if name.startswith("tsc")]
        time.sleep(0.1)
        vm.restore(state)
        again = [c for name, c in vm.save().elements.items() if name.startswith("tsc")]
        assert len(apart) == 2
        assert abs((again[1] - again[0]) - (apart[1] - apart[0])) < vm.vcpus[0].get_tsc_khz()


def test_features_that_a_machine_lacks_are_named(arch: AnyBackend) -> None:
    had = with_features(arch.supported_cpuid(), add=["avx512f", "gfni"], remove=["clflushopt"])
    without = with_features(had, add=["clflushopt"], remove=["avx512f", "gfni"])
    states = []
    for cpuid in (had, without):
        with arch.GuestMemory(0x10000) as memory, arch.Vm(memory, cpuid=cpuid) as vm:
            states.append(vm.vcpus[0].save())
            if len(states) == 2:
                wrong = r"cpuid 0x7:0x0 ebx: .* \(-avx512f, \+clflushopt\)"
                with pytest.raises(StateError, match=wrong):
                    vm.vcpus[0].restore(states[0])
    text = str(states[0].diff(states[1]))
    assert "(-avx512f, +clflushopt)" in text
    assert "-gfni" in text
    assert " gfni" in str(states[0])


def test_a_text_with_former_names_is_read(arch: AnyBackend, memory: GuestMemory) -> None:
    """An element that was only a number may get a name, in a text that is older than that."""
    with arch.Vm(memory, irqchip=True) as vm:
        state = vm.vcpus[0].save()
    text = state.to_json()
    former = [
        (name, number)
        for name, number in [
            ("IA32_LSTAR", "MSR 0xc0000082"),
            ("APIC_TPR", "APIC_0x80"),
            ("rax", "WHvX64RegisterRax" if arch is whp_x86_64 else ""),
        ]
        if number and f'"{name}"' in text
    ]
    assert len(former) >= 2
    for name, number in former:
        old = text.replace(f'"{name}"', f'"{number}"')
        assert old != text
        assert arch.VcpuState.from_json(old).elements == state.elements
        both = re.sub(rf'("{name}"): ("0x\w+")', rf'\1: \2, "{number}": \2', text)
        with pytest.raises(StateError, match=f"{number}: is there twice, also as {name}"):
            arch.VcpuState.from_json(both)
        wrong = text.replace(f'"{name}"', f'"{number.swapcase()}"')
        with pytest.raises(StateError, match="has no such element"):
            arch.VcpuState.from_json(wrong)


# Registers in the XSAVE area

COMPONENTS = [
    # leaf 0xD of an Intel processor with AVX-512, PKRU and AMX; then one that nobody knows
    CpuidEntry(0xD, 2, eax=0x100, ebx=0x240),
    CpuidEntry(0xD, 5, eax=0x40, ebx=0x440),
    CpuidEntry(0xD, 6, eax=0x200, ebx=0x480),
    CpuidEntry(0xD, 7, eax=0x400, ebx=0x680),
    CpuidEntry(0xD, 9, eax=0x8, ebx=0xA80),
    CpuidEntry(0xD, 11, eax=0x10, ebx=0, ecx=1),
    CpuidEntry(0xD, 17, eax=0x40, ebx=0xAC0, ecx=2),
    CpuidEntry(0xD, 62, eax=0x80, ebx=0xB00),
]


@pytest.mark.parametrize(
    ("byte", "name"),
    [
        (0x240, "ymm0[255:128]"),
        (0x240 + 3 * 16 + 5, "ymm3[255:128]"),
        (0x440 + 7 * 8, "k7"),
        (0x480 + 2 * 32, "zmm2[511:256]"),
        (0x680 + 15 * 64 + 63, "zmm31"),
        (0xA80, "pkru"),
        (0xAC0 + 1, "tilecfg"),
        (0xB00, "xsave component 62"),
        (0xA88, "xsave.extended"),  # between two
    ],
)
def test_registers_of_the_xsave_area_are_named(
    guest: Callable[[bytes], Any], arch: AnyBackend, byte: int, name: str
) -> None:
    """Where the saved machine's CPUID says that they are; in a difference and when printed."""
    state = of_components(arch, guest(SENDS).save(), 0)
    changed = state.replace({"xsave.extended": 0x5A << 8 * (byte - 576)})
    (difference,) = state.diff(changed)
    assert difference.name == name
    assert (difference.mine, difference.theirs) != (0, 0)
    assert f"  {name} = " in str(changed)
    assert f"  {name} = " not in str(state)


def test_registers_of_a_compacted_area_are_named(arch: AnyBackend) -> None:
    """There components follow each other; some begin at a multiple of 64."""
    places = xsave_registers(COMPONENTS, 1 << 63 | 1 << 2 | 1 << 9 | 1 << 11 | 1 << 17)
    found = {name: places[name] for name in ("ymm1[255:128]", "pkru", "cet_u.ssp", "tilecfg")}
    assert found == {
        "ymm1[255:128]": (576 + 16, 16),
        "pkru": (832, 4),
        "cet_u.ssp": (848, 8),
        "tilecfg": (896, 64),
    }
    assert "k0" not in places


def test_an_area_of_a_machine_that_does_not_say_its_components_is_bytes(
    guest: Callable[[bytes], Any], arch: AnyBackend
) -> None:
    state = of_components(arch, guest(SENDS).save(), 0, [])
    (difference,) = state.diff(state.replace({"xsave.extended": 0xFF00}))
    assert str(difference).startswith("xsave.extended: ")


def of_components(
    arch: AnyBackend, state: Any, xcomp_bv: int, components: Sequence[CpuidEntry] = COMPONENTS
) -> Any:
    """A state with these components, and an area for them that is 0 in the standard format."""
    data = json.loads(state.to_json())
    cpuid = data["sinks"]["cpuid"]
    for name in [name for name in cpuid if name.startswith("cpuid 0xd:")]:
        del cpuid[name]
    for entry in components:
        for register in ("eax", "ebx", "ecx", "edx"):
            name = f"cpuid {entry.function:#x}:{entry.index:#x} {register}"
            cpuid[name] = f"{getattr(entry, register):#x}"
    data["sinks"]["xsave"]["xsave.extended"] = "0x" + "00" * (0xB80 - 576)
    data["sinks"]["xsave"]["xcomp_bv"] = hex(xcomp_bv)
    return arch.VcpuState.from_json(json.dumps(data))


# Clocks


def test_clocks_catch_up_if_they_shall(arch: AnyBackend, memory: GuestMemory) -> None:
    """By the time since the save, as far as that goes, and not unless it is asked for."""
    hour = 3600
    with arch.Vm(memory, vcpus=2, irqchip=True) as vm:
        second = vm.vcpus[0].get_tsc_khz() * 1000
        saved = arch.VmState.from_json(vm.save().to_json())
        long_ago = saved_at(arch, saved, saved.saved_at - hour * 10**9)
        written = vars(arch)["_caught_up"](vm, long_ago)  # hosts may ignore counters' values
        assert written == long_ago
        for one, other in zip(long_ago.vcpus, written.vcpus, strict=True):
            assert hour * second <= other["tsc"] - one["tsc"] < 2 * hour * second
        for catch_up, passed in ((False, 0), (True, hour)):
            vm.restore(long_ago, catch_up=catch_up)
            found = vm.save()
            assert found == long_ago
            if "clock.clock" in saved.elements:
                moved = found["clock.clock"] - long_ago["clock.clock"]
                assert passed * 10**9 <= moved < (passed + hour // 2) * 10**9


def test_clocks_do_not_go_back(arch: AnyBackend, memory: GuestMemory) -> None:
    """If the host's clock was set back in between."""
    with arch.Vm(memory) as vm:
        state = saved_at(arch, vm.save(), 1 << 62)
        written = vars(arch)["_caught_up"](vm, state)
        assert written.to_json() == state.to_json()
        vm.restore(state, catch_up=True)


def test_clocks_of_a_state_without_a_time_do_not_catch_up(
    arch: AnyBackend, memory: GuestMemory
) -> None:
    with arch.Vm(memory) as vm:
        state = saved_at(arch, vm.save(), None)
        assert state.saved_at is None
        vm.restore(state)
        with pytest.raises(StateError, match="does not say when it was saved"):
            vm.restore(state, catch_up=True)


@pytest.mark.parametrize("wrong", ["2026", True, -1, 1 << 63, 1.5])
def test_a_wrong_time_is_refused(arch: AnyBackend, memory: GuestMemory, wrong: object) -> None:
    with arch.Vm(memory) as vm:
        saved = vm.save()
    with pytest.raises(StateError, match="saved_at: not a number of nanoseconds since 1970"):
        saved_at(arch, saved, wrong)


def test_forks_catch_up(arch: AnyBackend, memory: GuestMemory) -> None:
    """The first one, and those that are only given what it has taken."""
    with arch.Vm(memory) as vm:
        snapshot = vm.take_snapshot()
    with snapshot:
        snapshot.state = saved_at(arch, snapshot.state, snapshot.state.saved_at - 10**12)
        for _ in range(2):
            with snapshot.fork(catch_up=True) as vm:
                found = vm.save()
                if "clock.clock" in found.elements:
                    assert found["clock.clock"] - snapshot.state["clock.clock"] >= 10**12
        snapshot.state = saved_at(arch, snapshot.state, None)
        with pytest.raises(StateError, match="does not say when it was saved"):
            snapshot.fork(catch_up=True)


def saved_at(arch: AnyBackend, state: Any, time: object) -> Any:
    """A state that says to be of another time."""
    data = json.loads(state.to_json())
    data["saved_at"] = time
    return arch.VmState.from_json(json.dumps(data))
