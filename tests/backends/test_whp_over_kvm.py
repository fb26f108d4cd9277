"""What is WHP's own in whp_x86_64, where guests run: over the stand-in of tests/whp."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backends import BackendUnderTest, backend_module
from requirements import PYTHON
from vcpu_state import WHP_REGISTERS, differences, set_whp_register, whp_register, whp_state
from vmm_arch import whp
from vmm_arch import whp_x86_64 as arch
from vmm_arch.abi import whp_x86_64 as abi
from vmm_arch.x86_64.platform.ioapic import SELECT, WINDOW
from whp.build import PLATFORM, libraries

LSTAR = 0xC0000082
SPIN = b"\xeb\xfe"  # jmp $
Guest = Callable[[bytes], arch.Vcpu]
ENTRIES = [arch.RealMode(0x1000), arch.Protected32(0x1000), arch.Long64(0x1000)]
CREATE, RUN = "WHvCreateVirtualProcessor", "WHvRunVirtualProcessor"
GET, SET = "WHvGetVirtualProcessorRegisters", "WHvSetVirtualProcessorRegisters"
XSAVE = "WHvGetVirtualProcessorXsaveState"
LAPIC = "WHvGetVirtualProcessorInterruptControllerState2"


@pytest.fixture(name="arch", autouse=True)
def only_whp() -> Any:
    """Have the shared fixtures make guests of WHP's."""
    return backend_module("whp_x86_64")


