"""What is true of every backend at rest: the state it leaves in a vCPU, what bad uses get, leaks."""

from __future__ import annotations

import gc
import os
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import pytest
from backends import BackendUnderTest, Start
from vcpu_state import differences, msrs_of, parts
from vmm_arch.errors import (
    ClosedError,
    HypervisorError,
    HypervisorUnavailableError,
    NotFreshError,
)
from vmm_arch.exits import Halt, Kicked
from vmm_arch.memory import MemoryInUseError, Region
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.x86_64.entry import Entry, Long64, Protected32, RealMode
from vmm_arch.x86_64.platform.memory_map import GuestMemory

SPIN = b"\xeb\xfe"  # jmp $
IN_OUT_HLT = b"\xe4\x10\xe6\x11\xf4"  # in al, 0x10; out 0x11, al; hlt
ENTRIES = [
    RealMode(0x1000, rsp=0x8000),
    Protected32(0x1000, rsp=0x8000, rax=0x2BADB002, rbx=0x6000),
    Long64(0x1000, rsp=0x8000, rsi=0x7000),
]

modes = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: type(entry).__name__)
irqchips = pytest.mark.parametrize("irqchip", [False, True], ids=["bare", "irqchip"])


def set_up_separately(arch: AnyBackend, vcpu: Any, entry: Entry) -> None:
    arch.setup_sregs(vcpu, entry)
    arch.setup_regs(vcpu, entry)
    arch.setup_fpu(vcpu)
    if vcpu.vm.irqchip:
        arch.set_lint(vcpu)
    arch.setup_msrs(vcpu)


def scramble(backend: BackendUnderTest, vcpu: Any) -> None:
    """Change whatever a guest, or who runs it, could have changed."""
    backend.scramble(vcpu)
    fpu = vcpu.get_fpu()
    fpu.fcw, fpu.ftw, fpu.mxcsr = 0x27F, 0xFF, 0x1FC0
    vcpu.set_fpu(fpu)
    sregs = vcpu.get_sregs()
    sregs.cr2, sregs.cr8 = 0x1234, 3
    sregs.gs.base = 0x5000
    vcpu.set_sregs(sregs)
    regs = vcpu.get_regs()
    regs.rax, regs.r15, regs.rip, regs.rflags = 1, 15, 0x1000, 0x246
    vcpu.set_regs(regs)
    if vcpu.vm.irqchip:
        lapic = vcpu.get_lapic()
        lapic[0x350] = 0x10000
        lapic[0xF0] = 0x1FF
        vcpu.set_lapic(lapic)
    vcpu.set_msrs(
        {
            0x174: 8,
            0xC0000081: 0x23 << 48,
            0xC0000082: 0x1234,
            0xC0000102: 0x5678,
            0x277: 0x0606060606060606,
            0x2FF: 0xC06,
            0x200: 0x80000006,
        }
    )


