"""What is true of every backend while a guest runs: accesses and their answers, kicks, threads."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from backends import BackendUnderTest, Start, backend_module
from vcpu_state import differences
from vmm_arch.ending import Reason
from vmm_arch.errors import (
    BusyError,
    ClosedError,
    HypervisorError,
    UnansweredError,
    UnansweredReadError,
)
from vmm_arch.exits import Failure, Halt, Kicked, MmioRead
from vmm_arch.memory import Region
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.serve import serve
from vmm_arch.x86_64.bus import Bus
from vmm_arch.x86_64.entry import Protected32, RealMode
from vmm_arch.x86_64.exits import Exit, InterruptWindow, IoIn, IoOut, MsrRead, MsrWrite
from vmm_arch.x86_64.msr import IA32_PAT
from vmm_arch.x86_64.platform.memory_map import GuestMemory

SPIN = b"\xeb\xfe"  # jmp $
IN_OUT_HLT = b"\xe4\x10\xe6\x11\xf4"  # in al, 0x10; out 0x11, al; hlt


def interrupted_before(enter: Callable[..., Any]) -> Callable[..., Any]:
    """An entry to the guest that Control-C prevents."""

    def entry(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    return entry


def interrupted_after(enter: Callable[..., Any]) -> Callable[..., Any]:
    """An entry to the guest with Control-C as soon as it came back, whatever with."""

    def entry(*arguments: Any) -> Any:
        try:
            enter(*arguments)
        finally:
            raise KeyboardInterrupt

    return entry


def test_a_reset_forgets_that_a_window_was_wanted(guest: Start, arch: AnyBackend) -> None:
    # sti; mov ecx, 200000; next: dec ecx; jnz next; out 0x10, al
    vcpu = guest(bytes.fromhex("fb 66b9400d0300 6649 75fc e610"))
    vcpu.request_interrupt_window(True)
    assert isinstance(vcpu.run(), InterruptWindow)
    arch.reset_vcpu(vcpu, RealMode(0x1000))
    assert isinstance(vcpu.run(), IoOut)


def test_an_nmi_wakes_a_guest_that_sleeps(arch: AnyBackend, memory: GuestMemory) -> None:
    memory.write(2 * 4, (0x2000).to_bytes(4, "little"))
    memory.write(0x1000, b"\xf4\xe6\x33")  # hlt; out 0x33, al
    memory.write(0x2000, b"\xe6\x22\xcf")  # out 0x22, al; iret
    with arch.Vm(memory, irqchip=True) as vm:
        vcpu = vm.vcpus[0]
        arch.configure_vcpu(vcpu, RealMode(0x1000, rsp=0x8000))
        threading.Timer(0.1, vcpu.kick).start()
        assert isinstance(vcpu.run(), Kicked)
        vcpu.inject_nmi()
        for port in (0x22, 0x33):
            watchdog = threading.Timer(20, vcpu.kick)
            watchdog.start()
            out = vcpu.run()
            watchdog.cancel()
            assert isinstance(out, IoOut)
            assert out.port == port


class TestAccesses:
    """Exits that wait for an answer, and state in between."""

    def test_an_unanswered_read_is_named(self, guest: Start) -> None:
        vcpu = guest(IN_OUT_HLT)
        access = vcpu.run()
        assert repr(access) == "IoIn(port=0x10, size=1, count=1)"
        for use in (vcpu.run, vcpu.save, lambda: vcpu.set_msrs({}), lambda: vcpu.step(True)):
            with pytest.raises(UnansweredReadError, match="vCPU 0: the guest waits"):
                use()

    def test_only_what_waits_for_an_answer_can_be_taken_back(self, guest: Start) -> None:
        vcpu = guest(IN_OUT_HLT)
        for run in (False, True):
            if run:
                vcpu.run().complete(1)
                assert isinstance(vcpu.run(), IoOut)
            with pytest.raises(UnansweredError, match="vCPU 0: no exit waits for an answer"):
                vcpu.discard_exit()
        assert isinstance(vcpu.run(), Halt)

    def test_state_is_new_once_the_read_is_answered(self, guest: Start) -> None:
        vcpu = guest(IN_OUT_HLT)
        access = vcpu.run()
        assert isinstance(access, IoIn)
        access.complete(0x5A)
        regs = vcpu.get_regs()
        assert (regs.rax & 0xFF, regs.rip) == (0x5A, 0x1002)
        regs.rax = 0x77
        vcpu.set_regs(regs)
        assert repr(vcpu.run()) == "IoOut(port=0x11, data=b'w', size=1)"
        assert vcpu.get_regs().rip == 0x1004
        assert isinstance(vcpu.run(), Halt)

    @pytest.mark.parametrize(
        ("answer", "complaint"),
        [
            (0x100, "0x100 is not an unsigned 1-byte value"),
            (-1, "-0x1 is not an unsigned 1-byte value"),
            (b"ab", r"expected 1 \* 1 bytes as the answer, got 2"),
        ],
    )
    def test_an_answer_that_does_not_fit(
        self, guest: Start, answer: int | bytes, complaint: str
    ) -> None:
        access = guest(IN_OUT_HLT).run()
        assert isinstance(access, IoIn)
        with pytest.raises(ValueError, match=complaint):
            access.complete(answer)
        access.complete(0)  # nothing has been answered yet

    def test_only_one_answer_is_taken(self, guest: Start) -> None:
        access = guest(IN_OUT_HLT).run()
        access.ignore()
        with pytest.raises(
            UnansweredReadError, match="does not wait for an answer: it was answered"
        ):
            access.ignore()

    def test_an_old_exit_answers_nothing(self, guest: Start) -> None:
        """Not even another question: its own has had its answer."""
        vcpu = guest(bytes.fromhex("e410 b800c0 8ed8 67a1000000d0 f4"))
        old = vcpu.run()
        assert isinstance(old, IoIn)
        old.complete(0)
        sregs = vcpu.get_sregs()
        sregs.ds.base, sregs.ds.limit, sregs.ds.g = 0, 0xFFFFFFFF, 1
        vcpu.set_sregs(sregs)
        regs = vcpu.get_regs()
        regs.rip += 5  # behind the two that load DS
        vcpu.set_regs(regs)
        read = vcpu.run()
        assert isinstance(read, MmioRead)
        with pytest.raises(UnansweredError, match="does not wait for an answer"):
            old.complete(0)
        read.complete(0x1234)
        assert vcpu.get_regs().rax & 0xFFFF == 0x1234

    def test_ignoring_reads_all_ones(self, guest: Start) -> None:
        vcpu = guest(IN_OUT_HLT)
        vcpu.run().ignore()
        out = vcpu.run()
        assert isinstance(out, IoOut)
        assert (out.data, out.value) == (b"\xff", 0xFF)

    def test_a_read_that_memory_answers_in_part(
        self, arch: AnyBackend, memory: GuestMemory
    ) -> None:
        """Four bytes of which two are the last of memory, and two beyond."""
        memory.write(0x1000, bytes.fromhex("a1feff0f00 f4"))  # mov eax, [0xffffe]; hlt
        memory.write(0xFFFFE, b"\x11\x22")
        with arch.Vm(memory) as vm:
            vcpu: Any = vm.vcpus[0]
            entry = Protected32(0x1000)
            arch.configure_system(vm, entry)
            arch.configure_vcpu(vcpu, entry)
            read = vcpu.run()
            assert isinstance(read, MmioRead)
            assert (read.address, read.size) == (0x100000, 2)
            read.complete(b"\x33\x44")
            assert vcpu.get_regs().rax == 0x44332211
            assert isinstance(vcpu.run(), Halt)

    def test_an_instruction_with_two_accesses_goes_on_with_the_second(self, guest: Start) -> None:
        vcpu = guest(bytes.fromhex("bf0020 b90300 f36c f4"))  # mov di, 0x2000; cx 3; rep insb; hlt
        got = b""
        while not isinstance(exit := vcpu.run(), Halt):
            assert isinstance(exit, IoIn)
            answer = bytes(range(len(got), len(got) + exit.count))
            exit.complete(answer)
            got += answer
            while True:
                try:
                    vcpu.get_regs()
                    break
                except UnansweredReadError:  # not over: its next access is a run away
                    more = vcpu.run()
                    assert isinstance(more, IoIn)
                    answer = bytes(range(len(got), len(got) + more.count))
                    more.complete(answer)
                    got += answer
        assert vcpu.vm.memory.read(0x2000, 3) == got == b"\0\1\2"

    def test_an_exit_that_an_exception_lost_is_returned_by_the_next_run(
        self, backend: BackendUnderTest, guest: Start
    ) -> None:
        vcpu = guest(b"\xb0\x21\xe6\x11\xf4")  # mov al, '!'; out 0x11, al; hlt
        with pytest.MonkeyPatch.context() as patch:
            backend.around_entry(patch, interrupted_after)
            with pytest.raises(KeyboardInterrupt):
                vcpu.run()
        with pytest.raises(UnansweredReadError, match=r"call run\(\) to get it"):
            vcpu.get_regs()
        assert repr(vcpu.run()) == "IoOut(port=0x11, data=b'!', size=1)"
        assert isinstance(vcpu.run(), Halt)

    def test_reset_gives_up_a_read(self, arch: AnyBackend, guest: Start) -> None:
        vcpu = guest(IN_OUT_HLT)
        for _ in range(3):
            assert isinstance(vcpu.run(), IoIn)
            arch.reset_vcpu(vcpu, RealMode(0x1000))

    def test_memory_that_the_guest_may_only_read(self, arch: AnyBackend) -> None:
        regions = [Region(0, 0x2000), Region(0x10000, 0x1000, read_only=True)]
        with GuestMemory(regions) as memory, arch.Vm(memory) as vm:
            memory.write(0x1000, bytes.fromhex("b80010 8ed8 a00000 a20000 f4"))
            memory.write(0x10000, b"R")
            vcpu: Any = vm.vcpus[0]
            arch.configure_vcpu(vcpu, RealMode(0x1000))
            write = vcpu.run()
            assert repr(write) == "MmioWrite(address=0x10000, data=b'R')"
            assert isinstance(vcpu.run(), Halt)
            assert memory.read(0x10000, 1) == b"R"

    def test_a_guest_that_cannot_go_on_fails_by_name(self, guest: Start) -> None:
        vcpu = guest(SPIN)
        sregs = vcpu.get_sregs()
        sregs.cs.base = 0x40000000  # where nothing is
        vcpu.set_sregs(sregs)
        failure = vcpu.run()
        assert isinstance(failure, Failure)
        assert failure.code
        with pytest.raises(HypervisorError, match=f"{failure.operation}: {failure.code}"):
            failure.ignore()


class TestKicks:
    def test_a_kick_ends_the_present_run(self, guest: Start) -> None:
        vcpu = guest(SPIN)
        for _ in range(3):
            threading.Timer(0.05, vcpu.kick).start()
            assert isinstance(vcpu.run(), Kicked)
        assert vcpu.get_regs().rip == 0x1000

    def test_a_kick_before_the_run_ends_the_next(self, guest: Start) -> None:
        vcpu = guest(b"\xf4")
        vcpu.kick()
        vcpu.kick()  # not counted
        assert isinstance(vcpu.run(), Kicked)
        assert isinstance(vcpu.run(), Halt)

    def test_a_kick_is_not_lost_while_an_access_settles(self, guest: Start) -> None:
        vcpu = guest(IN_OUT_HLT)
        vcpu.run().ignore()
        vcpu.kick()
        vcpu.get_regs()
        assert isinstance(vcpu.run(), Kicked)
        assert isinstance(vcpu.run(), IoOut)

    def test_a_kick_is_not_lost_with_an_exception(
        self, backend: BackendUnderTest, guest: Start
    ) -> None:
        vcpu = guest(SPIN)
        with pytest.MonkeyPatch.context() as patch:
            backend.around_entry(patch, interrupted_after)
            threading.Timer(0.05, vcpu.kick).start()
            with pytest.raises(KeyboardInterrupt):
                vcpu.run()
        assert vcpu.get_regs().rip == 0x1000
        assert isinstance(vcpu.run(), Kicked)

    def test_many_kicks_at_any_time(self, guest: Start) -> None:
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
                kicked += isinstance(vcpu.run(), Kicked)
                vcpu.get_regs()
        finally:
            stop.set()
            thread.join()
        assert 0 < kicked < 3000

    def test_other_signals_are_handled_and_the_guest_goes_on(self, guest: Start) -> None:
        vcpu = guest(SPIN)
        handled: list[int] = []
        before = signal.signal(signal.SIGALRM, lambda number, _: handled.append(number))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            threading.Timer(0.2, vcpu.kick).start()
            assert isinstance(vcpu.run(), Kicked)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert handled == [signal.SIGALRM]

    def test_each_run_in_a_thread_of_its_own(self, guest: Start) -> None:
        """Python gives a new thread the identifier of one that has ended."""
        vcpu = guest(SPIN)
        for _ in range(5):
            ended: list[Exit] = []
            thread = threading.Thread(target=lambda ended=ended: ended.append(vcpu.run()))
            thread.start()
            time.sleep(0.02)
            vcpu.kick()
            thread.join(5)
            assert [type(exit) for exit in ended] == [Kicked]

    def test_after_an_exception_another_thread_may_go_on(
        self, backend: BackendUnderTest, guest: Start
    ) -> None:
        vcpu = guest(b"\xb0\x21\xe6\x11\xf4")
        with pytest.MonkeyPatch.context() as patch:
            backend.around_entry(patch, interrupted_before)
            with pytest.raises(KeyboardInterrupt):
                vcpu.run()
        seen: list[str] = []
        thread = threading.Thread(target=lambda: seen.append(repr(vcpu.run())))
        thread.start()
        thread.join()
        assert seen == ["IoOut(port=0x11, data=b'!', size=1)"]

    @pytest.mark.parametrize("irqchip", [False, True])
    def test_closing_stops_who_runs(
        self, arch: AnyBackend, memory: GuestMemory, irqchip: bool
    ) -> None:
        """A guest that spins, and one that halts, which an irqchip keeps in the kernel."""
        memory.write(0x1000, b"\xf4\xeb\xfe" if irqchip else SPIN)
        ended: list[BaseException] = []

        def run(vcpu: Any) -> None:
            try:
                vcpu.run()
            except ClosedError as error:
                ended.append(error)

        with arch.Vm(memory, irqchip=irqchip) as vm:
            arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
            thread = threading.Thread(target=run, args=(vm.vcpus[0],))
            thread.start()
            time.sleep(0.05)
        thread.join(5)
        assert len(ended) == 1
        memory.close()

    def test_who_closes_second_waits_for_the_first(self, arch: AnyBackend) -> None:
        """One thread closes the machine while the other, whose run() that ends, leaves its block."""
        for _ in range(5):
            with GuestMemory(0x10000) as own, arch.Vm(own, vcpus=4) as vm:
                own.write(0x1000, SPIN)
                arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
                closing = threading.Timer(0.05, vm.close)
                closing.start()
                with pytest.raises(ClosedError):
                    vm.vcpus[0].run()
            closing.join()

    def test_a_handler_that_closes_what_is_being_closed_does_not_wait(
        self, arch: AnyBackend, memory: GuestMemory
    ) -> None:
        """The first waits for this thread to leave run(), which the handler interrupts."""
        memory.write(0x1000, SPIN)
        handled: list[int] = []
        with arch.Vm(memory) as vm:
            vcpu: Any = vm.vcpus[0]
            arch.configure_vcpu(vcpu, RealMode(0x1000))

            def handle(number: int, _: object) -> None:
                time.sleep(0.1)  # so that the other thread is in the middle of it
                vm.close()
                handled.append(number)

            before = signal.signal(signal.SIGALRM, handle)
            try:
                closing = threading.Timer(0.1, vm.close)
                closing.start()
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                with pytest.raises(ClosedError):
                    vcpu.run()
            finally:
                signal.signal(signal.SIGALRM, before)
        closing.join()
        assert handled == [signal.SIGALRM]
        memory.close()  # nobody holds it

    def test_a_handler_that_closes_what_this_thread_runs(self, memory: GuestMemory) -> None:
        """KVM only: a signal does not end the platform's call."""
        arch: Any = backend_module("kvm_x86_64")
        memory.write(0x1000, SPIN)
        with arch.Vm(memory) as vm:
            arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
            before = signal.signal(signal.SIGALRM, lambda number, frame: vm.close())
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                with pytest.raises(ClosedError):
                    vm.vcpus[0].run()
            finally:
                signal.signal(signal.SIGALRM, before)
        memory.close()  # nobody holds it

    def test_closing_that_was_interrupted_can_be_tried_again(
        self, arch: AnyBackend, memory: GuestMemory
    ) -> None:
        memory.write(0x1000, SPIN)
        vm = arch.Vm(memory)
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(vm.vcpus[0]), "_stop", interrupted_before(lambda: None))
            with pytest.raises(KeyboardInterrupt):
                vm.close()
        vm.close()
        memory.close()  # nobody holds it

    def test_while_another_thread_runs_it_a_vcpu_is_busy(
        self, arch: AnyBackend, guest: Start
    ) -> None:
        vcpu = guest(SPIN)
        thread = threading.Thread(target=vcpu.run)
        thread.start()
        try:
            time.sleep(0.05)
            for use in (vcpu.run, vcpu.get_regs, lambda: arch.setup_fpu(vcpu)):
                with pytest.raises(BusyError, match="vCPU 0: another thread runs it: kick"):
                    use()
        finally:
            vcpu.kick()
            thread.join()
        assert vcpu.get_regs().rip == 0x1000  # once it has stopped


