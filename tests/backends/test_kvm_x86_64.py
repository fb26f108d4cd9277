"""What is KVM's own in kvm_x86_64, on the real /dev/kvm: its calls, its errors, the way out."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from backends import backend_module
from requirements import PYTHON
from vcpu_state import msrs_of
from vmm_arch import kvm
from vmm_arch import kvm_x86_64 as arch
from vmm_arch.abi import kvm_x86_64 as abi
from vmm_arch.x86_64.msr_exits import MsrSet

SPIN = b"\xeb\xfe"  # jmp $
Guest = Callable[[bytes], arch.Vcpu]


@pytest.fixture(name="arch", autouse=True)
def only_kvm() -> Any:
    """Have the shared fixtures make guests of KVM's."""
    return backend_module("kvm_x86_64")


class TestCalls:
    @pytest.mark.parametrize(
        "entry", [arch.RealMode(0x1000), arch.Protected32(0x1000), arch.Long64(0x1000)]
    )
    def test_configure_reads_nothing_and_makes_four_calls(
        self, memory: arch.GuestMemory, entry: arch.Entry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        requests: list[int] = []
        for way in ("ioctl", "ioctl_large"):
            real = getattr(arch, way)

            def recorded(fd: int, request: int, *argument: Any, real: Any = real) -> int:
                requests.append(request)
                result: int = real(fd, request, *argument)
                return result

            monkeypatch.setattr(arch, way, recorded)
        with arch.Vm(memory, irqchip=True) as vm:
            at_creation = requests.count(abi.KVM_SET_CPUID2)
            requests.clear()
            arch.configure_vcpu(vm.vcpus[0], entry)
            assert at_creation == 1  # the fifth
            assert len(requests) == 4
            assert not [request for request in requests if request >> 30 & abi._IOC_READ]

    def test_more_msrs_than_kvm_takes_at_once(self, guest: Guest) -> None:
        vcpu = guest(SPIN)
        banks = [*range(0x400, 0x480), *range(0x200, 0x210), *range(0x280, 0x2A0)]
        known = msrs_of(vcpu, banks)
        many = {0xC0000082: 7, **known}
        image = vars(arch)["_msrs_image"](many)
        write = vars(arch)["_write_msrs"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(arch, "MSRS_AT_ONCE", 16)
            write(vcpu.fd, image)
            assert vcpu.get_msrs(many) == many


class TestFilterOfMsrs:
    """KVM's filter: what is denied by default, and what KVM cannot make an exit."""

    CODE = bytes.fromhex("66 b977020000 0f32") + bytes.fromhex(  # mov ecx, IA32_PAT; rdmsr
        "66 b9820000c0 0f32 0f30 f4"
    )  # mov ecx, IA32_LSTAR; rdmsr; wrmsr; hlt

    def accesses(self, vcpu: arch.Vcpu) -> list[str]:
        """The guest's exits, each answered."""
        found: list[str] = []
        while True:
            match exit := vcpu.run():
                case arch.MsrRead():
                    exit.complete(0)
                case arch.MsrWrite():
                    exit.complete()
                case _:
                    assert isinstance(exit, arch.Halt)
                    return found
            found.append(repr(exit).partition("(")[0] + f" {exit.index:#x}")

    @pytest.mark.parametrize(
        ("reads", "writes", "expected"),
        [
            ((), (), []),
            ([0x277], [0x277], ["MsrRead 0x277"]),
            ((), [0xC0000082], ["MsrWrite 0xc0000082"]),
            (
                arch.AllExcept(),
                arch.AllExcept(),
                ["MsrRead 0x277", "MsrRead 0xc0000082", "MsrWrite 0xc0000082"],
            ),
            (arch.AllExcept([0x277, 0xC0000082]), arch.AllExcept(), ["MsrWrite 0xc0000082"]),
            (arch.AllExcept([0x277]), arch.AllExcept([0xC0000082]), ["MsrRead 0xc0000082"]),
        ],
    )
    def test_what_is_an_exit(
        self, guest: Guest, reads: MsrSet, writes: MsrSet, expected: list[str]
    ) -> None:
        vcpu = guest(self.CODE)
        vcpu.vm.intercept_msrs(reads, writes)
        assert self.accesses(vcpu) == expected
        vcpu.vm.intercept_msrs((), ())
        arch.reset_vcpu(vcpu, arch.RealMode(0x1000))
        assert self.accesses(vcpu) == []

    @pytest.mark.parametrize(
        ("reads", "writes", "complaint"),
        [
            (arch.AllExcept(), (), "AllExcept for reads and writes, or for none"),
            ([0x80B], (), "never exits for a local APIC's registers: 0x80b"),
            (range(0, 0x4000 * 20, 0x4000), (), "take 20 bitmaps of neighbours, KVM has 16"),
            ((), [1 << 32], "an unsigned 32-bit value"),
        ],
    )
    def test_what_kvm_cannot_do_changes_nothing(
        self, guest: Guest, reads: MsrSet, writes: MsrSet, complaint: str
    ) -> None:
        vcpu = guest(self.CODE)
        vcpu.vm.intercept_msrs([0x277], ())
        with pytest.raises(ValueError, match=complaint):
            vcpu.vm.intercept_msrs(reads, writes)
        assert self.accesses(vcpu) == ["MsrRead 0x277"]


def test_a_value_that_kvm_refuses_is_an_exit_like_an_msr_that_it_does_not_have(
    guest: Guest,
) -> None:
    # mov ecx, IA32_LSTAR; mov eax, 0; mov edx, 0x80000000; wrmsr; hlt
    vcpu = guest(bytes.fromhex("66 b9820000c0 66 b800000000 66 ba00000080 0f30 f4"))
    vcpu.vm.intercept_msrs((), (), unknown=True)
    write = vcpu.run()
    assert isinstance(write, arch.MsrWrite)
    assert (write.index, write.value) == (0xC0000082, 1 << 63)
    write.complete()
    assert isinstance(vcpu.run(), arch.Halt)


@pytest.mark.parametrize("code", ["EFAULT", "EHWPOISON"])
def test_memory_that_the_host_cannot_give_is_an_exit(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """What Linux does from 6.8 on for a guest_memfd is played, since few hosts have private memory."""
    vcpu = guest(b"\xf4")
    enter = getattr(arch, "enter_guest")  # noqa: B009 - it is not exported

    def fail(fd: int, request: int) -> None:
        monkeypatch.setattr(arch, "enter_guest", enter)
        run = vcpu.run_context
        run.exit_reason = abi.KVM_EXIT_MEMORY_FAULT
        run.memory_fault.gpa, run.memory_fault.size = 0x3000, 0x1000
        run.memory_fault.flags = abi.KVM_MEMORY_EXIT_FLAG_PRIVATE
        raise OSError(getattr(errno, code, 133), "as if")

    monkeypatch.setattr(arch, "enter_guest", fail)
    fault = vcpu.run()
    assert isinstance(fault, arch.MemoryFault)
    assert repr(fault) == "MemoryFault(address=0x3000, size=0x1000, is_private=True)"
    assert vcpu.get_regs().rip == 0x1000
    with pytest.raises(arch.HypervisorError, match="no private memory for 0x1000 bytes at 0x3000"):
        fault.ignore()
    assert isinstance(vcpu.run(), arch.Halt)


def test_a_read_into_a_vector_register_is_taken_back(memory: arch.GuestMemory) -> None:
    """KVM makes two accesses of it, and completes both with ones."""
    memory.write(0x1000, bytes.fromhex("0f 10 0d 00 00 00 70 f4"))  # movups xmm1, [0x70000000]
    with arch.Vm(memory) as vm:
        vcpu = vm.vcpus[0]
        arch.configure_vcpu(vcpu, arch.Protected32(0x1000))
        sregs = vcpu.get_sregs()
        sregs.cr4 |= 0x600  # OSFXSR, OSXMMEXCPT
        vcpu.set_sregs(sregs)
        fpu = vcpu.get_fpu()
        for answered in (0, 1):
            for _ in range(answered):
                first = vcpu.run()
                assert isinstance(first, arch.MmioRead)
                first.complete(5)
            assert isinstance(vcpu.run(), arch.MmioRead)
            vcpu.discard_exit()
            assert bytes(vcpu.get_fpu()) == bytes(fpu)
            assert vcpu.get_regs().rip == 0x1000


def test_a_host_without_xsave_is_asked_for_no_extended_control_registers(
    memory: arch.GuestMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made = vars(arch)["ioctl"], []

    def without(fd: int, request: int, argument: Any = 0) -> int:
        made.append(request)
        if (request, argument) == (abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_XCRS):
            return 0
        result: int = real(fd, request, argument)
        return result

    monkeypatch.setattr(arch, "ioctl", without)
    with arch.Vm(memory) as vm:
        for _ in range(2):
            arch.reset_vcpu(vm.vcpus[0], arch.RealMode(0x1000))
    assert abi.KVM_SET_XSAVE in made or abi.KVM_SET_DEBUGREGS in made
    assert abi.KVM_SET_XCRS not in made


def test_a_guest_with_amx_needs_a_permission(memory: arch.GuestMemory) -> None:
    """Where there is no AMX the kernel refuses it; where there is, the state is larger."""
    entries = [
        replace(e, eax=e.eax | 3 << 17) if (e.function, e.index) == (0xD, 0) else e
        for e in arch.supported_cpuid()
    ]
    if "amx_tile" in Path("/proc/cpuinfo").read_text():
        with arch.Vm(memory, cpuid=entries) as vm:
            assert len(bytes(vm.vcpus[0].save()._saved["xsave"])) > 8192
        return
    with pytest.raises(arch.HypervisorUnavailableError, match=r"arch_prctl: .*has no AMX"):
        arch.Vm(memory, cpuid=entries)


class TestOtherExits:
    """What KVM tells and no other hypervisor does: here KVM's part is played by the test."""

    @pytest.fixture
    def told(self, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., arch.Vcpu]:
        """A vCPU whose next exit is of a reason; the members of ``kvm_run`` are laid out first."""

        def tell(reason: int, lay_out: Callable[[abi.kvm_run], None]) -> arch.Vcpu:
            vcpu = guest(SPIN)

            def enter(fd: int, request: int) -> None:
                if vcpu.run_context.immediate_exit:
                    raise InterruptedError
                vcpu.run_context.exit_reason = reason
                lay_out(vcpu.run_context)

            monkeypatch.setattr(arch, "enter_guest", enter)
            return vcpu

        return tell

    @pytest.mark.parametrize(
        ("name", "answer", "refused"),
        [
            ("HYPERCALL", lambda run: run.hypercall.ret, 2**64 - 1000),
            ("XEN", lambda run: run.xen.u.hcall.result, 2**64 - errno.ENOSYS),
            ("HYPERV", lambda run: run.hyperv.u.hcall.result, 2),
            ("TDX", lambda run: run.tdx.unknown.ret, 0x8000000000000003),
            ("SNP_REQ_CERTS", lambda run: run.snp_req_certs.ret, errno.EIO),
        ],
    )
    def test_a_service_that_the_guest_asks_for_waits_for_its_answer(
        self,
        told: Callable[..., arch.Vcpu],
        name: str,
        answer: Callable[[abi.kvm_run], int],
        refused: int,
    ) -> None:
        def lay_out(run: abi.kvm_run) -> None:
            if name == "HYPERV":
                run.hyperv.type = abi.KVM_EXIT_HYPERV_HCALL
            if name == "TDX":
                run.tdx.unknown.ret = refused  # as KVM does for those who answer nothing

        vcpu = told(vars(abi)[f"KVM_EXIT_{name}"], lay_out)
        for end in ("ignore", "complete"):
            exit = vcpu.run()
            assert isinstance(exit, arch.OtherExit)
            assert repr(exit) == f"OtherExit(reason=KVM_EXIT_{name})"
            assert exit.reason == vars(abi)[f"KVM_EXIT_{name}"]
            with pytest.raises(arch.UnansweredError):
                vcpu.save()
            before = answer(vcpu.run_context)
            getattr(exit, end)()
            assert answer(vcpu.run_context) == (refused if end == "ignore" else before)
            vcpu.get_regs()
            with pytest.raises(arch.UnansweredError, match="does not wait for an answer"):
                exit.complete()

    @pytest.mark.parametrize("name", ["X86_BUS_LOCK", "HYPERV", "NOTIFY", "EXCEPTION", "UNKNOWN"])
    def test_what_is_only_told_needs_no_answer(
        self, told: Callable[..., arch.Vcpu], name: str
    ) -> None:
        def lay_out(run: abi.kvm_run) -> None:
            if name == "HYPERV":
                run.hyperv.type = abi.KVM_EXIT_HYPERV_SYNIC

        vcpu = told(vars(abi)[f"KVM_EXIT_{name}"], lay_out)
        exit = vcpu.run()
        assert repr(exit) == f"OtherExit(reason=KVM_EXIT_{name})"
        vcpu.get_regs()
        exit.ignore()
        vcpu.run()

    def test_a_reason_that_no_header_names(self, told: Callable[..., arch.Vcpu]) -> None:
        assert repr(told(999, lambda run: None).run()) == "OtherExit(reason=999)"

    def test_a_failure_shows_the_bytes_that_kvm_could_not_emulate(
        self, told: Callable[..., arch.Vcpu]
    ) -> None:
        def lay_out(run: abi.kvm_run) -> None:
            run.emulation_failure.suberror = abi.KVM_INTERNAL_ERROR_EMULATION
            run.emulation_failure.ndata = 4
            run.emulation_failure.flags = flags
            run.emulation_failure.insn_size = 3
            run.emulation_failure.insn_bytes[:3] = [0x0F, 0x01, 0xFD]

        flags = abi.KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES
        vcpu = told(abi.KVM_EXIT_INTERNAL_ERROR, lay_out)
        failure = vcpu.run()
        assert isinstance(failure, arch.Failure)
        assert failure.instruction == b"\x0f\x01\xfd"
        assert failure.message.endswith("a guest instruction, which begins with 0f 01 fd")
        flags = 0
        failure = vcpu.run()
        assert isinstance(failure, arch.Failure)
        assert (failure.instruction, failure.message[-11:]) == (b"", "instruction")


def test_memory_larger_than_a_slot(
    memory: arch.GuestMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot ends at 8 TiB; here at 64 KiB, inside what the guest writes."""
    assert vars(arch)["SLOT_SIZE"] // 0x1000 < 1 << 31
    monkeypatch.setattr(arch, "SLOT_SIZE", 0x10000)
    code = (
        "b8ff0f 8ed8 c7060f00 1122"  # mov ax, 0xfff; mov ds, ax; mov word ptr [0xf], 0x2211
        "b80020 8ed8 c6060000 33"  # mov ax, 0x2000; mov ds, ax; mov byte ptr [0], 0x33
        "f4"  # hlt
    )
    memory.write(0x1000, bytes.fromhex(code))
    with arch.Vm(memory, track_dirty=True) as vm:
        arch.configure_vcpu(vm.vcpus[0], arch.RealMode(0x1000))
        assert isinstance(vm.vcpus[0].run(), arch.Halt)
        assert memory.read(0xFFFF, 2) == b"\x11\x22"
        assert memory.read(0x20000, 1) == b"\x33"
        assert {0xF000, 0x10000, 0x20000} <= set(vm.dirty_pages())


def test_the_8259s_are_as_firmware_leaves_them(memory: arch.GuestMemory) -> None:
    """Masked, and with the vectors of a PC: line 1, once it is let through, is vector 9."""
    code = (
        "e421 e610"  # in al, 0x21; out 0x10, al
        "e4a1 e610"  # in al, 0xa1; out 0x10, al
        "b0f9 e621 fb"  # mov al, 0xf9; out 0x21, al; sti
        "f4 ebfd"  # wait: hlt; jmp wait
    )
    memory.write(0x1000, bytes.fromhex(code))
    memory.write(0x2000, b"\xe6\x11\xf4")  # out 0x11, al; hlt
    memory.write(9 * 4, (0x2000).to_bytes(4, "little"))
    with arch.Vm(memory, irqchip=True) as vm:
        vcpu = vm.vcpus[0]
        arch.configure_vcpu(vcpu, arch.RealMode(0x1000, rsp=0x8000))
        assert repr(vcpu.run()) == "IoOut(port=0x10, data=b'\\xfb', size=1)"
        assert repr(vcpu.run()) == "IoOut(port=0x10, data=b'\\xff', size=1)"
        vm.set_irq_line(1, True)
        exit = vcpu.run()
        assert isinstance(exit, arch.IoOut)
        assert exit.port == 0x11


class TestDevice:
    """A descriptor of /dev/kvm from somebody who may open it."""

    def test_a_machine_where_there_is_no_device_to_open(
        self, memory: arch.GuestMemory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        device = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        try:
            monkeypatch.setattr(kvm, "DEVICE", tmp_path / "kvm")
            for known in ("_HOST_CPUID", "_RESTORABLE", "_OTHER_STATE"):
                vars(arch)[known].clear()
            with pytest.raises(arch.HypervisorUnavailableError, match="no such device"):
                arch.supported_cpuid()
            assert arch.probe(device=device)
            vm = arch.Vm(memory, device=device)
            os.fstat(device)  # it stays the caller's
        finally:
            os.close(device)
        with vm:
            memory.write(0x1000, b"\xf4")
            vcpu = vm.vcpus[0]
            arch.configure_vcpu(vcpu, arch.RealMode(0x1000))
            for _ in range(2):
                assert isinstance(vcpu.run(), arch.Halt)
                vcpu.set_msrs({0x174: 8, 0x200: 6})
                arch.reset_vcpu(vcpu, arch.RealMode(0x1000))
                assert vcpu.get_msrs([0x174, 0x200]) == {0x174: 0, 0x200: 0}

    def test_running_out_of_descriptors(self, memory: arch.GuestMemory) -> None:
        """Wherever it happens, the error says what to do, and nothing is left open."""
        arch.Vm(memory).close()  # what is asked once for a process
        gc.collect()  # files of what other tests have left must not be closed in between
        open_now = len(os.listdir("/proc/self/fd"))
        limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        refused = set()
        try:
            for more in range(-2, 12):
                resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + more, most))
                try:
                    arch.Vm(memory, vcpus=4).close()
                except arch.HypervisorError as error:
                    assert (error.errno, error.code) == (errno.EMFILE, "EMFILE")
                    assert "ulimit -n" in str(error)
                    refused.add(error.operation)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
        assert {"open /dev/kvm", "KVM_CREATE_VM", "KVM_CREATE_VCPU"} <= refused
        assert ("mmap of a vCPU" in refused) == (sys.version_info < (3, 13))
        assert len(os.listdir("/proc/self/fd")) == open_now
        memory.close()  # nobody holds it

    def test_a_machine_that_was_prepared_is_reset_to_what_it_was_made(
        self, memory: arch.GuestMemory
    ) -> None:
        """Without its quirks a new vCPU has other MSRs: they are read anew for each such machine."""
        arch.Vm(memory).close()

        def prepare(vm: arch.Vm) -> None:
            known = vm.ioctl(abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_DISABLE_QUIRKS2)
            quirks = abi.kvm_enable_cap(cap=abi.KVM_CAP_DISABLE_QUIRKS2, args=(known, 0, 0, 0))
            vm.ioctl(abi.KVM_ENABLE_CAP, quirks)

        listed = vars(arch)["_RESTORABLE"]
        with arch.Vm(memory, prepare=prepare) as vm:
            arch.configure_vcpu(vm.vcpus[0], arch.RealMode(0x1000))
            before = msrs_of(vm.vcpus[0], listed)
            arch.reset_vcpu(vm.vcpus[0], arch.RealMode(0x1000))
            assert msrs_of(vm.vcpus[0], listed) == before

    @pytest.mark.parametrize("path", ["/dev/null", None])
    def test_a_descriptor_of_something_else(
        self, memory: arch.GuestMemory, path: str | None
    ) -> None:
        device = -1 if path is None else os.open(path, os.O_RDWR)
        try:
            with pytest.raises(
                arch.HypervisorUnavailableError, match=f"device={device} is not KVM"
            ):
                arch.Vm(memory, cpuid=[], device=device)
            assert f"device={device}: KVM_GET_API" in str(arch.probe(device=device))
        finally:
            if path is not None:
                os.close(device)

    def test_a_capability_that_is_asked_for_before_the_vcpus(
        self, memory: arch.GuestMemory
    ) -> None:
        """An interrupt controller that only a machine without vCPUs can be given."""
        split = abi.kvm_enable_cap(cap=abi.KVM_CAP_SPLIT_IRQCHIP, args=(24, 0, 0, 0))

        def prepare(vm: arch.Vm) -> None:
            vm.ioctl(abi.KVM_ENABLE_CAP, split)

        with arch.Vm(memory, prepare=prepare) as vm:
            assert vm.vcpus[0].get_lapic()[0x20] == 0


class TestSignals:
    def test_an_exception_from_a_signal_leaves_the_vcpu_usable(self, guest: Guest) -> None:
        vcpu = guest(SPIN)

        def interrupt(*_: object) -> None:
            """As Control-C does."""
            raise KeyboardInterrupt

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
        for arguments, answer in (
            ([], "create the first Vm there, or call"),
            (["install"], "made"),
        ):
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
            arch.HypervisorUnavailableError, match="API is version 12, but 11 is required"
        ):
            arch.Vm(memory)

    def test_a_missing_capability(
        self, memory: arch.GuestMemory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wanted = {"KVM_CAP_FLIGHT": (99999, "flying guests", True)}
        monkeypatch.setattr(arch, "CAPABILITIES", wanted)
        with pytest.raises(
            arch.HypervisorUnavailableError,
            match="KVM_CAP_FLIGHT: flying guests: needs a newer kernel",
        ):
            arch.Vm(memory)
        assert "NO   KVM_CAP_FLIGHT" in str(arch.probe())

    def test_a_vcpu_index_twice(self, memory: arch.GuestMemory) -> None:
        with (
            arch.Vm(memory) as vm,
            pytest.raises(
                arch.HypervisorError, match="KVM_CREATE_VCPU: EEXIST: the machine already has a"
            ),
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

    def test_registers_that_contradict_each_other(self, guest: Guest) -> None:
        vcpu = guest(SPIN)
        sregs = vcpu.get_sregs()
        sregs.efer, sregs.cr0 = 0x100, 0x80000011  # LME and PG without LMA
        with pytest.raises(arch.HypervisorError, match="KVM_SET_SREGS: EINVAL: the registers"):
            vcpu.set_sregs(sregs)

    def test_what_cannot_be_without_an_irqchip(self, guest: Guest) -> None:
        vcpu = guest(SPIN)
        with pytest.raises(arch.HypervisorError, match=r"KVM_GET_LAPIC: EINVAL: .* irqchip"):
            vcpu.get_lapic()
        with pytest.raises(arch.HypervisorError, match=r"KVM_SET_LAPIC: EINVAL: .* irqchip"):
            arch.set_lint(vcpu)
        with pytest.raises(arch.HypervisorError, match=r"KVM_IRQ_LINE: ENXIO: .* irqchip"):
            vcpu.vm.set_irq_line(4, True)

    def test_a_refused_msr_leaves_those_before_it_written(self, guest: Guest) -> None:
        vcpu = guest(SPIN)
        with pytest.raises(arch.HypervisorError, match="KVM_SET_MSRS: EINVAL: MSR 0x1234567 can"):
            vcpu.set_msrs({0x174: 1, 0x1234567: 0x42})
        assert vcpu.get_msrs([0x174]) == {0x174: 1}

    def test_a_guest_that_kvm_cannot_go_on_with(self, guest: Guest) -> None:
        vcpu = guest(SPIN)
        sregs = vcpu.get_sregs()
        sregs.cs.base = 0x40000000  # where nothing is
        vcpu.set_sregs(sregs)
        failure = vcpu.run()
        assert isinstance(failure, arch.Failure)
        assert failure.operation == "KVM_RUN"
        assert failure.code.startswith("KVM_EXIT_INTERNAL_ERROR")
        assert vcpu.run_context.exit_reason == abi.KVM_EXIT_INTERNAL_ERROR

    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            ("SHUTDOWN", "SystemEvent(kind=1, reason='power off')"),
            ("RESET", "SystemEvent(kind=2, reason='reset')"),
            ("CRASH", "SystemEvent(kind=3, reason='panic')"),
            ("SEV_TERM", "SystemEvent(kind=6)"),
        ],
    )
    def test_what_an_event_means(self, guest: Guest, name: str, shown: str) -> None:
        vcpu = guest(SPIN)
        vcpu.run_context.system_event.type = vars(abi)[f"KVM_SYSTEM_EVENT_{name}"]
        assert repr(vcpu._rare_exit(abi.KVM_EXIT_SYSTEM_EVENT)) == shown

    def test_a_forked_child(self, guest: Guest) -> None:
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
            assert said.endswith("create another one here")
        os.waitpid(child, 0)
        vcpu.get_regs()  # the parent's is its own still


class TestEscapeHatch:
    @pytest.mark.parametrize(
        "argument", [None, b"bytes", 1.5, "text", ctypes.c_void_p(1), ctypes.c_uint64]
    )
    def test_what_is_no_argument(self, guest: Guest, argument: object) -> None:
        with pytest.raises(
            TypeError, match="expected an integer, a ctypes record or number, a bytearray, got"
        ):
            guest(SPIN).ioctl(abi.KVM_GET_REGS, argument)

    def test_a_buffer_that_is_too_short(self, guest: Guest) -> None:
        with pytest.raises(ValueError, match="needs 144 bytes, the buffer has 8"):
            guest(SPIN).ioctl(abi.KVM_GET_REGS, bytearray(8))

    def test_any_call_with_records_bytearrays_and_integers(self, guest: Guest) -> None:
        vcpu = guest(SPIN)
        regs, raw = arch.Regs(), bytearray(ctypes.sizeof(arch.Regs))
        vcpu.ioctl(abi.KVM_GET_REGS, regs)
        vcpu.ioctl(abi.KVM_GET_REGS, raw)
        assert bytes(regs) == raw
        assert vcpu.vm.ioctl(abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_IMMEDIATE_EXIT) == 1
        with pytest.raises(arch.HypervisorError, match="ioctl 0xaeff: "):
            vcpu.ioctl(0xAEFF)

    def test_a_number_by_its_address(self, memory: arch.GuestMemory) -> None:
        def prepare(vm: arch.Vm) -> None:
            vm.ioctl(abi.KVM_SET_IDENTITY_MAP_ADDR, ctypes.c_uint64(0xD000_0000))
            with pytest.raises(ValueError, match="needs 8 bytes, the buffer has 4"):
                vm.ioctl(abi.KVM_SET_IDENTITY_MAP_ADDR, ctypes.c_uint32(0xD000_0000))

        arch.Vm(memory, prepare=prepare).close()

    def test_what_it_reads_leaves_a_vcpu_new(self, memory: arch.GuestMemory) -> None:
        reading = (
            *("GET_CPUID2", "GET_MSRS", "GET_REGS", "GET_ONE_REG", "GET_NESTED_STATE", "GET_LAPIC"),
            *("GET_TSC_KHZ", "GET_DEVICE_ATTR", "HAS_DEVICE_ATTR", "GET_XSAVE2", "GET_SREGS2"),
            *("GET_MP_STATE", "GET_VCPU_EVENTS", "TRANSLATE", "XEN_VCPU_GET_ATTR"),
        )
        with arch.Vm(memory, irqchip=True) as vm:
            for name in reading:
                with suppress(arch.HypervisorError):
                    vm.vcpus[0].ioctl(vars(abi)[f"KVM_{name}"], bytearray(8192))
            arch.configure_vcpu(vm.vcpus[0], arch.RealMode(0x1000))

    @pytest.mark.parametrize(
        "request_", [abi.KVM_NMI, abi.KVM_SET_ONE_REG, abi.KVM_SET_LAPIC, abi.KVM_SMI]
    )
    def test_what_it_sets_makes_a_vcpu_used(self, memory: arch.GuestMemory, request_: int) -> None:
        with arch.Vm(memory) as vm:
            with suppress(arch.HypervisorError):
                vm.vcpus[0].ioctl(request_, bytearray(8192))
            with pytest.raises(arch.NotFreshError):
                arch.configure_vcpu(vm.vcpus[0], arch.RealMode(0x1000))

    def test_it_is_closed_with_the_machine(self, memory: arch.GuestMemory) -> None:
        with arch.Vm(memory) as vm:
            vcpu = vm.vcpus[0]
        with pytest.raises(arch.ClosedError):
            vcpu.ioctl(abi.KVM_GET_REGS, arch.Regs())
        with pytest.raises(arch.ClosedError):
            vm.ioctl(abi.KVM_CREATE_VCPU, 1)