@pytest.fixture
def calls(backend: BackendUnderTest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The platform's functions that are called, as they are."""
    called: list[str] = []
    backend.before_calls(monkeypatch, called.append)
    return called


class TestMsrExits:
    def test_msrs_that_are_listed_are_chosen_before_the_machine_is_set_up(
        self, memory: arch.GuestMemory
    ) -> None:
        def prepare(vm: Any) -> None:
            vm.intercept_msrs([LSTAR], [])

        memory.write(0x1000, bytes.fromhex("66 b9820000c0 0f32 0f30 f4"))  # rdmsr; wrmsr; hlt
        with arch.Vm(memory, prepare=prepare) as vm:
            vcpu = vm.vcpus[0]
            complaint = r"takes these MSRs only in Vm\(prepare=...\): 0xc0000082"
            for reads, writes in (([], []), ([LSTAR], [LSTAR])):
                with pytest.raises(arch.HypervisorUnavailableError, match=complaint):
                    vm.intercept_msrs(reads, writes)
            with pytest.raises(arch.HypervisorUnavailableError, match="listed, not for all others"):
                vm.intercept_msrs(arch.AllExcept(), arch.AllExcept())
            arch.configure_vcpu(vcpu, arch.RealMode(0x1000))
            read = vcpu.run()
            assert isinstance(read, arch.MsrRead)
            read.complete(0)
            assert isinstance(vcpu.run(), arch.Halt)

    def test_some_can_be_chosen_at_any_time(self, guest: Guest) -> None:
        vcpu = guest(bytes.fromhex("66 b9a0010000 0f32 66 b978563412 0f32 f4"))  # rdmsr; rdmsr; hlt
        for unknown in (False, True):
            vcpu.vm.intercept_msrs([0x1A0], [0x10, 0x1B], unknown=unknown)
            for index in (0x1A0, 0x12345678)[: unknown + 1]:
                read = vcpu.run()
                assert isinstance(read, arch.MsrRead)
                assert read.index == index
                read.complete(0)
            assert isinstance(vcpu.run(), arch.Halt)
            arch.reset_vcpu(vcpu, arch.RealMode(0x1000))


class TestExceptions:
    """Those that are exits; the guest has an INT3 (0x1001), whose vector leads to 0x2000."""

    @pytest.fixture
    def vcpu(self, guest: Guest) -> arch.Vcpu:
        vcpu = guest(bytes.fromhex("90 cc f4"))
        vcpu.vm.memory.write(0x2000, bytes.fromhex("e6 33 cf"))  # out 0x33, al; iret
        vcpu.vm.memory.write(3 * 4, (0x2000).to_bytes(4, "little"))
        regs = vcpu.get_regs()
        regs.rsp = 0x8000
        vcpu.set_regs(regs)
        return vcpu

    @pytest.mark.parametrize("told", [False, True])
    def test_a_breakpoint_instruction_is_its_vcpus_breakpoint_first(
        self, vcpu: arch.Vcpu, told: bool
    ) -> None:
        vcpu.vm.intercept_exceptions([3])
        vcpu.intercept_breakpoints(told)
        exit = vcpu.run()
        assert isinstance(exit, arch.Breakpoint if told else arch.GuestException)
        expected = "Breakpoint(pc=0x1001)" if told else "GuestException(vector=3, rip=0x1001)"
        assert repr(exit) == expected
        vcpu.intercept_breakpoints(False)  # which leaves the other
        assert isinstance(vcpu.run(), arch.GuestException)
        exit.ignore()
        assert repr(vcpu.run()) == "IoOut(port=0x33, data=b'\\x00', size=1)"
        assert isinstance(vcpu.run(), arch.Halt)

    def test_one_that_is_no_exit_any_more_is_the_guests(self, vcpu: arch.Vcpu) -> None:
        vcpu.vm.intercept_exceptions([3])
        exit = vcpu.run()
        vcpu.vm.intercept_exceptions([])
        assert isinstance(vcpu.run(), arch.IoOut)
        with pytest.raises(arch.UnansweredError, match="does not wait for an answer"):
            exit.ignore()


def test_what_is_no_leaf_and_no_exception(guest: Guest) -> None:
    vm = guest(SPIN).vm
    with pytest.raises(ValueError, match="0x100000000: a leaf of CPUID is an unsigned"):
        vm.intercept_cpuid([1, 1 << 32])
    with pytest.raises(ValueError, match="-1, 32: the exceptions are 0 to 31"):
        vm.intercept_exceptions([-1, 3, 32])
    with pytest.raises(arch.HypervisorUnavailableError, match="no exits for the exceptions 18, 20"):
        vm.intercept_exceptions([3, 18, 20])


def test_a_device_is_refused(memory: arch.GuestMemory) -> None:
    for use in (lambda: arch.Vm(memory, device=0), lambda: arch.supported_cpuid(device=0)):
        with pytest.raises(
            arch.HypervisorUnavailableError, match=r"device=0: .* omit the argument"
        ):
            use()
    assert "device=0: ERROR_NOT_SUPPORTED" in str(arch.probe(device=0))


class TestCalls:
    @pytest.mark.parametrize("irqchip", [False, True], ids=["bare", "irqchip"])
    @pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: type(entry).__name__)
    def test_configure_makes_one_call(
        self, memory: arch.GuestMemory, entry: arch.Entry, irqchip: bool, calls: list[str]
    ) -> None:
        with arch.Vm(memory, irqchip=irqchip) as vm:
            calls.clear()
            arch.configure_vcpu(vm.vcpus[0], entry)
            assert calls == [SET]

    @pytest.mark.parametrize("irqchip", [False, True], ids=["bare", "irqchip"])
    def test_few_calls_lead_from_creation_to_the_first_run(
        self, memory: arch.GuestMemory, irqchip: bool, calls: list[str]
    ) -> None:
        memory.write(0x1000, b"\xe6\x11")  # out 0x11, al
        arch.Vm(memory, irqchip=irqchip).close()  # the first looks which registers there are
        calls.clear()
        with arch.Vm(memory, irqchip=irqchip) as vm:
            arch.configure_vcpu(vm.vcpus[0], ENTRIES[0])
            vm.vcpus[0].run()
        created = len(calls) - calls[::-1].index(CREATE)
        state = [XSAVE, LAPIC] if irqchip else [XSAVE]
        assert calls[created : calls.index(RUN, created)] == [GET, *state, SET]

    def test_secondaries_take_one_call_as_well(
        self, memory: arch.GuestMemory, calls: list[str]
    ) -> None:
        with arch.Vm(memory, vcpus=3, irqchip=True) as vm:
            calls.clear()
            for vcpu in vm.vcpus:
                arch.configure_vcpu(vcpu, ENTRIES[0])
            assert calls == [SET] * 3

    def test_a_port_access_takes_the_run_and_one_write(
        self, guest: Guest, calls: list[str]
    ) -> None:
        vcpu = guest(b"\xe4\x10\xe6\x11\xf4")  # in al, 0x10; out 0x11, al; hlt
        calls.clear()
        vcpu.run().ignore()
        vcpu.run()
        vcpu.run()
        assert calls == [RUN, SET, RUN, SET, RUN]