class TestState:
    """What the arch functions leave in a vCPU, read back in full."""

    @modes
    @irqchips
    def test_configure_leaves_what_the_separate_functions_leave(
        self,
        arch: AnyBackend,
        backend: BackendUnderTest,
        memory: GuestMemory,
        entry: Entry,
        irqchip: bool,
    ) -> None:
        with arch.Vm(memory, irqchip=irqchip) as one:
            arch.configure_vcpu(one.vcpus[0], entry)
            found = backend.state(one.vcpus[0])
            assert len(found) > 60
        with arch.Vm(memory, irqchip=irqchip) as other:
            set_up_separately(arch, other.vcpus[0], entry)
            assert differences(found, backend.state(other.vcpus[0])) == []

    @modes
    def test_an_entry_has_the_registers_that_it_names(
        self, arch: AnyBackend, memory: GuestMemory, entry: Entry
    ) -> None:
        named = {"rsp": 0x8000, "rax": 1, "rbx": 2, "rsi": 3}
        with arch.Vm(memory) as vm:
            arch.configure_vcpu(vm.vcpus[0], replace(entry, **named))
            regs = vm.vcpus[0].get_regs()
            expected = named | {"rip": 0x1000, "rbp": 0x8000, "rcx": 0, "rdx": 0, "rdi": 0}
            assert {name: getattr(regs, name) for name in expected} == expected

    @modes
    @irqchips
    def test_reset_leaves_what_configure_leaves_whatever_was_before(
        self,
        arch: AnyBackend,
        backend: BackendUnderTest,
        memory: GuestMemory,
        entry: Entry,
        irqchip: bool,
    ) -> None:
        with arch.Vm(memory, irqchip=irqchip) as fresh:
            arch.configure_vcpu(fresh.vcpus[0], entry)
            wanted = backend.state(fresh.vcpus[0])
        with arch.Vm(memory, irqchip=irqchip) as used:
            scramble(backend, used.vcpus[0])
            messy = differences(backend.state(used.vcpus[0]), wanted)
            assert {"regs", "sregs", "fpu", "xcrs", "debugregs", "events"} <= parts(messy)
            assert {"msr 0x174", "msr 0xc0000082", "msr 0x200"} <= set(messy)
            arch.reset_vcpu(used.vcpus[0], entry)
            assert differences(backend.state(used.vcpus[0]), wanted) == []

    def test_no_msr_that_can_be_written_survives_a_reset(
        self, arch: AnyBackend, memory: GuestMemory
    ) -> None:
        """Whatever a guest could have left in one: each bit pattern that is taken is tried."""
        numbers = [*range(0x1000), *range(0x40000000, 0x40000200), *range(0x4B564D00, 0x4B564D10)]
        numbers += [*range(0xC0000080, 0xC0000110), *range(0xC0010000, 0xC0010300)]
        entry = ENTRIES[0]
        with arch.Vm(memory) as fresh:
            arch.configure_vcpu(fresh.vcpus[0], entry)
            wanted = msrs_of(fresh.vcpus[0], numbers)
            assert len(wanted) > 40
        with arch.Vm(memory) as used:
            arch.configure_vcpu(used.vcpus[0], entry)
            changed = set()
            for number, value in wanted.items():
                for bits in (1, 0x800, 0x123000, 1 << 63):
                    try:
                        used.vcpus[0].set_msrs({number: value ^ bits})
                        changed.add(number)
                    except HypervisorError:
                        continue
            assert len(changed) > 40
            assert msrs_of(used.vcpus[0], numbers) != wanted
            arch.reset_vcpu(used.vcpus[0], entry)
            left = msrs_of(used.vcpus[0], numbers)
            assert {hex(n): left[n] for n in wanted if left[n] != wanted[n]} == {}

    def test_a_start_that_was_latched_is_forgotten(
        self, arch: AnyBackend, memory: GuestMemory
    ) -> None:
        """vCPU 0 sends INIT and SIPI to vCPU 1, which does not run before both are reset."""
        code = bytes.fromhex(
            "c70510 03e0fe 00000001"  # mov dword [0xfee00310], 1 << 24: to APIC id 1
            "c70500 03e0fe 00450000"  # mov dword [0xfee00300], INIT, assert
            "c70500 03e0fe 02460000"  # mov dword [0xfee00300], SIPI, vector 2
            "f4"
        )
        entry = Protected32(0x1000)
        memory.write(0x1000, code)
        memory.write(0x2000, b"\xe6\x77\xf4")  # out 0x77, al; hlt
        with arch.Vm(memory, vcpus=2, irqchip=True) as vm:
            arch.configure_system(vm, entry)
            boot, secondary = vm.vcpus
            arch.configure_vcpu(boot, entry)
            arch.configure_vcpu(secondary, entry)
            threading.Timer(0.1, boot.kick).start()
            assert isinstance(boot.run(), Kicked)
            for vcpu in vm.vcpus:
                arch.reset_vcpu(vcpu, entry)
            threading.Timer(0.1, secondary.kick).start()
            assert isinstance(secondary.run(), Kicked)

    def test_a_secondary_is_reset_to_what_it_was_when_configured(
        self, arch: AnyBackend, backend: BackendUnderTest, memory: GuestMemory
    ) -> None:
        with arch.Vm(memory, vcpus=2, irqchip=True) as vm:
            secondary = vm.vcpus[1]
            assert secondary.is_secondary
            arch.configure_vcpu(secondary, ENTRIES[0])
            before, new = backend.state(secondary), secondary.get_lapic()
            scramble(backend, secondary)
            arch.reset_vcpu(secondary, ENTRIES[0])
            # INIT and SIPI will set these, so that configuring need not.
            changed = parts(differences(backend.state(secondary), before))
            assert changed <= {"regs", "sregs", "fpu", "lapic"}
            left = secondary.get_lapic()
            offsets = (0x20, 0x80, 0xF0, *range(0x320, 0x380, 0x10))
            assert [hex(n) for n in offsets if left[n] != new[n]] == []
            assert (left[0x20], left[0x350], left[0x360]) == (1 << 24, 0x10000, 0x10000)

    def test_a_reset_that_cannot_set_the_time_stamp_counter_says_so(
        self, arch: AnyBackend, memory: GuestMemory
    ) -> None:
        """What the guest reads is the scenario time_stamp's."""
        with arch.Vm(memory) as vm:
            vcpu = vm.vcpus[0]
            for tsc in (-1, 1 << 64):
                with pytest.raises(ValueError, match="is not an unsigned 64-bit value"):
                    arch.reset_vcpu(vcpu, RealMode(0x1000), tsc=tsc)
            try:
                arch.reset_vcpu(vcpu, RealMode(0x1000), tsc=0)
                can = True
            except HypervisorUnavailableError as error:
                assert "guests have the host's time stamp counter" in str(error)
                can = False
            seconds = vcpu.get_msrs([0x10])[0x10] / vcpu.get_tsc_khz() / 1000
            assert seconds < 60 or not can

    def test_sregs_are_views_and_the_lapic_is_read_by_offset(
        self, arch: AnyBackend, memory: GuestMemory
    ) -> None:
        with arch.Vm(memory, irqchip=True) as vm:
            vcpu = vm.vcpus[0]
            arch.configure_vcpu(vcpu, Long64(0x1000))
            sregs = vcpu.get_sregs()
            assert (sregs.cs.selector, sregs.cs.l, sregs.cs.limit) == (0x10, 1, 0xFFFFFFFF)
            sregs.fs.base = 0x7000
            vcpu.set_sregs(sregs)
            assert vcpu.get_sregs().fs.base == 0x7000
            lapic = vcpu.get_lapic()
            assert (lapic[0x350], lapic[0x360]) == (0x700, 0x400)
            for offset in (0x351, -0x10, 0x400):
                with pytest.raises(IndexError, match="the local APIC has no register"):
                    lapic[offset]

    def test_translate_follows_the_page_tables(self, arch: AnyBackend, memory: GuestMemory) -> None:
        with arch.Vm(memory) as vm:
            entry = Long64(0x1000)
            arch.configure_system(vm, entry)
            arch.configure_vcpu(vm.vcpus[0], entry)
            assert vm.vcpus[0].translate(0x12345) == 0x12345
            assert vm.vcpus[0].translate(5 << 30) is None


