"""kvm_x86_64 on the real /dev/kvm: what it leaves behind in a vCPU, and what bad uses get."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import pickle
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from requirements import PYTHON, require
from vmm_arch import kvm
from vmm_arch import kvm_x86_64 as arch
from vmm_arch.abi import kvm_x86_64 as abi

SPIN = b"\xeb\xfe"  # jmp $
IN_OUT_HLT = b"\xe4\x10\xe6\x11\xf4"  # in al, 0x10; out 0x11, al; hlt
ENTRIES = [
    arch.RealMode(0x1000, rsp=0x8000),
    arch.Protected32(0x1000, rsp=0x8000, rbx=0x6000),
    arch.Long64(0x1000, rsp=0x8000, rsi=0x7000),
]
RUNNING_CLOCKS = {0x10, 0x6E0}  # IA32_TSC and its deadline: never the same twice


@pytest.fixture(autouse=True)
def device() -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")


@pytest.fixture
def memory() -> Iterator[arch.GuestMemory]:
    with arch.GuestMemory(0x100000) as memory:
        yield memory


@pytest.fixture
def guest(memory: arch.GuestMemory) -> Iterator[Callable[[bytes], arch.Vcpu]]:
    """Start real-mode code in a new machine."""
    machines = []

    def start(code: bytes) -> arch.Vcpu:
        vm = arch.Vm(memory)
        machines.append(vm)
        memory.write(0x1000, code)
        arch.configure_vcpu(vm.vcpus[0], arch.RealMode(0x1000))
        return vm.vcpus[0]

    yield start
    for vm in machines:
        vm.close()


def everything(vcpu: arch.Vcpu) -> dict[str, Any]:
    """Read all state that KVM gives, so that two vCPUs can be compared."""
    records = {
        "regs": (abi.KVM_GET_REGS, abi.kvm_regs()),
        "sregs": (abi.KVM_GET_SREGS, abi.kvm_sregs()),
        "xcrs": (abi.KVM_GET_XCRS, abi.kvm_xcrs()),
        "debugregs": (abi.KVM_GET_DEBUGREGS, abi.kvm_debugregs()),
        "events": (abi.KVM_GET_VCPU_EVENTS, abi.kvm_vcpu_events()),
        "mp_state": (abi.KVM_GET_MP_STATE, abi.kvm_mp_state()),
    }
    if vcpu.vm.irqchip:
        records["lapic"] = (abi.KVM_GET_LAPIC, abi.kvm_lapic_state())
    for request, record in records.values():
        vcpu.ioctl(request, record)
    state: dict[str, Any] = {name: bytes(record) for name, (_, record) in records.items()}
    fpu = vcpu.get_fpu()
    fpu.mxcsr_mask = 0  # what the processor can, not what is set
    state["fpu"] = bytes(fpu)
    for index in {*arch.msr_indices(), *arch.UNLISTED_MSRS} - RUNNING_CLOCKS:
        try:
            state[f"msr {index:#x}"] = vcpu.get_msrs([index])[index]
        except arch.HypervisorError:
            continue
    return state


def msrs_of(vcpu: arch.Vcpu, numbers: list[int]) -> dict[int, int]:
    """All MSRs among these that exist, but for the clocks."""
    found: dict[int, int] = {}
    for number in set(numbers) - RUNNING_CLOCKS:
        with suppress(arch.HypervisorError):
            found |= vcpu.get_msrs([number])
    return found


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    return [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]


def set_up_separately(vcpu: arch.Vcpu, entry: arch.Entry) -> None:
    arch.setup_sregs(vcpu, entry)
    arch.setup_regs(vcpu, entry)
    arch.setup_fpu(vcpu)
    if vcpu.vm.irqchip:
        arch.set_lint(vcpu)
    arch.setup_msrs(vcpu)


def make_a_mess(vcpu: arch.Vcpu) -> None:
    """Change whatever a guest, or who runs it, could have changed."""
    xcrs = abi.kvm_xcrs(nr_xcrs=1)
    xcrs.xcrs[0].value = 3
    vcpu.ioctl(abi.KVM_SET_XCRS, xcrs)
    vcpu.ioctl(abi.KVM_SET_DEBUGREGS, abi.kvm_debugregs(db=(1, 2, 3, 4), dr6=0xFFFF0FF0, dr7=0x455))
    vcpu.set_fpu(arch.Fpu(fcw=0x27F, ftw=0xFF, mxcsr=0x1FC0, xstate_bv=3))
    sregs = vcpu.get_sregs()
    sregs.cr2, sregs.cr8 = 0x1234, 3
    sregs.gs.base = 0x5000
    vcpu.set_sregs(sregs)
    vcpu.set_regs(arch.Regs(rax=1, r15=15, rip=0x1000, rflags=0x246))
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
    events = abi.kvm_vcpu_events()
    vcpu.ioctl(abi.KVM_GET_VCPU_EVENTS, events)
    events.nmi.masked = 1
    events.flags = abi.KVM_VCPUEVENT_VALID_NMI_PENDING
    vcpu.ioctl(abi.KVM_SET_VCPU_EVENTS, events)


modes = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: type(entry).__name__)
irqchips = pytest.mark.parametrize("irqchip", [False, True], ids=["bare", "irqchip"])


class TestState:
    """What the arch functions leave in a vCPU, read back in full."""

    @modes
    @irqchips
    def test_configure_leaves_what_the_separate_functions_leave(
        self, memory: arch.GuestMemory, entry: arch.Entry, irqchip: bool
    ) -> None:
        with arch.Vm(memory, irqchip=irqchip) as one, arch.Vm(memory, irqchip=irqchip) as other:
            arch.configure_vcpu(one.vcpus[0], entry)
            set_up_separately(other.vcpus[0], entry)
            found = everything(one.vcpus[0])
            assert len(found) > 60
            assert differences(found, everything(other.vcpus[0])) == []

    @modes
    @irqchips
    def test_reset_leaves_what_configure_leaves_whatever_was_before(
        self, memory: arch.GuestMemory, entry: arch.Entry, irqchip: bool
    ) -> None:
        with arch.Vm(memory, irqchip=irqchip) as fresh, arch.Vm(memory, irqchip=irqchip) as used:
            arch.configure_vcpu(fresh.vcpus[0], entry)
            wanted = everything(fresh.vcpus[0])
            make_a_mess(used.vcpus[0])
            messy = differences(everything(used.vcpus[0]), wanted)
            assert {"regs", "sregs", "fpu", "xcrs", "debugregs", "events"} <= set(messy)
            assert {"msr 0x174", "msr 0xc0000082", "msr 0x200"} <= set(messy)
            arch.reset_vcpu(used.vcpus[0], entry)
            assert differences(everything(used.vcpus[0]), wanted) == []

    def test_no_msr_that_can_be_written_survives_a_reset(self, memory: arch.GuestMemory) -> None:
        """Whatever a guest could have left in one: each bit pattern that KVM takes is tried."""
        numbers = [*range(0x1000), *range(0x40000000, 0x40000200), *range(0x4B564D00, 0x4B564D10)]
        numbers += [*range(0xC0000080, 0xC0000110), *range(0xC0010000, 0xC0010300)]
        with arch.Vm(memory) as fresh, arch.Vm(memory) as used:
            entry = ENTRIES[0]
            arch.configure_vcpu(fresh.vcpus[0], entry)
            arch.configure_vcpu(used.vcpus[0], entry)
            wanted = msrs_of(fresh.vcpus[0], numbers)
            assert len(wanted) > 100
            changed = 0
            for number, value in wanted.items():
                for bits in (1, 0x800, 0x123000, 1 << 63):
                    try:
                        used.vcpus[0].set_msrs({number: value ^ bits})
                        changed += 1
                    except arch.HypervisorError:
                        continue
            assert changed > 100
            assert msrs_of(used.vcpus[0], numbers) != wanted
            arch.reset_vcpu(used.vcpus[0], entry)
            left = msrs_of(used.vcpus[0], numbers)
            assert {hex(n): left[n] for n in wanted if left[n] != wanted[n]} == {}

    def test_a_start_that_was_latched_is_forgotten(self, memory: arch.GuestMemory) -> None:
        """vCPU 0 sends INIT and SIPI to vCPU 1, which does not run before both are reset."""
        code = bytes.fromhex(
            "c70510 03e0fe 00000001"  # mov dword [0xfee00310], 1 << 24: to APIC id 1
            "c70500 03e0fe 00450000"  # mov dword [0xfee00300], INIT, assert
            "c70500 03e0fe 02460000"  # mov dword [0xfee00300], SIPI, vector 2
            "f4"
        )
        entry = arch.Protected32(0x1000)
        memory.write(0x1000, code)
        memory.write(0x2000, b"\xe6\x77\xf4")  # out 0x77, al; hlt
        with arch.Vm(memory, vcpus=2, irqchip=True) as vm:
            arch.configure_system(vm, entry)
            boot, secondary = vm.vcpus
            arch.configure_vcpu(boot, entry)
            arch.configure_vcpu(secondary, entry)
            threading.Timer(0.1, boot.kick).start()
            assert isinstance(boot.run(), arch.Kicked)
            for vcpu in vm.vcpus:
                arch.reset_vcpu(vcpu, entry)
            threading.Timer(0.1, secondary.kick).start()
            assert isinstance(secondary.run(), arch.Kicked)

    def test_a_secondary_is_reset_to_what_it_was_when_configured(
        self, memory: arch.GuestMemory
    ) -> None:
        with arch.Vm(memory, vcpus=2, irqchip=True) as vm:
            secondary = vm.vcpus[1]
            assert secondary.is_secondary
            arch.configure_vcpu(secondary, ENTRIES[0])
            before = everything(secondary)
            make_a_mess(secondary)
            arch.reset_vcpu(secondary, ENTRIES[0])
            after = everything(secondary)
            # INIT and SIPI will set these, so that configuring need not.
            assert set(differences(after, before)) <= {"regs", "sregs", "fpu", "lapic"}
            assert after["mp_state"] == bytes(abi.kvm_mp_state(mp_state=1))
            assert secondary.get_lapic()[0x20] == 1 << 24

    @modes
    def test_configure_reads_nothing_and_makes_four_calls(
        self, memory: arch.GuestMemory, entry: arch.Entry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        requests: list[int] = []
        for way in ("ioctl", "ioctl_large"):
            real = getattr(arch, way)

            def recorded(fd: int, request: int, argument: Any, real: Any = real) -> int:
                requests.append(request)
                result: int = real(fd, request, argument)
                return result

            monkeypatch.setattr(arch, way, recorded)
        with arch.Vm(memory, irqchip=True) as vm:
            at_creation = requests.count(abi.KVM_SET_CPUID2)
            requests.clear()
            arch.configure_vcpu(vm.vcpus[0], entry)
            assert at_creation == 1  # the fifth
            assert len(requests) == 4
            assert not [request for request in requests if request >> 30 & abi._IOC_READ]

    def test_sregs_are_views_and_the_lapic_is_read_by_offset(
        self, memory: arch.GuestMemory
    ) -> None:
        with arch.Vm(memory, irqchip=True) as vm:
            vcpu = vm.vcpus[0]
            arch.configure_vcpu(vcpu, arch.Long64(0x1000))
            sregs = vcpu.get_sregs()
            assert (sregs.cs.selector, sregs.cs.l, sregs.cs.limit) == (0x10, 1, 0xFFFFFFFF)
            sregs.fs.base = 0x7000
            vcpu.set_sregs(sregs)
            assert vcpu.get_sregs().fs.base == 0x7000
            lapic = vcpu.get_lapic()
            assert (lapic[0x350], lapic[0x360]) == (0x700, 0x400)
            for offset in (0x351, -0x10, 0x400):
                with pytest.raises(IndexError, match="no register of the local APIC"):
                    lapic[offset]

    def test_translate_follows_the_page_tables(self, memory: arch.GuestMemory) -> None:
        with arch.Vm(memory) as vm:
            entry = arch.Long64(0x1000)
            arch.configure_system(vm, entry)
            arch.configure_vcpu(vm.vcpus[0], entry)
            assert vm.vcpus[0].translate(0x12345) == 0x12345
            assert vm.vcpus[0].translate(5 << 30) is None


class TestAccesses:
    """Exits that wait for an answer, and state in between."""

    def test_an_unanswered_read_is_named(self, guest: Callable[[bytes], arch.Vcpu]) -> None:
        vcpu = guest(IN_OUT_HLT)
        access = vcpu.run()
        assert repr(access) == "IoIn(port=0x10, size=1, count=1)"
        for use in (vcpu.run, vcpu.get_regs, lambda: vcpu.set_msrs({}), lambda: vcpu.translate(0)):
            with pytest.raises(arch.UnansweredReadError, match="vCPU 0: the guest waits"):
                use()

    def test_state_is_new_once_the_read_is_answered(
        self, guest: Callable[[bytes], arch.Vcpu]
    ) -> None:
        vcpu = guest(IN_OUT_HLT)
        access = vcpu.run()
        assert isinstance(access, arch.IoIn)
        access.complete(0x5A)
        regs = vcpu.get_regs()
        assert (regs.rax & 0xFF, regs.rip) == (0x5A, 0x1002)
        regs.rax = 0x77
        vcpu.set_regs(regs)
        assert repr(vcpu.run()) == "IoOut(port=0x11, data=b'w', size=1)"
        assert vcpu.get_regs().rip == 0x1004
        assert isinstance(vcpu.run(), arch.Halt)

    @pytest.mark.parametrize(
        ("answer", "complaint"),
        [
            (0x100, "0x100 is no unsigned value of 1 bytes"),
            (-1, "-0x1 is no unsigned value of 1 bytes"),
            (b"ab", "2 bytes answer a read of 1 values of 1 bytes"),
        ],
    )
    def test_an_answer_that_does_not_fit(
        self, guest: Callable[[bytes], arch.Vcpu], answer: int | bytes, complaint: str
    ) -> None:
        access = guest(IN_OUT_HLT).run()
        assert isinstance(access, arch.IoIn)
        with pytest.raises(ValueError, match=complaint):
            access.complete(answer)
        access.complete(0)  # nothing has been answered yet

    def test_only_one_answer_is_taken(self, guest: Callable[[bytes], arch.Vcpu]) -> None:
        access = guest(IN_OUT_HLT).run()
        access.ignore()
        with pytest.raises(arch.UnansweredReadError, match="no read waits for an answer"):
            access.ignore()

    def test_ignoring_reads_all_ones(self, guest: Callable[[bytes], arch.Vcpu]) -> None:
        vcpu = guest(IN_OUT_HLT)
        vcpu.run().ignore()
        out = vcpu.run()
        assert isinstance(out, arch.IoOut)
        assert (out.data, out.value) == (b"\xff", 0xFF)

    def test_a_read_that_memory_answers_in_part(self, memory: arch.GuestMemory) -> None:
        """Four bytes of which two are the last of memory, and two beyond."""
        memory.write(0x1000, bytes.fromhex("a1feff0f00 f4"))  # mov eax, [0xffffe]; hlt
        memory.write(0xFFFFE, b"\x11\x22")
        with arch.Vm(memory) as vm:
            vcpu = vm.vcpus[0]
            entry = arch.Protected32(0x1000)
            arch.configure_system(vm, entry)
            arch.configure_vcpu(vcpu, entry)
            read = vcpu.run()
            assert isinstance(read, arch.MmioRead)
            assert (read.address, read.size) == (0x100000, 2)
            read.complete(b"\x33\x44")
            assert vcpu.get_regs().rax == 0x44332211
            assert isinstance(vcpu.run(), arch.Halt)

    def test_an_instruction_with_two_accesses_goes_on_with_the_second(
        self, guest: Callable[[bytes], arch.Vcpu]
    ) -> None:
        vcpu = guest(bytes.fromhex("bf0020 b90300 f36c f4"))  # mov di, 0x2000; cx 3; rep insb; hlt
        got = b""
        while not isinstance(exit := vcpu.run(), arch.Halt):
            assert isinstance(exit, arch.IoIn)
            answer = bytes(range(len(got), len(got) + exit.count))
            exit.complete(answer)
            got += answer
            while True:
                try:
                    vcpu.get_regs()
                    break
                except arch.UnansweredReadError:  # not over: its next access is a run away
                    more = vcpu.run()
                    assert isinstance(more, arch.IoIn)
                    answer = bytes(range(len(got), len(got) + more.count))
                    more.complete(answer)
                    got += answer
        assert vcpu.vm.memory.read(0x2000, 3) == got == b"\0\1\2"

    def test_an_exit_that_an_exception_lost_is_returned_by_the_next_run(
        self, guest: Callable[[bytes], arch.Vcpu]
    ) -> None:
        vcpu = guest(b"\xb0\x21\xe6\x11\xf4")  # mov al, '!'; out 0x11, al; hlt
        real = getattr(arch, "enter_guest")  # noqa: B009 - it is not exported

        def interrupted(fd: int, request: int) -> int:
            real(fd, request)
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(arch, "enter_guest", interrupted)
            with pytest.raises(KeyboardInterrupt):
                vcpu.run()
        with pytest.raises(arch.UnansweredReadError, match=r"call run\(\) to get it"):
            vcpu.get_regs()
        assert repr(vcpu.run()) == "IoOut(port=0x11, data=b'!', size=1)"
        assert isinstance(vcpu.run(), arch.Halt)

    def test_an_exit_of_kvms_own_is_completed_before_a_reset(
        self, guest: Callable[[bytes], arch.Vcpu]
    ) -> None:
        """RDMSR as an exit: KVM would finish it in the middle of the next guest."""
        vcpu = guest(b"\x66\xb9\x78\x56\x34\x12\x0f\x32\xf4")  # mov ecx, 0x12345678; rdmsr
        space = abi.kvm_enable_cap(cap=abi.KVM_CAP_X86_USER_SPACE_MSR)
        space.args[0] = abi.KVM_MSR_EXIT_REASON_UNKNOWN
        vcpu.vm.ioctl(abi.KVM_ENABLE_CAP, space)
        exit = vcpu.run()
        assert repr(exit) == f"OtherExit(reason={abi.KVM_EXIT_X86_RDMSR})"
        vcpu.run_context.msr.data = 0x77
        arch.reset_vcpu(vcpu, arch.RealMode(0x1000))
        regs = vcpu.get_regs()
        assert (regs.rip, regs.rax) == (0x1000, 0)

    def test_reset_gives_up_a_read(self, guest: Callable[[bytes], arch.Vcpu]) -> None:
        vcpu = guest(IN_OUT_HLT)
        for _ in range(3):
            assert isinstance(vcpu.run(), arch.IoIn)
            arch.reset_vcpu(vcpu, arch.RealMode(0x1000))

    def test_memory_that_the_guest_may_only_read(self) -> None:
        regions = [arch.Region(0, 0x2000), arch.Region(0x10000, 0x1000, read_only=True)]
        with arch.GuestMemory(regions) as memory, arch.Vm(memory) as vm:
            memory.write(0x1000, bytes.fromhex("b80010 8ed8 a00000 a20000 f4"))
            memory.write(0x10000, b"R")
            vcpu = vm.vcpus[0]
            arch.configure_vcpu(vcpu, arch.RealMode(0x1000))
            write = vcpu.run()
            assert repr(write) == "MmioWrite(address=0x10000, data=b'R')"
            assert isinstance(vcpu.run(), arch.Halt)
            assert memory.read(0x10000, 1) == b"R"

    def test_a_guest_that_cannot_go_on_fails_by_name(
        self, guest: Callable[[bytes], arch.Vcpu]
    ) -> None:
        vcpu = guest(SPIN)
        sregs = vcpu.get_sregs()
        sregs.cs.base = 0x40000000  # where nothing is
        vcpu.set_sregs(sregs)
        failure = vcpu.run()
        assert isinstance(failure, arch.Failure)
        assert failure.code.startswith("KVM_EXIT_INTERNAL_ERROR")
        with pytest.raises(arch.HypervisorError, match="KVM_RUN: KVM_EXIT_INTERNAL_ERROR"):
            failure.ignore()
        assert vcpu.run_context.exit_reason == abi.KVM_EXIT_INTERNAL_ERROR


class TestKicks:
    def test_a_kick_ends_the_present_run(self, guest: Callable[[bytes], arch.Vcpu]) -> None:
        vcpu = guest(SPIN)
        for _ in range(3):
            threading.Timer(0.05, vcpu.kick).start()
            assert isinstance(vcpu.run(), arch.Kicked)
        assert vcpu.get_regs().rip == 0x1000

    def test_a_kick_before_the_run_ends_the_next(self, guest: Callable[[bytes], arch.Vcpu]) -> None:
        vcpu = guest(b"\xf4")
        vcpu.kick()
        vcpu.kick()  # not counted
        assert isinstance(vcpu.run(), arch.Kicked)
        assert isinstance(vcpu.run(), arch.Halt)

    def test_a_kick_is_not_lost_while_an_access_settles(
        self, guest: Callable[[bytes], arch.Vcpu]
    ) -> None:
        vcpu = guest(IN_OUT_HLT)
        vcpu.run().ignore()
        vcpu.kick()
        vcpu.get_regs()
        assert isinstance(vcpu.run(), arch.Kicked)
        assert isinstance(vcpu.run(), arch.IoOut)

    def test_many_kicks_at_any_time(self, guest: Callable[[bytes], arch.Vcpu]) -> None:
        """Each is followed by a run that ends, whatever it met."""
        vcpu = guest(b"\xe6\x11\xeb\xfc")  # 1: out 0x11, al; jmp 1b
        stop = threading.Event()
        kicked = 0

        def kick() -> None:
            while not stop.is_set():
                vcpu.kick()
                time.sleep(0.0005)

        thread = threading.Thread(target=kick)
        thread.start()
        try:
            for _ in range(3000):
                kicked += isinstance(vcpu.run(), arch.Kicked)
                vcpu.get_regs()
        finally:
            stop.set()
            thread.join()
        assert 0 < kicked < 3000

    def test_other_signals_are_handled_and_the_guest_goes_on(
        self, guest: Callable[[bytes], arch.Vcpu]
    ) -> None:
        vcpu = guest(SPIN)
        handled: list[int] = []
        before = signal.signal(signal.SIGALRM, lambda number, _: handled.append(number))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            threading.Timer(0.2, vcpu.kick).start()
            assert isinstance(vcpu.run(), arch.Kicked)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert handled == [signal.SIGALRM]

    def test_an_exception_from_a_signal_leaves_the_vcpu_usable(
        self, guest: Callable[[bytes], arch.Vcpu]
    ) -> None:
        vcpu = guest(SPIN)

        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                vcpu.run()
        finally:
            signal.signal(signal.SIGALRM, before)
        assert vcpu.get_regs().rip == 0x1000
        vcpu.kick()
        assert isinstance(vcpu.run(), arch.Kicked)

    def test_each_run_in_a_thread_of_its_own(self, guest: Callable[[bytes], arch.Vcpu]) -> None:
        """Python gives a new thread the identifier of one that has ended."""
        vcpu = guest(SPIN)
        for _ in range(5):
            ended: list[arch.Exit] = []
            thread = threading.Thread(target=lambda ended=ended: ended.append(vcpu.run()))
            thread.start()
            time.sleep(0.02)
            vcpu.kick()
            thread.join(5)
            assert [type(exit) for exit in ended] == [arch.Kicked]

    def test_after_an_exception_another_thread_may_go_on(
        self, guest: Callable[[bytes], arch.Vcpu]
    ) -> None:
        vcpu = guest(b"\xb0\x21\xe6\x11\xf4")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(arch, "enter_guest", interrupt)
            with pytest.raises(KeyboardInterrupt):
                vcpu.run()
        seen: list[str] = []
        thread = threading.Thread(target=lambda: seen.append(repr(vcpu.run())))
        thread.start()
        thread.join()
        assert seen == ["IoOut(port=0x11, data=b'!', size=1)"]

    @pytest.mark.parametrize("irqchip", [False, True])
    def test_closing_stops_who_runs(self, memory: arch.GuestMemory, irqchip: bool) -> None:
        """A guest that spins, and one that halts, which an irqchip keeps in the kernel."""
        memory.write(0x1000, b"\xf4\xeb\xfe" if irqchip else SPIN)
        ended: list[BaseException] = []

        def run(vcpu: arch.Vcpu) -> None:
            try:
                vcpu.run()
            except arch.ClosedError as error:
                ended.append(error)

        with arch.Vm(memory, irqchip=irqchip) as vm:
            arch.configure_vcpu(vm.vcpus[0], arch.RealMode(0x1000))
            thread = threading.Thread(target=run, args=(vm.vcpus[0],))
            thread.start()
            time.sleep(0.05)
        thread.join(5)
        assert len(ended) == 1
        memory.close()

    def test_while_another_thread_runs_it_a_vcpu_is_busy(
        self, guest: Callable[[bytes], arch.Vcpu]
    ) -> None:
        vcpu = guest(SPIN)
        thread = threading.Thread(target=vcpu.run)
        thread.start()
        try:
            time.sleep(0.05)
            for use in (vcpu.run, vcpu.get_regs, lambda: arch.setup_fpu(vcpu)):
                with pytest.raises(arch.BusyError, match="vCPU 0: another thread runs it: kick"):
                    use()
        finally:
            vcpu.kick()
            thread.join()
        assert vcpu.get_regs().rip == 0x1000  # once it has stopped

    def test_the_first_machine_in_another_thread_needs_the_signal_installed(self) -> None:
        code = (
            "import threading, sys\n"
            "from vmm_arch import kvm_x86_64 as arch\n"
            "if 'install' in sys.argv: arch.install_kick_signal()\n"
            "def make():\n"
            "    try:\n"
            "        arch.Vm(arch.GuestMemory(4096)).close(); print('made')\n"
            "    except RuntimeError as error: print(error)\n"
            "t = threading.Thread(target=make); t.start(); t.join()\n"
        )
        for arguments, answer in (([], "make the first Vm there, or call"), (["install"], "made")):
            command = [PYTHON, "-c", code, *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            assert answer in done.stdout, done.stderr


class TestRefusals:
    """Every refusal says the operation, the name of the answer and the usual cause."""

    def test_no_device(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(kvm, "DEVICE", tmp_path / "kvm")
        with pytest.raises(arch.HypervisorUnavailableError) as refused:
            arch.Vm(arch.GuestMemory(0x1000), cpuid=[])
        assert (refused.value.code, refused.value.errno) == ("ENOENT", errno.ENOENT)
        assert "load the module" in str(refused.value)
        report = arch.probe()
        assert not report
        assert "does not work on this host" in str(report)
        assert "ENOENT" in str(report)

    def test_no_permission(self) -> None:
        """In a process of a user who may not open the device."""
        if os.geteuid() != 0:
            pytest.skip("needs root, to become a user without permission")
        code = (
            "import os\nfrom vmm_arch import kvm_x86_64 as arch\nos.setuid(65534)\n"
            "print(arch.probe())\n"
            "try: arch.Vm(arch.GuestMemory(4096))\n"
            "except arch.HypervisorUnavailableError as error: print(error.code, error)\n"
        )
        if os.stat("/dev/kvm").st_mode & 0o006:
            code = code.replace(
                "os.setuid(65534)", "arch.kvm.DEVICE = '/dev/port'; os.setuid(65534)"
            )
        done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True)
        assert "EACCES open /dev/" in done.stdout
        assert "add the user to the group kvm" in done.stdout
        assert "does not work on this host" in done.stdout

    def test_a_device_that_is_not_kvm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kvm, "DEVICE", Path("/dev/null"))
        with pytest.raises(arch.HypervisorUnavailableError, match="ENOTTY: /dev/null is not KVM"):
            arch.Vm(arch.GuestMemory(0x1000), cpuid=[])

    def test_another_version_of_the_api(
        self, memory: arch.GuestMemory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(arch, "KVM_API_VERSION", 11)
        with pytest.raises(
            arch.HypervisorUnavailableError, match="API is version 12; version 11 is needed"
        ):
            arch.Vm(memory)

    def test_a_missing_capability(
        self, memory: arch.GuestMemory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wanted = {"KVM_CAP_FLIGHT": (99999, "flying guests", True)}
        monkeypatch.setattr(arch, "CAPABILITIES", wanted)
        with pytest.raises(
            arch.HypervisorUnavailableError,
            match="KVM_CAP_FLIGHT: flying guests: this kernel lacks",
        ):
            arch.Vm(memory)
        assert "NO   KVM_CAP_FLIGHT" in str(arch.probe())

    @pytest.mark.parametrize("vcpus", [0, -1, 256])
    def test_how_many_vcpus_there_are(self, memory: arch.GuestMemory, vcpus: int) -> None:
        with pytest.raises(ValueError, match=r"a machine has 1 to \d+ vCPUs"):
            arch.Vm(memory, vcpus=vcpus)

    def test_a_vcpu_index_twice(self, memory: arch.GuestMemory) -> None:
        with (
            arch.Vm(memory) as vm,
            pytest.raises(arch.HypervisorError, match="KVM_CREATE_VCPU: EEXIST: the machine has a"),
        ):
            vm.ioctl(abi.KVM_CREATE_VCPU, 0)

    def test_memory_that_overlaps_or_is_unaligned(self, memory: arch.GuestMemory) -> None:
        with arch.Vm(memory) as vm:
            region = abi.kvm_userspace_memory_region(
                slot=7, guest_phys_addr=0x1000, memory_size=0x1000,
                userspace_addr=memory.host_address(memory.regions[0]),
            )  # fmt: skip
            with pytest.raises(arch.HypervisorError, match="EEXIST: the slot overlaps") as refused:
                vm.ioctl(abi.KVM_SET_USER_MEMORY_REGION, region)
            assert refused.value.operation == "KVM_SET_USER_MEMORY_REGION"
            region.guest_phys_addr = 0x10000001
            with pytest.raises(arch.HypervisorError, match="EINVAL: the slot's number, alignment"):
                vm.ioctl(abi.KVM_SET_USER_MEMORY_REGION, region)

    def test_memory_closed_under_a_live_machine(self, memory: arch.GuestMemory) -> None:
        with arch.Vm(memory), pytest.raises(arch.MemoryInUseError, match="close them first"):
            memory.close()
        memory.close()

    def test_registers_that_contradict_each_other(
        self, guest: Callable[[bytes], arch.Vcpu]
    ) -> None:
        vcpu = guest(SPIN)
        sregs = vcpu.get_sregs()
        sregs.efer, sregs.cr0 = 0x100, 0x80000011  # LME and PG without LMA
        with pytest.raises(arch.HypervisorError, match="KVM_SET_SREGS: EINVAL: the registers"):
            vcpu.set_sregs(sregs)

    def test_a_lapic_without_an_irqchip(self, guest: Callable[[bytes], arch.Vcpu]) -> None:
        vcpu = guest(SPIN)
        with pytest.raises(arch.HypervisorError, match=r"KVM_GET_LAPIC: EINVAL: .* irqchip"):
            vcpu.get_lapic()
        with pytest.raises(arch.HypervisorError, match=r"KVM_SET_LAPIC: EINVAL: .* irqchip"):
            arch.set_lint(vcpu)

    def test_an_interrupt_line_without_an_irqchip(self, memory: arch.GuestMemory) -> None:
        with (
            arch.Vm(memory) as vm,
            pytest.raises(
                arch.HypervisorError, match=r"KVM_IRQ_LINE: ENXIO: .* without an irqchip"
            ),
        ):
            vm.set_irq_line(4, True)

    def test_the_msr_that_is_refused_is_named(self, guest: Callable[[bytes], arch.Vcpu]) -> None:
        vcpu = guest(SPIN)
        with pytest.raises(arch.HypervisorError, match="KVM_SET_MSRS: EINVAL: MSR 0x1234567 can"):
            vcpu.set_msrs({0x174: 1, 0x1234567: 0x42})
        with pytest.raises(arch.HypervisorError, match="KVM_GET_MSRS: EINVAL: MSR 0x1234567"):
            vcpu.get_msrs([0x174, 0x1234567])
        assert vcpu.get_msrs([0x174]) == {0x174: 1}

    def test_values_that_are_none(self, guest: Callable[[bytes], arch.Vcpu]) -> None:
        vcpu = guest(SPIN)
        with pytest.raises(TypeError, match="a Regs is wanted, not a kvm_sregs"):
            vcpu.set_regs(vcpu.get_sregs())  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="32 bits of index, 64 of value"):
            vcpu.set_msrs({0x174: 1 << 64})
        with pytest.raises(ValueError, match="CPUID 0x1: eax has 32 bits: 0x100000000"):
            arch.CpuidEntry(1, None, eax=1 << 32)
        with pytest.raises(TypeError, match="memory is a GuestMemory, not a NoneType"):
            arch.Vm(None)  # type: ignore[arg-type]

    def test_more_msrs_than_kvm_takes_at_once(self, guest: Callable[[bytes], arch.Vcpu]) -> None:
        vcpu = guest(SPIN)
        banks = [*range(0x400, 0x480), *range(0x200, 0x210), *range(0x280, 0x2A0)]
        known = msrs_of(vcpu, banks)
        many = {0xC0000082: 7, **known}
        image = vars(arch)["msrs_image"](many)
        write = vars(arch)["write_msrs"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(arch, "MSRS_AT_ONCE", 16)
            write(vcpu.fd, image)
            assert vcpu.get_msrs(many) == many

    def test_configuring_twice_or_after_a_run(self, guest: Callable[[bytes], arch.Vcpu]) -> None:
        vcpu = guest(b"\xf4")
        for _ in range(2):
            with pytest.raises(arch.NotFreshError, match=r"vCPU 0: .* use reset_vcpu\(\)"):
                arch.configure_vcpu(vcpu, arch.RealMode(0x1000))
            vcpu.run()

    def test_what_configure_relies_on_makes_a_vcpu_used(self, memory: arch.GuestMemory) -> None:
        """It does not write the FPU of a new vCPU."""
        uses: list[Callable[[arch.Vcpu], object]] = [
            arch.setup_fpu,
            lambda vcpu: vcpu.set_fpu(arch.Fpu(fcw=0x27F, xstate_bv=3)),
            lambda vcpu: vcpu.ioctl(abi.KVM_SET_DEBUGREGS, abi.kvm_debugregs(dr7=0x400)),
        ]
        for use in uses:
            with arch.Vm(memory) as vm:
                vm.vcpus[0].ioctl(abi.KVM_GET_REGS, arch.Regs())  # reading is nothing
                use(vm.vcpus[0])
                with pytest.raises(arch.NotFreshError):
                    arch.configure_vcpu(vm.vcpus[0], arch.RealMode(0x1000))

    def test_an_entry_that_is_none(self, memory: arch.GuestMemory) -> None:
        with arch.Vm(memory) as vm:
            with pytest.raises(TypeError, match="one of RealMode, Protected32, Long64, not Entry"):
                arch.configure_vcpu(vm.vcpus[0], arch.Entry(0x1000))
            with pytest.raises(ValueError, match="0x100000 is no address that real mode reaches"):
                arch.RealMode(0x100000)

    @pytest.mark.parametrize(
        ("make", "complaint"),
        [
            (lambda: arch.Long64(-1), "address has 64 bits and no sign: -0x1"),
            (lambda: arch.Long64(1 << 32), "beyond the first 4 GiB"),
            (lambda: arch.Long64(0xA000), "0xa000 would be overwritten: page_tables takes 0x6000"),
            (lambda: arch.Protected32(0x510), "overwritten: gdt takes 0x30 bytes from 0x500"),
            (lambda: arch.Long64(0x1000, page_tables=0x8123), "0x8123 is no multiple of 0x1000"),
            (lambda: arch.RealMode(0, rsp=1 << 64), "rsp has 64 bits"),
        ],
    )
    def test_an_entry_that_cannot_be(self, make: Callable[[], arch.Entry], complaint: str) -> None:
        with pytest.raises(ValueError, match=complaint):
            make()

    def test_an_entry_of_another_type(self) -> None:
        with pytest.raises(TypeError, match="address is an integer, not a NoneType"):
            arch.Long64(None)  # type: ignore[arg-type]

    def test_everything_after_the_machine_is_closed(self, memory: arch.GuestMemory) -> None:
        with arch.Vm(memory) as vm:
            vcpu = vm.vcpus[0]
        vm.close()  # again
        uses: list[Callable[[], object]] = [
            vcpu.run,
            vcpu.kick,
            vcpu.get_regs,
            vcpu.get_sregs,
            vcpu.get_fpu,
            vcpu.get_lapic,
            lambda: vcpu.get_msrs([0x10]),
            lambda: vcpu.set_msrs({}),
            lambda: vcpu.set_regs(arch.Regs()),
            lambda: vcpu.translate(0),
            lambda: vcpu.run_context,
            lambda: vcpu.ioctl(abi.KVM_GET_REGS, arch.Regs()),
            lambda: vm.ioctl(abi.KVM_CREATE_VCPU, 1),
            lambda: vm.set_irq_line(4, True),
            lambda: arch.setup_regs(vcpu, arch.RealMode(0)),
            lambda: arch.configure_vcpu(vcpu, arch.RealMode(0)),
            lambda: arch.reset_vcpu(vcpu, arch.RealMode(0)),
        ]
        for use in uses:
            with pytest.raises(arch.ClosedError, match="closed"):
                use()

    def test_a_forked_child(self, guest: Callable[[bytes], arch.Vcpu]) -> None:
        vcpu = guest(SPIN)
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                vcpu.get_regs()
            except arch.ForkedError as error:
                os.write(writable, str(error).encode())
                try:
                    vcpu.vm.close()  # says nothing: the parent's machine goes on
                except BaseException as odd:
                    os.write(writable, repr(odd).encode())
            finally:
                os._exit(0)
        os.close(writable)
        with os.fdopen(readable) as answer:
            said = answer.read()
            assert said.startswith("KVM_GET_REGS: EIO: this is a forked child")
            assert said.endswith("make another here")
        os.waitpid(child, 0)
        vcpu.get_regs()  # the parent's is its own still

    def test_an_error_can_cross_processes(self) -> None:
        error = arch.HypervisorError("KVM_RUN", "EINVAL", "because", 22)
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), copy.errno, copy.cause) == (str(error), 22, "because")


class TestEscapeHatch:
    @pytest.mark.parametrize("argument", [None, b"bytes", 1.5, "text"])
    def test_what_is_no_argument(
        self, guest: Callable[[bytes], arch.Vcpu], argument: object
    ) -> None:
        with pytest.raises(TypeError, match="is neither an integer nor a ctypes record"):
            guest(SPIN).ioctl(abi.KVM_GET_REGS, argument)

    def test_a_buffer_that_is_too_short(self, guest: Callable[[bytes], arch.Vcpu]) -> None:
        with pytest.raises(ValueError, match="uses 144 bytes, the buffer has 8"):
            guest(SPIN).ioctl(abi.KVM_GET_REGS, bytearray(8))

    def test_any_call_with_records_bytearrays_and_integers(
        self, guest: Callable[[bytes], arch.Vcpu]
    ) -> None:
        vcpu = guest(SPIN)
        regs, raw = arch.Regs(), bytearray(ctypes.sizeof(arch.Regs))
        vcpu.ioctl(abi.KVM_GET_REGS, regs)
        vcpu.ioctl(abi.KVM_GET_REGS, raw)
        assert bytes(regs) == raw
        assert vcpu.vm.ioctl(abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_IMMEDIATE_EXIT) == 1
        with pytest.raises(arch.HypervisorError, match="ioctl 0xaeff: "):
            vcpu.ioctl(0xAEFF)


def handles() -> tuple[int, int]:
    """How many descriptors this process has, and how many mappings of a vCPU's page."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text().splitlines()
    return len(os.listdir("/proc/self/fd")), sum("kvm-vcpu" in line for line in maps)