def test_no_register_that_can_be_written_survives_a_reset(memory: arch.GuestMemory) -> None:
    """Whatever a guest could have left in one: each bit that is taken is tried."""
    entry = arch.RealMode(0x1000)
    with arch.Vm(memory, irqchip=True) as fresh:
        arch.configure_vcpu(fresh.vcpus[0], entry)
        wanted = whp_state(fresh.vcpus[0])
    with arch.Vm(memory, irqchip=True) as used:
        arch.configure_vcpu(used.vcpus[0], entry)
        vcpu = used.vcpus[0]
        for number in WHP_REGISTERS.values():
            if (value := whp_register(vcpu, number)) is None:
                continue
            for bit in (63, 40, 20, 12, 11, 7, 1, 0):
                changed = int.from_bytes(value, "little") ^ 1 << bit
                try:
                    set_whp_register(vcpu, number, changed.to_bytes(16, "little"))
                except arch.HypervisorError:
                    continue
        assert len(differences(whp_state(vcpu), wanted)) > 100
        arch.reset_vcpu(vcpu, entry)
        assert differences(whp_state(vcpu), wanted) == []


def test_a_security_domain_is_asked_for_before_the_partition_is_set_up(
    memory: arch.GuestMemory,
) -> None:
    code = abi.WHvPartitionPropertyCodeSeparateSecurityDomain

    def prepare(vm: arch.Vm) -> None:
        vm.set_property(code, ctypes.c_uint32(1))

    for given, expected in ((None, 0), (prepare, 1)):
        with arch.Vm(memory, irqchip=True, prepare=given) as vm:
            value, size = ctypes.c_uint32(), ctypes.c_uint32()
            arch.platform.WHvGetPartitionProperty(
                vm.partition, code, ctypes.byref(value), 4, ctypes.byref(size)
            )
            assert value.value == expected
            with pytest.raises(arch.HypervisorError, match="too late to set the property"):
                prepare(vm)