class TestPreparing:
    """What a caller does with a machine that the hypervisor has made, before anything is in it."""

    def test_it_is_called_once_with_the_empty_machine(
        self, arch: AnyBackend, memory: GuestMemory
    ) -> None:
        seen: list[tuple[Any, int]] = []
        with arch.Vm(memory, vcpus=2, prepare=lambda vm: seen.append((vm, len(vm.vcpus)))) as vm:
            assert seen == [(vm, 0)]
            assert len(vm.vcpus) == 2

    def test_what_it_raises_goes_on_and_leaves_nothing_behind(
        self, arch: AnyBackend, memory: GuestMemory
    ) -> None:
        def fail(vm: Any) -> None:
            raise LookupError("as if")

        whole_life(arch, memory)
        before = handles()
        with pytest.raises(LookupError, match="as if"):
            arch.Vm(memory, prepare=fail)
        with pytest.raises(ClosedError, match="closed"):
            arch.Vm(memory, prepare=lambda vm: vm.close())
        assert handles() == before
        memory.close()  # nobody holds it


class TestRefusals:
    """Every refusal says the operation, the name of the answer and the usual cause."""

    @pytest.mark.parametrize("vcpus", [0, -1, 256])
    def test_how_many_vcpus_there_are(
        self, arch: AnyBackend, memory: GuestMemory, vcpus: int
    ) -> None:
        with pytest.raises(ValueError, match=r"vcpus=-?\d+: this host allows 1 to \d+"):
            arch.Vm(memory, vcpus=vcpus)

    @pytest.mark.parametrize("page", [0xFEC00000, 0xFEE00000])
    def test_memory_where_the_interrupt_controllers_are(self, arch: AnyBackend, page: int) -> None:
        beginning = Region(0, 0x10000)
        around = Region(page - 0x10000, 0x20000)
        for region in (around, Region(page, 0x1000), Region(page - 0x1000, 0x2000)):
            with GuestMemory([beginning, region]) as memory:
                with pytest.raises(ValueError, match=f"at {region.address:#x} covers .* {page:#x}"):
                    arch.Vm(memory, irqchip=True)
                arch.Vm(memory).close()
        before, behind = Region(page - 0x10000, 0x10000), Region(page + 0x1000, 0xF000)
        with GuestMemory([beginning, before, behind]) as memory:  # as the message says
            arch.Vm(memory, irqchip=True).close()

    @pytest.mark.parametrize("line", [-1, 24, 1000, 1 << 32])
    def test_a_line_that_no_interrupt_controller_has(
        self, arch: AnyBackend, memory: GuestMemory, line: int
    ) -> None:
        with (
            arch.Vm(memory, irqchip=True) as vm,
            pytest.raises(ValueError, match=f"line {line}: the I/O APIC has lines 0 to 23"),
        ):
            vm.set_irq_line(line, True)

    def test_memory_closed_under_a_live_machine(
        self, arch: AnyBackend, memory: GuestMemory
    ) -> None:
        with arch.Vm(memory), pytest.raises(MemoryInUseError, match="close them first"):
            memory.close()
        memory.close()

    def test_a_lapic_without_an_irqchip(
        self, arch: AnyBackend, memory: GuestMemory, guest: Start
    ) -> None:
        with arch.Vm(memory, irqchip=True) as other:
            lapic: Any = other.vcpus[0].get_lapic()
        vcpu = guest(SPIN)
        uses: list[Callable[[], object]] = [
            vcpu.get_lapic,
            lambda: vcpu.set_lapic(lapic),
            lambda: arch.set_lint(vcpu),
        ]
        for use in uses:
            with pytest.raises(HypervisorError, match="irqchip"):
                use()

    def test_an_interrupt_line_without_an_irqchip(
        self, arch: AnyBackend, memory: GuestMemory
    ) -> None:
        with (
            arch.Vm(memory) as vm,
            pytest.raises(HypervisorError, match=r": ENXIO: .* without an irqchip"),
        ):
            vm.set_irq_line(4, True)

    def test_the_msr_that_is_refused_is_named(self, guest: Start) -> None:
        vcpu = guest(SPIN)
        with pytest.raises(HypervisorError, match=r"(?i)set.*: MSR 0x1234567"):
            vcpu.set_msrs({0x174: 1, 0x1234567: 0x42})
        with pytest.raises(HypervisorError, match=r"(?i)get.*: MSR 0x1234567"):
            vcpu.get_msrs([0x174, 0x1234567])
        with pytest.raises(HypervisorError, match=r"(?i)set.*: MSR 0x3a \(MSR_IA32_FEAT_CTL\)"):
            vcpu.set_msrs({0x3A: 1 << 63})
        vcpu.set_msrs({0x174: 1})
        assert vcpu.get_msrs([0x174]) == {0x174: 1}

    def test_values_that_are_none(self, arch: AnyBackend, guest: Start) -> None:
        vcpu = guest(SPIN)
        for name in ("regs", "sregs", "fpu", "lapic"):
            with pytest.raises(TypeError, match=f"expected {name.capitalize()}, got NoneType"):
                getattr(vcpu, f"set_{name}")(None)
        with pytest.raises(TypeError, match="expected Regs, got"):
            vcpu.set_regs(vcpu.get_sregs())
        with pytest.raises(ValueError, match=r"MSR 0x174 \(MSR_IA32_SYSENTER_CS\) = 0x1.*: .* 64"):
            vcpu.set_msrs({0x174: 1 << 64})
        with pytest.raises(TypeError, match="memory: expected GuestMemory, got NoneType"):
            arch.Vm(None)  # type: ignore[arg-type]

    def test_configuring_twice_or_after_a_run(self, arch: AnyBackend, guest: Start) -> None:
        vcpu = guest(b"\xf4")
        for _ in range(2):
            with pytest.raises(NotFreshError, match=r"vCPU 0: .* use reset_vcpu\(\)"):
                arch.configure_vcpu(vcpu, RealMode(0x1000))
            vcpu.run()

    @pytest.mark.parametrize("what", ["regs", "sregs", "fpu"])
    def test_what_is_set_by_hand_makes_a_vcpu_used(
        self, arch: AnyBackend, memory: GuestMemory, what: str
    ) -> None:
        """Configuring does not write all of it."""
        with arch.Vm(memory) as one:
            record = getattr(one.vcpus[0], f"get_{what}")()  # reading is nothing
            arch.configure_vcpu(one.vcpus[0], RealMode(0x1000))
        with arch.Vm(memory) as other:
            getattr(other.vcpus[0], f"set_{what}")(record)
            with pytest.raises(NotFreshError):
                arch.configure_vcpu(other.vcpus[0], RealMode(0x1000))

    @pytest.mark.parametrize(
        "inject",
        [
            lambda vcpu: vcpu.inject_nmi(),
            lambda vcpu: vcpu.inject_interrupt(0x20),
            lambda vcpu: vcpu.request_interrupt_window(True),
        ],
        ids=["NMI", "interrupt", "window"],
    )
    def test_what_is_injected_makes_a_vcpu_used(
        self,
        arch: AnyBackend,
        backend: BackendUnderTest,
        memory: GuestMemory,
        inject: Callable[[Any], None],
    ) -> None:
        """Its guest would begin in the handler. A reset forgets it."""
        with arch.Vm(memory) as vm:
            arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
            wanted = backend.state(vm.vcpus[0])
        with arch.Vm(memory) as vm:
            vcpu = vm.vcpus[0]
            inject(vcpu)
            with pytest.raises(NotFreshError):
                arch.configure_vcpu(vcpu, RealMode(0x1000))
            arch.reset_vcpu(vcpu, RealMode(0x1000))
            assert differences(backend.state(vcpu), wanted) == []

    @pytest.mark.parametrize("function", ["setup_fpu", "setup_msrs"])
    def test_a_function_of_its_own_makes_a_vcpu_used(
        self, arch: AnyBackend, memory: GuestMemory, function: str
    ) -> None:
        with arch.Vm(memory) as vm:
            getattr(arch, function)(vm.vcpus[0])
            with pytest.raises(NotFreshError):
                arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))

    def test_an_entry_of_no_mode(self, arch: AnyBackend, memory: GuestMemory) -> None:
        with (
            arch.Vm(memory) as vm,
            pytest.raises(
                TypeError, match="expected one of RealMode, Protected32, Long64, got Entry"
            ),
        ):
            arch.configure_vcpu(vm.vcpus[0], Entry(0x1000))

    def test_everything_after_the_machine_is_closed(
        self, arch: AnyBackend, memory: GuestMemory
    ) -> None:
        with arch.Vm(memory) as vm:
            vcpu = vm.vcpus[0]
            regs = vcpu.get_regs()
        vm.close()  # again
        uses: list[Callable[[], object]] = [
            vcpu.run,
            vcpu.kick,
            vcpu.get_regs,
            vcpu.get_sregs,
            vcpu.get_fpu,
            vcpu.get_lapic,
            vcpu.get_tsc_khz,
            lambda: vcpu.get_msrs([0x10]),
            lambda: vcpu.set_msrs({}),
            lambda: vcpu.set_regs(regs),
            lambda: vcpu.translate(0),
            lambda: vcpu.run_context,
            lambda: vm.set_irq_line(4, True),
            lambda: arch.setup_regs(vcpu, RealMode(0)),
            lambda: arch.configure_vcpu(vcpu, RealMode(0)),
            lambda: arch.reset_vcpu(vcpu, RealMode(0)),
        ]
        for use in uses:
            with pytest.raises(ClosedError, match="closed"):
                use()

    def test_an_error_can_cross_processes(self, guest: Start) -> None:
        with pytest.raises(HypervisorError) as refused:
            guest(SPIN).get_lapic()
        error = refused.value
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), copy.errno, copy.cause) == (str(error), error.errno, error.cause)