def interrupt(*_: object) -> None:
    """As Control-C does, at whatever it is called for."""
    raise KeyboardInterrupt


def whole_life(memory: arch.GuestMemory) -> None:
    memory.write(0x1000, IN_OUT_HLT)
    with arch.Vm(memory, vcpus=2, irqchip=True) as vm:
        arch.configure_vcpu(vm.vcpus[0], arch.RealMode(0x1000))
        assert vm.vcpus[0].run_context.exit_reason is not None
        vm.vcpus[0].run()


class TestLeaks:
    def test_a_machine_leaves_nothing_behind(self, memory: arch.GuestMemory) -> None:
        whole_life(memory)  # what is made once for a process
        before = handles()
        for _ in range(5):
            whole_life(memory)
        assert handles() == before

    def test_a_machine_that_nobody_closed_leaves_nothing_behind(
        self, memory: arch.GuestMemory
    ) -> None:
        whole_life(memory)
        before = handles()
        arch.Vm(memory, vcpus=2)
        assert handles() == before
        memory.close()

    def test_creation_that_fails_anywhere_leaves_nothing_behind(
        self, memory: arch.GuestMemory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole_life(memory)
        before = handles()
        real = {way: getattr(arch, way) for way in ("ioctl", "ioctl_large")}
        for failing in range(1, 100):
            calls = iter(range(1, 1000))

            def counted(way: Any, failing: int, calls: Iterator[int], *arguments: Any) -> Any:
                if next(calls) == failing:
                    raise OSError(errno.ENOMEM, "as if")
                return way(*arguments)

            for name, way in real.items():
                monkeypatch.setattr(arch, name, partial(counted, way, failing, calls))
            try:
                arch.Vm(memory, vcpus=2, irqchip=True).close()
            except arch.HypervisorError as error:
                assert error.code == "ENOMEM"
                assert handles() == before, failing
            else:
                break
        assert failing > 10
        memory.close()  # nobody holds it


def test_names_of_the_documentation_are_exported() -> None:
    for name in arch.__all__:
        assert hasattr(arch, name)
    assert {"Vm", "Vcpu", "GuestMemory", "IoIn", "configure_vcpu", "probe"} <= set(arch.__all__)