RDMSR = bytes.fromhex("66b978563412 6631c0 6631d2 0f32 f4")  # mov ecx, 0x12345678; rdmsr; hlt
WRMSR = bytes.fromhex("66b978563412 66b811000000 66ba22000000 0f30 f4")  # the same with wrmsr
REFUSED = b"\xe6\x0d\xf4"  # out 0x0d, al; hlt: what the vector of #GP leads to


@pytest.fixture
def msr_guest(arch: AnyBackend, backend: BackendUnderTest, memory: GuestMemory) -> Iterator[Start]:
    """Start real-mode code whose accesses to unknown MSRs are exits, with a handler of #GP."""
    machines = []

    def start(code: bytes) -> Any:
        vm = arch.Vm(memory, prepare=backend.ask_about_msrs)
        machines.append(vm)
        memory.write(0x1000, code)
        memory.write(0x2000, REFUSED)
        memory.write(13 * 4, (0x2000).to_bytes(4, "little"))
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000, rsp=0x8000))
        return vm.vcpus[0]

    yield start
    for vm in machines:
        vm.close()


class TestMsrExits:
    """An access to an MSR waits for its answer, whatever is asked for meanwhile."""

    def test_a_read_is_answered(self, msr_guest: Start) -> None:
        vcpu = msr_guest(RDMSR)
        read = vcpu.run()
        assert isinstance(read, MsrRead)
        assert repr(read) == "MsrRead(index=0x12345678)"
        uses: list[Callable[[], object]] = [
            vcpu.save,
            vcpu.run,
            lambda: vcpu.set_msrs({}),
        ]
        for use in uses:
            with pytest.raises(UnansweredError, match="the guest waits for an answer"):
                use()
        with pytest.raises(ValueError, match="not an unsigned 8-byte value"):
            read.complete(1 << 64)
        read.complete(0x1122334455667788)
        with pytest.raises(UnansweredError, match="does not wait for an answer"):
            read.complete(0)
        regs = vcpu.get_regs()
        assert (regs.rax, regs.rdx, regs.rip) == (0x55667788, 0x11223344, 0x100E)
        assert isinstance(vcpu.run(), Halt)

    def test_an_old_exit_does_not_answer_it(self, msr_guest: Start) -> None:
        vcpu = msr_guest(b"\xe4\x10" + RDMSR)
        port = vcpu.run()
        port.ignore()
        read = vcpu.run()
        with pytest.raises(UnansweredError, match="does not wait for an answer"):
            port.ignore()
        read.complete(5)
        assert vcpu.get_regs().rax == 5

    def test_a_write_is_taken(self, msr_guest: Start) -> None:
        vcpu = msr_guest(WRMSR)
        write = vcpu.run()
        assert isinstance(write, MsrWrite)
        assert repr(write) == "MsrWrite(index=0x12345678, value=0x2200000011)"
        with pytest.raises(UnansweredReadError):
            vcpu.save()
        write.complete()
        assert isinstance(vcpu.run(), Halt)

    @pytest.mark.parametrize("code", [RDMSR, WRMSR], ids=["read", "write"])
    @pytest.mark.parametrize("answer", ["refuse", "ignore"])
    @pytest.mark.parametrize("look", [False, True], ids=["", "looked at"])
    def test_what_is_refused_raises_gp(
        self, msr_guest: Start, code: bytes, answer: str, look: bool
    ) -> None:
        vcpu = msr_guest(code)
        exit: Any = vcpu.run()
        getattr(exit, answer)()
        if look:
            vcpu.get_regs()
        out = vcpu.run()
        assert isinstance(out, IoOut)
        assert out.port == 0x0D
        assert isinstance(vcpu.run(), Halt)
        assert vcpu.get_regs().rip == 0x2003

    @pytest.mark.parametrize("code", [RDMSR, WRMSR], ids=["read", "write"])
    def test_a_reset_gives_it_up(
        self, arch: AnyBackend, backend: BackendUnderTest, msr_guest: Start, code: bytes
    ) -> None:
        """KVM would finish it in the middle of the next guest."""
        vcpu = msr_guest(code)
        configured = backend.state(vcpu)
        for _ in range(2):
            assert isinstance(vcpu.run(), MsrRead | MsrWrite)
            arch.reset_vcpu(vcpu, RealMode(0x1000, rsp=0x8000))
            regs = vcpu.get_regs()
            assert (regs.rip, regs.rax) == (0x1000, 0)
            assert differences(backend.state(vcpu), configured) == []

    @pytest.mark.parametrize("code", [RDMSR, WRMSR], ids=["read", "write"])
    def test_one_can_be_looked_at_and_taken_back(self, msr_guest: Start, code: bytes) -> None:
        vcpu = msr_guest(code)
        for _ in range(2):
            exit: Any = vcpu.run()
            assert isinstance(exit, MsrRead | MsrWrite)
            before = vcpu.get_regs()
            assert vcpu.get_msrs([IA32_PAT])
            vcpu.discard_exit()
            after = vcpu.get_regs()
            assert (after.rip, after.rax, after.rdx) == (before.rip, before.rax, before.rdx)
            with pytest.raises(UnansweredError, match="does not wait for an answer"):
                exit.ignore()
        after.rip += 2
        vcpu.set_regs(after)
        assert isinstance(vcpu.run(), Halt)

    def test_one_that_nobody_handles_ends_serving_by_name(self, msr_guest: Start) -> None:
        vcpu = msr_guest(RDMSR)
        ending = serve(vcpu.vm, Bus())
        assert (ending.reason, ending.message) == (
            Reason.FAILED,
            "unhandled exit MsrRead(index=0x12345678)",
        )