def handles() -> tuple[int, int]:
    """How many descriptors this process has, and how many mappings of a vCPU's page."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text().splitlines()
    return len(os.listdir("/proc/self/fd")), sum("kvm-vcpu" in line for line in maps)


def whole_life(arch: AnyBackend, memory: GuestMemory) -> None:
    memory.write(0x1000, IN_OUT_HLT)
    with arch.Vm(memory, vcpus=2, irqchip=True) as vm:
        vcpu: Any = vm.vcpus[0]
        arch.configure_vcpu(vcpu, RealMode(0x1000))
        assert vcpu.run_context is not None
        vcpu.run()


def test_as_many_machines_as_a_process_can_have(arch: AnyBackend, memory: GuestMemory) -> None:
    most = arch.MACHINES_PER_PROCESS
    memory.write(0x1000, b"\xf4")
    entry = RealMode(0x1000)
    with GuestMemory(0x1000) as others, arch.Vm(memory) as first:
        vcpu = first.vcpus[0]
        if most is None:
            with arch.Vm(others) as second:
                assert second.vcpus[0].get_regs() is not None
        else:
            assert most == 1
            with pytest.raises(HypervisorError, match=r"ALREADY_EXISTS: .* process \(multipro"):
                arch.Vm(others)
        arch.configure_vcpu(vcpu, entry)
        assert isinstance(vcpu.run(), Halt)
        arch.reset_vcpu(vcpu, entry)
        assert isinstance(vcpu.run(), Halt)
        assert arch.supported_cpuid()
        first.close()
        arch.Vm(others).close()


class TestLeaks:
    def test_a_machine_leaves_nothing_behind(self, arch: AnyBackend, memory: GuestMemory) -> None:
        whole_life(arch, memory)  # what is made once for a process
        before = handles()
        for _ in range(5):
            whole_life(arch, memory)
        assert handles() == before

    def test_a_machine_that_nobody_closed_leaves_nothing_behind(
        self, arch: AnyBackend, memory: GuestMemory
    ) -> None:
        whole_life(arch, memory)
        before = handles()
        arch.Vm(memory, vcpus=2)
        assert handles() == before
        memory.close()

    def test_creation_that_fails_anywhere_leaves_nothing_behind(
        self,
        arch: AnyBackend,
        backend: BackendUnderTest,
        memory: GuestMemory,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        whole_life(arch, memory)
        before = handles()
        failing = calls = 0

        def fail(name: str) -> None:
            nonlocal calls
            calls += 1
            if calls == failing:
                raise backend.no_memory()

        backend.before_calls(monkeypatch, fail)
        while failing <= calls:  # in the last round nothing fails
            failing, calls = failing + 1, 0
            try:
                arch.Vm(memory, vcpus=2, irqchip=True).close()
            except HypervisorError as error:
                assert "OUTOFMEMORY" in error.code or error.code == "ENOMEM"
            assert handles() == before, failing
        assert failing > 10
        memory.close()  # nobody holds it


def test_names_of_the_documentation_are_exported(arch: Any) -> None:
    for name in arch.__all__:
        assert hasattr(arch, name)
    assert {"Vm", "Vcpu", "GuestMemory", "IoIn", "configure_vcpu", "probe"} <= set(arch.__all__)


def test_what_a_hypervisor_lacks_says_so_when_it_is_asked_for(
    arch: AnyBackend, memory: GuestMemory
) -> None:
    with arch.Vm(memory) as vm:
        for operation, reason in arch.UNSUPPORTED.items():
            owner: Any = vm if hasattr(vm, operation) else vm.vcpus[0]
            asked = getattr(owner, operation)
            parameters = signature(asked).parameters.values()
            named = {one.name: None for one in parameters if one.kind is Parameter.KEYWORD_ONLY}
            arguments = [None] * (len(parameters) - len(named))
            with pytest.raises(HypervisorUnavailableError) as refused:
                asked(*arguments, **named)
            assert str(refused.value) == f"{operation}: ENOTSUP: {reason}"