class TestSingleSteps:
    """A guest that traps after each of its instructions traps after those done for it as well."""

    # An exception handler at 0x3000 that writes down where it returns to, from 0x900 on: push bp;
    # mov bp, sp; push ax; push bx; mov bx, [0x800]; mov ax, [bp+2]; mov [bx], ax;
    # add word [0x800], 2; pop bx; pop ax; pop bp; iret
    HANDLER = bytes.fromhex("55 89e5 50 53 8b1e0008 8b4602 8907 8306000802 5b 58 5d cf")
    # mov sp, 0x7000; push 0x102; popf, which is complete at 0x1006
    BEGIN = bytes.fromhex("bc0070 680201 9d")

    def trapped(self, memory: arch.GuestMemory, code: bytes, **more: Any) -> list[int]:
        """Where the guest came by, from the first instruction after BEGIN; all reads give 0."""
        memory.write(4, (0x3000).to_bytes(4, "little"))
        memory.write(0x800, (0x900).to_bytes(2, "little"))
        memory.write(0x3000, self.HANDLER)
        memory.write(0x1000, self.BEGIN + b"\x90" + code + b"\xf4")
        with arch.Vm(memory, **more) as vm:
            vcpu = vm.vcpus[0]
            arch.configure_vcpu(vcpu, arch.RealMode(0x1000))
            while not isinstance(exit := vcpu.run(), arch.Halt):
                assert not isinstance(exit, arch.Failure | arch.Shutdown), exit
                if isinstance(exit, arch.IoIn | arch.MmioRead):
                    assert exit.count == 1 or isinstance(exit, arch.MmioRead)
                    exit.complete(0)
        end = int.from_bytes(memory.read(0x800, 2), "little")
        places = memory.read(0x900, end - 0x900)
        return [
            int.from_bytes(places[at : at + 2], "little") - 0x1008
            for at in range(2, len(places), 2)  # the first is before that NOP
        ]

    @pytest.mark.parametrize(
        ("code", "where"),
        [
            ("e610 90", [2, 3]),  # out 0x10, al; nop
            ("e411 90", [2, 3]),  # in al, 0x11; nop
            ("b800a0 8ec0 26a20000 90", [3, 5, 9, 10]),  # mov es:[0], al: there is no memory
            ("b800a0 8ec0 26a00000 90", [3, 5, 9, 10]),  # mov al, es:[0]
            ("be0010 6e 90", [3, 4, 5]),  # outsb
            ("be0010 b90200 f36e 90", [3, 6, 6, 8, 9]),  # rep outsb: after each repetition
            ("bf0060 b90200 f36c 90", [3, 6, 6, 8, 9]),  # rep insb
            ("b97856 0f32 90", [3, 5, 6]),  # rdmsr of one that there is not
        ],
    )
    def test_where_the_guest_traps(self, code: str, where: list[int]) -> None:
        with arch.GuestMemory(0x10000) as small:
            assert self.trapped(small, bytes.fromhex(code)) == where

    def test_nothing_of_it_is_left_after_a_reset(self, memory: arch.GuestMemory) -> None:
        pending = abi.WHvX64RegisterPendingDebugException
        memory.write(0x1000, self.BEGIN + b"\xe6\x10\xf4")
        memory.write(4, (0x3000).to_bytes(4, "little"))
        memory.write(0x3000, self.HANDLER)
        entry = arch.RealMode(0x1000)
        with arch.Vm(memory) as vm:
            vcpu = vm.vcpus[0]
            arch.configure_vcpu(vcpu, entry)
            assert isinstance(vcpu.run(), arch.IoOut)
            vcpu.get_regs()  # which completes the instruction
            assert whp_register(vcpu, pending) == (1 << 4).to_bytes(16, "little")
            arch.reset_vcpu(vcpu, entry)
            assert whp_register(vcpu, pending) == bytes(16)


class TestUnknownMsrs:
    """MSRs that the platform does not know, which a Linux reads and writes nevertheless."""

    # mov ecx, 0x12345678; mov eax, -1; cdq; wrmsr; rdmsr; out 0x10, eax; xchg eax, edx; out 0x10, eax
    CODE = bytes.fromhex("66b978563412 6683c8ff 6699 0f30 0f32 66e710 6692 66e710")

    def test_they_are_zero_and_ignore_what_is_written(self, guest: Guest) -> None:
        vcpu = guest(self.CODE)
        assert [vcpu.run(), vcpu.run()] == [self.out(0), self.out(0)]

    def test_the_platform_decides_where_it_is_told_so(self, memory: arch.GuestMemory) -> None:
        """Without the exits it is a general protection exception, and here three."""

        def prepare(vm: arch.Vm) -> None:
            vm.set_property(
                abi.WHvPartitionPropertyCodeExtendedVmExits, abi.WHV_EXTENDED_VM_EXITS()
            )

        memory.write(0x1000, self.CODE)
        memory.write(13 * 4, (0x3000).to_bytes(4, "little"))  # the handler of #GP
        memory.write(0x3000, b"\xe6\x13")  # out 0x13, al
        with arch.Vm(memory, prepare=prepare) as vm:
            arch.configure_vcpu(vm.vcpus[0], arch.RealMode(0x1000))
            exit = vm.vcpus[0].run()
        assert isinstance(exit, arch.IoOut)
        assert exit.port == 0x13

    def test_an_action_for_one_of_them(self, memory: arch.GuestMemory) -> None:
        """Properties that can be set before the partition is set up, and at no other time."""

        def prepare(vm: arch.Vm) -> None:
            entry = abi.WHV_MSR_ACTION_ENTRY(
                Index=0xC0000082,
                ReadAction=abi.WHvMsrActionIgnoreWriteReadZero,
                WriteAction=abi.WHvMsrActionIgnoreWriteReadZero,
            )
            vm.set_property(abi.WHvPartitionPropertyCodeMsrActionList, entry)

        memory.write(0x1000, self.CODE.replace(bytes.fromhex("78563412"), b"\x82\x00\x00\xc0"))
        for action, expected in ((None, 0xFFFFFFFF), (prepare, 0)):
            with arch.Vm(memory, prepare=action) as vm:
                arch.configure_vcpu(vm.vcpus[0], arch.RealMode(0x1000))
                assert vm.vcpus[0].run() == self.out(expected)
                with pytest.raises(arch.HypervisorError, match="too late to set the property"):
                    prepare(vm)

    @staticmethod
    def out(value: int) -> Any:
        class Like:
            def __eq__(self, other: object) -> bool:
                return isinstance(other, arch.IoOut) and other.data == value.to_bytes(4, "little")

        return Like()


def test_a_halt_that_an_interrupt_can_end_is_entered_again(
    memory: arch.GuestMemory, backend: BackendUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older versions of Windows tell of it although the APIC is theirs."""
    entries: list[int] = []

    def around(enter: Callable[..., Any]) -> Callable[..., Any]:
        def entry(partition: int, index: int, context: Any, size: int) -> Any:
            entries.append(index)
            if len(entries) <= 3:
                vcpu.run_context.ExitReason = abi.WHvRunVpExitReasonX64Halt
                return 0
            return enter(partition, index, context, size)

        return entry

    memory.write(0x1000, b"\xe6\x10\xf4")  # out 0x10, al; hlt
    with arch.Vm(memory, irqchip=True) as vm:
        vcpu = vm.vcpus[0]
        arch.configure_vcpu(vcpu, arch.RealMode(0x1000))
        backend.around_entry(monkeypatch, around)
        assert isinstance(vcpu.run(), arch.IoOut)
        assert len(entries) == 4


class TestRefusals:
    """Every refusal says the operation, the HRESULT's name and the usual cause."""

    def test_a_register_that_is_refused_is_named_with_its_value(self, guest: Guest) -> None:
        vcpu = guest(SPIN)
        complaint = f"{SET}: .*: WHvX64RegisterPat cannot be 0x1234 on this host"
        with pytest.raises(arch.HypervisorError, match=complaint):
            vcpu.set_msrs({0x174: 1, 0x277: 0x1234, 0xC0000082: 2})

    def test_registers_that_contradict_each_other(self, guest: Guest) -> None:
        vcpu = guest(SPIN)
        sregs = vcpu.get_sregs()
        sregs.efer, sregs.cr0 = 0x100, 0x80000011  # LME and PG without LMA
        with pytest.raises(arch.HypervisorError, match=rf"{SET}: ERROR_HV_INVALID_PARAMETER: "):
            vcpu.set_sregs(sregs)

    def test_a_property_that_comes_too_late(self, memory: arch.GuestMemory) -> None:
        with arch.Vm(memory) as vm:
            complaint = "WHvSetPartitionProperty: E_INVALIDARG: it is too late to set the property"
            with pytest.raises(arch.HypervisorError, match=complaint):
                vm.set_property(abi.WHvPartitionPropertyCodeProcessorCount, ctypes.c_uint32(2))

    def test_a_property_that_nobody_knows(self, memory: arch.GuestMemory) -> None:
        with arch.Vm(memory) as vm:
            complaint = "WHvSetPartitionProperty: WHV_E_UNKNOWN_PROPERTY: this version of Windows"
            with pytest.raises(arch.HypervisorError, match=complaint):
                vm.set_property(0x7777, ctypes.c_uint32(2))

    def test_a_capability_that_nobody_knows(self) -> None:
        complaint = "WHvGetCapability: WHV_E_UNKNOWN_CAPABILITY: this version of Windows"
        with pytest.raises(arch.HypervisorError, match=complaint):
            vars(arch)["_capability"](0x7777)

    def test_memory_that_is_not_aligned(self, memory: arch.GuestMemory) -> None:
        host = memory.host_address(memory.regions[0])
        flags = abi.WHvMapGpaRangeFlagRead
        with arch.Vm(memory) as vm:
            for where in ((host + 1, 1 << 32, 0x1000), (host, 0x800, 0x1000), (host, 1 << 32, 7)):
                complaint = "WHvMapGpaRange: E_INVALIDARG: the memory is beyond"
                with pytest.raises(arch.HypervisorError, match=complaint):
                    arch.platform.WHvMapGpaRange(vm.partition, *where, flags)

    def test_memory_that_was_never_mapped(self, memory: arch.GuestMemory) -> None:
        with arch.Vm(memory) as vm:
            complaint = "WHvUnmapGpaRange: WHV_E_GPA_RANGE_NOT_FOUND: nothing is mapped there"
            with pytest.raises(arch.HypervisorError, match=complaint):
                arch.platform.WHvUnmapGpaRange(vm.partition, 1 << 32, 0x1000)

    @pytest.mark.parametrize("argument", ["irqchip", "track_dirty"])
    def test_a_feature_that_the_host_does_not_have(
        self, memory: arch.GuestMemory, argument: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = arch._capability

        def none_of_them(code: int) -> abi.WHV_CAPABILITY:
            is_features = code == abi.WHvCapabilityCodeFeatures
            return abi.WHV_CAPABILITY() if is_features else real(code)

        monkeypatch.setattr(arch, "_capability", none_of_them)
        wanted: Any = {argument: True}
        with pytest.raises(arch.HypervisorUnavailableError, match=rf"Vm\({argument}=True\)"):
            arch.Vm(memory, **wanted)
        memory.close()

    @pytest.mark.parametrize("kind", [2, 3, 7], ids=["SMI", "reserved", "ExtINT"])
    def test_an_interrupt_that_the_platform_does_not_have_is_dropped(
        self, memory: arch.GuestMemory, kind: int
    ) -> None:
        with arch.Vm(memory, irqchip=True) as vm:
            for register, value in ((0x10 + 2 * 9 + 1, 0), (0x10 + 2 * 9, kind << 8 | 0x31)):
                vm.ioapic.write(SELECT, 4, register)
                vm.ioapic.write(WINDOW, 4, value)
            vm.set_irq_line(9, True)

    def test_a_processor_twice_too_many_or_none(self, memory: arch.GuestMemory) -> None:
        with arch.Vm(memory) as vm:
            with pytest.raises(arch.HypervisorError, match=f"{CREATE}: WHV_E_VP_ALREADY_EXISTS: "):
                arch.platform.WHvCreateVirtualProcessor(vm.partition, 0, 0)
            with pytest.raises(arch.HypervisorError, match=f"{CREATE}: E_INVALIDARG: the index"):
                arch.platform.WHvCreateVirtualProcessor(vm.partition, 1, 0)
            missing = "WHvDeleteVirtualProcessor: WHV_E_VP_DOES_NOT_EXIST: the partition has no"
            with pytest.raises(arch.HypervisorError, match=missing):
                arch.platform.WHvDeleteVirtualProcessor(vm.partition, 1)

    def test_a_guest_that_executes_where_there_is_no_memory(self, guest: Guest) -> None:
        vcpu = guest(SPIN)
        sregs = vcpu.get_sregs()
        sregs.cs.base = 0x40000000
        vcpu.set_sregs(sregs)
        failure = vcpu.run()
        assert isinstance(failure, arch.Failure)
        assert failure.operation == RUN
        assert failure.code == "WHvRunVpExitReasonMemoryAccess"
        assert failure.message.startswith("the guest executes at 0x40001000, an address without")
        assert vcpu.run_context.ExitReason == abi.WHvRunVpExitReasonMemoryAccess


def test_cpuid_of_a_guest_is_asked_for_before_there_is_a_machine(
    memory: arch.GuestMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As older versions of Windows want it."""
    module: Any = arch
    module._cpuid_of_host.cache_clear()
    # Of the class: what is put back on an object stays on it, before what its class has.
    monkeypatch.setattr(type(module.platform), "has", lambda self, name: False)
    try:
        assert len(arch.supported_cpuid()) > 10
        with arch.Vm(memory):
            assert len(arch.supported_cpuid()) > 10
            module._cpuid_of_host.cache_clear()
            with pytest.raises(
                arch.HypervisorError, match=r"ALREADY_EXISTS: .* call it once before"
            ):
                arch.supported_cpuid()
    finally:
        module._cpuid_of_host.cache_clear()


MANY = """
from multiprocessing import get_context
from vmm_arch import whp_x86_64 as arch

def play(number):
    with arch.GuestMemory(0x10000) as memory, arch.Vm(memory) as vm:
        memory.write(0x1000, bytes([0xE6, 0x11]))  # out 0x11, al
        arch.configure_vcpu(vm.vcpus[0], arch.RealMode(0x1000, rax=number))
        return vm.vcpus[0].run().data[0]

if __name__ == "__main__":
    with arch.GuestMemory(0x1000) as memory, arch.Vm(memory), get_context("spawn").Pool(2) as pool:
        print(pool.map(play, [7, 8, 9]))
"""


def test_more_machines_take_a_process_each(tmp_path: Path) -> None:
    """As the refusal of a second machine says."""
    (tmp_path / "many.py").write_text(MANY)
    done = subprocess.run(
        [PYTHON, tmp_path / "many.py"],
        capture_output=True,
        text=True,
        env=os.environ | {whp.VARIABLE: str(libraries() / PLATFORM)},
        check=False,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("[7, 8, 9]\n", "")


class TestOlderWindows:
    """A platform that does not know what newer versions do: in a process of its own."""

    def run(self, code: str, *lacking: str) -> str:
        environment = {whp.VARIABLE: str(libraries() / PLATFORM)}
        kinds = {True: "p", False: "r"}
        environment["VMM_ARCH_WHP_LACKS"] = ",".join(
            f"{kinds['Property' in name]}{getattr(abi, name):x}" for name in lacking
        )
        done = subprocess.run(
            [PYTHON, "-c", code],
            capture_output=True,
            text=True,
            env=os.environ | environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @pytest.mark.parametrize(
        ("lacking", "msr"), [("MsrActionList", 0xC0000082), ("X64MsrExitBitmap", 0x10)]
    )
    def test_msrs_that_it_has_no_exits_for(self, lacking: str, msr: int) -> None:
        code = f"""
from vmm_arch import whp_x86_64 as arch
with arch.GuestMemory(0x2000) as memory:
    try:
        arch.Vm(memory, prepare=lambda vm: vm.intercept_msrs([{msr}], ()))
    except arch.HypervisorUnavailableError as error:
        print(error)
"""
        printed = self.run(code, f"WHvPartitionPropertyCode{lacking}")
        assert printed.startswith("intercept_msrs: ENOTSUP: this version of Windows ")

    CONFIGURED = """
from vmm_arch import whp_x86_64 as arch
entry = arch.RealMode(0x1000)
for irqchip in (False, True):
    with arch.GuestMemory(0x10000) as memory, arch.Vm(memory, irqchip=irqchip) as vm:
        memory.write(0x1000, bytes([0xE6, 0x11, 0xF4]))  # out 0x11, al; hlt
        vcpu = vm.vcpus[0]
        arch.configure_vcpu(vcpu, entry)
        print(vcpu.run())
        arch.reset_vcpu(vcpu, entry)
        print(vcpu.run())
        if irqchip:
            lapic = vcpu.get_lapic()
            print(*(hex(lapic[at]) for at in (0x20, 0x80, 0xF0, 0x320, 0x350, 0x360, 0x370)))
        try:
            print(hex(vcpu.get_msrs([0x1A0])[0x1A0]))
        except arch.HypervisorError as error:
            print(error)
"""
    OUT = "IoOut(port=0x11, data=b'\\x00', size=1)"
    LAPIC = "0x0 0x0 0xff 0x10000 0x700 0x400 0x10000"

    def test_one_that_lacks_nothing(self) -> None:
        said = self.run(self.CONFIGURED).splitlines()
        assert said == [self.OUT, self.OUT, "0x1", self.OUT, self.OUT, self.LAPIC, "0x1"]

    def test_one_without_misc_enable(self) -> None:
        said = self.run(self.CONFIGURED, "WHvX64RegisterMsrIa32MiscEnable").splitlines()
        gone = f"{GET}: WHV_E_INVALID_VP_REGISTER_NAME: MSR 0x1a0 (MSR_IA32_MISC_ENABLE) does not exist on this host or"
        assert said == [
            *(self.OUT, self.OUT, f"{gone} with this CPUID"),
            *(self.OUT, self.OUT, self.LAPIC, f"{gone} with this CPUID"),
        ]

    @pytest.mark.parametrize(
        "lacking",
        [
            ["WHvX64RegisterApicLvtLint0", "WHvX64RegisterApicLvtLint1"],
            ["WHvX64RegisterApicLvtLint1"],
            [name for name in WHP_REGISTERS if name.startswith("WHvX64RegisterApic")][1:],
        ],
        ids=["LINT0 and LINT1", "LINT1", "all of the APIC's"],
    )
    def test_one_without_the_local_apics_registers(self, lacking: list[str]) -> None:
        """They are written with the APIC's page."""
        said = self.run(self.CONFIGURED, *lacking).splitlines()
        assert said == [self.OUT, self.OUT, "0x1", self.OUT, self.OUT, self.LAPIC, "0x1"]

    def test_one_without_a_register_that_is_needed_says_which(self) -> None:
        code = (
            "from vmm_arch import whp_x86_64 as arch\n"
            "memory = arch.GuestMemory(0x2000)\n"
            "try: arch.configure_vcpu(arch.Vm(memory).vcpus[0], arch.RealMode(0x1000))\n"
            "except arch.HypervisorError as error: print(error)\n"
        )
        said = self.run(code, "WHvX64RegisterPat")
        name = "WHV_E_INVALID_VP_REGISTER_NAME"
        assert said.startswith(f"{SET}: {name}: WHvX64RegisterPat cannot be 0x7040600070406 on")

    def test_one_without_some_functions(
        self, memory: arch.GuestMemory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Machines are made without them; what cannot be done says so when it is asked for."""
        platform: Any = arch.platform
        for kind in ("XsaveState", "InterruptControllerState2"):
            for name in (f"WHvGetVirtualProcessor{kind}", f"WHvSetVirtualProcessor{kind}"):

                def missing(*arguments: Any, name: str = name) -> None:
                    raise arch.HypervisorUnavailableError(name, "ERROR_PROC_NOT_FOUND", "as if")

                monkeypatch.setattr(platform, name, missing)
        there = type(platform).has
        monkeypatch.setattr(
            type(platform), "has", lambda self, name: "State" not in name and there(self, name)
        )
        memory.write(0x1000, b"\xe6\x11")  # out 0x11, al
        with arch.Vm(memory, irqchip=True) as vm:
            arch.configure_vcpu(vm.vcpus[0], arch.RealMode(0x1000))
            assert isinstance(vm.vcpus[0].run(), arch.IoOut)
            with pytest.raises(arch.HypervisorUnavailableError, match=r"XsaveState: .*NOT_FOUND"):
                arch.reset_vcpu(vm.vcpus[0], arch.RealMode(0x1000))

    CPUID = """
from vmm_arch import whp_x86_64 as arch
arch._cpuid_of_platform = arch._cpuid_of_guest  # which sees more bits with a KVM in software
with arch.GuestMemory(0x10000) as memory, arch.Vm(memory, vcpus=2) as vm:
    memory.write(0x1000, bytes([0x0F, 0xA2, 0xF4]))  # cpuid; hlt
    for vcpu in vm.vcpus:
        arch.configure_vcpu(vcpu, arch.RealMode(0x1000))
        asked = [(entry.function, entry.index or 0) for entry in vm.cpuid]
        for function, index in [*asked, (0xB, 0), (0xB, 1), (0x40000000, 0)]:
            vcpu.set_regs(arch.Regs(rax=function, rcx=index, rip=0x1000, rflags=2))
            vcpu.run()
            regs = vcpu.get_regs()
            print(hex(function), index, *map(hex, (regs.rax, regs.rbx, regs.rcx, regs.rdx)))
"""

    def test_one_without_answers_for_subleaves_and_processors(self) -> None:
        """CPUID is answered by exits then, to the same effect."""
        listed = self.run(self.CPUID)
        assert len(listed.splitlines()) > 50
        by_exits = self.run(self.CPUID, "WHvPartitionPropertyCodeCpuidResultList2")
        assert by_exits.splitlines() == listed.splitlines()
