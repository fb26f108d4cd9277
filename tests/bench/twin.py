"""What a VMM layer in Python looks like without generation: the dynamic-dispatch twin.

It is made as Rust's VMMs abstract their hypervisors: an abstract vCPU that speaks neutral records,
arch functions written once against it, and an implementation for KVM that translates between the
neutral records and the kernel's. The arch functions leave the machine that the generated module
leaves; they cannot know which calls that takes, so they read what they only modify.
"""

from __future__ import annotations

import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from ctypes import addressof, c_char, c_uint8, sizeof
from dataclasses import dataclass
from fcntl import ioctl
from types import TracebackType
from typing import Self, TypeAlias

from vmm_arch.abi import kvm_x86_64 as kvm

# Neutral records


@dataclass(slots=True)
class Regs:
    rax: int = 0
    rbx: int = 0
    rcx: int = 0
    rdx: int = 0
    rsi: int = 0
    rdi: int = 0
    rsp: int = 0
    rbp: int = 0
    r8: int = 0
    r9: int = 0
    r10: int = 0
    r11: int = 0
    r12: int = 0
    r13: int = 0
    r14: int = 0
    r15: int = 0
    rip: int = 0
    rflags: int = 2


@dataclass(slots=True)
class Segment:
    base: int = 0
    limit: int = 0
    selector: int = 0
    type: int = 0
    present: int = 0
    dpl: int = 0
    db: int = 0
    s: int = 0
    l: int = 0  # noqa: E741 - the field's name
    g: int = 0
    avl: int = 0


@dataclass(slots=True)
class Table:
    base: int = 0
    limit: int = 0


@dataclass(slots=True)
class Sregs:
    cs: Segment
    ds: Segment
    es: Segment
    fs: Segment
    gs: Segment
    ss: Segment
    tr: Segment
    ldt: Segment
    gdt: Table
    idt: Table
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    cr8: int
    efer: int
    apic_base: int


@dataclass(slots=True)
class Fpu:
    fcw: int = 0
    fsw: int = 0
    ftw: int = 0
    fop: int = 0
    fip: int = 0
    fdp: int = 0
    mxcsr: int = 0
    st: bytes = bytes(8 * 16)
    xmm: bytes = bytes(16 * 16)


@dataclass(slots=True)
class Lapic:
    """The local APIC's page of registers."""

    page: bytearray

    def get(self, offset: int) -> int:
        return int.from_bytes(self.page[offset : offset + 4], "little")

    def set(self, offset: int, value: int) -> None:
        self.page[offset : offset + 4] = value.to_bytes(4, "little")


# Exits


@dataclass(frozen=True, slots=True)
class IoIn:
    port: int
    size: int
    count: int


@dataclass(frozen=True, slots=True)
class IoOut:
    port: int
    size: int
    data: bytes


@dataclass(frozen=True, slots=True)
class MmioRead:
    address: int
    size: int


@dataclass(frozen=True, slots=True)
class MmioWrite:
    address: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Halt:
    pass


@dataclass(frozen=True, slots=True)
class Shutdown:
    pass


@dataclass(frozen=True, slots=True)
class Interrupted:
    pass


@dataclass(frozen=True, slots=True)
class OtherExit:
    reason: int


Exit: TypeAlias = IoIn | IoOut | MmioRead | MmioWrite | Halt | Shutdown | Interrupted | OtherExit


# The abstract vCPU


class Vcpu(ABC):
    """A virtual CPU of any hypervisor."""

    @abstractmethod
    def get_regs(self) -> Regs: ...
    @abstractmethod
    def set_regs(self, regs: Regs) -> None: ...
    @abstractmethod
    def get_sregs(self) -> Sregs: ...
    @abstractmethod
    def set_sregs(self, sregs: Sregs) -> None: ...
    @abstractmethod
    def get_fpu(self) -> Fpu: ...
    @abstractmethod
    def set_fpu(self, fpu: Fpu) -> None: ...
    @abstractmethod
    def set_msrs(self, msrs: Mapping[int, int]) -> None: ...
    @abstractmethod
    def get_lapic(self) -> Lapic: ...
    @abstractmethod
    def set_lapic(self, lapic: Lapic) -> None: ...
    @abstractmethod
    def run(self) -> Exit: ...


# Arch functions

CODE_SELECTOR = 0x10
DATA_SELECTOR = 0x18
TSS_SELECTOR = 0x20

BOOT_MSRS = {
    0x174: 0,  # SYSENTER_CS
    0x175: 0,  # SYSENTER_ESP
    0x176: 0,  # SYSENTER_EIP
    0x1A0: 0x1,  # MISC_ENABLE: fast strings
    0x277: 0x0007040600070406,  # PAT
    0x2FF: 0x806,  # MTRR_DEF_TYPE: on, write back
    0xC0000081: 0,  # STAR
    0xC0000082: 0,  # LSTAR
    0xC0000083: 0,  # CSTAR
    0xC0000084: 0,  # FMASK
    0xC0000102: 0,  # KERNEL_GS_BASE
    0xC0000103: 0,  # TSC_AUX
}


@dataclass(frozen=True, slots=True)
class Long64:
    """Enter 64-bit code, with a descriptor table and page tables that lie in guest memory."""

    address: int
    rsp: int = 0
    rax: int = 0
    rbx: int = 0
    rsi: int = 0
    gdt: int = 0x500
    page_tables: int = 0x9000


def setup_fpu(vcpu: Vcpu) -> None:
    vcpu.set_fpu(Fpu(fcw=0x37F, mxcsr=0x1F80))


def setup_msrs(vcpu: Vcpu) -> None:
    vcpu.set_msrs(BOOT_MSRS)


def setup_regs(vcpu: Vcpu, entry: Long64) -> None:
    vcpu.set_regs(
        Regs(
            rip=entry.address,
            rsp=entry.rsp,
            rbp=entry.rsp,
            rax=entry.rax,
            rbx=entry.rbx,
            rsi=entry.rsi,
        )
    )


def segment(selector: int, limit: int, attributes: int) -> Segment:
    """Unpack the flag word of a segment descriptor."""
    return Segment(
        selector=selector,
        limit=limit,
        type=attributes & 0xF,
        s=attributes >> 4 & 1,
        dpl=attributes >> 5 & 3,
        present=attributes >> 7 & 1,
        avl=attributes >> 12 & 1,
        l=attributes >> 13 & 1,
        db=attributes >> 14 & 1,
        g=attributes >> 15 & 1,
    )


def setup_sregs(vcpu: Vcpu, entry: Long64) -> None:
    sregs = vcpu.get_sregs()
    data = segment(DATA_SELECTOR, 0xFFFFFFFF, 0xC093)
    sregs.cs = segment(CODE_SELECTOR, 0xFFFFFFFF, 0xA09B)
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data
    sregs.tr = segment(TSS_SELECTOR, 0x67, 0x8B)
    sregs.gdt = Table(entry.gdt, TSS_SELECTOR + 15)
    sregs.idt = Table(0, 0)
    sregs.cr0 = 0x80000033  # PG, NE, ET, MP, PE
    sregs.cr3 = entry.page_tables
    sregs.cr4 = 0x20  # PAE
    sregs.efer |= 0x500  # LMA, LME
    vcpu.set_sregs(sregs)


def set_lint(vcpu: Vcpu) -> None:
    lapic = vcpu.get_lapic()
    lapic.set(0x350, lapic.get(0x350) & ~0x10700 | 0x700)  # LINT0: ExtINT
    lapic.set(0x360, lapic.get(0x360) & ~0x10700 | 0x400)  # LINT1: NMI
    vcpu.set_lapic(lapic)


def configure_vcpu(vcpu: Vcpu, entry: Long64) -> None:
    setup_msrs(vcpu)
    setup_regs(vcpu, entry)
    setup_fpu(vcpu)
    setup_sregs(vcpu, entry)
    set_lint(vcpu)


# KVM

# By position, which is the quickest: the neutral records have the kernel's order.


def regs_to_kvm(regs: Regs) -> kvm.kvm_regs:
    return kvm.kvm_regs(
        regs.rax,
        regs.rbx,
        regs.rcx,
        regs.rdx,
        regs.rsi,
        regs.rdi,
        regs.rsp,
        regs.rbp,
        regs.r8,
        regs.r9,
        regs.r10,
        regs.r11,
        regs.r12,
        regs.r13,
        regs.r14,
        regs.r15,
        regs.rip,
        regs.rflags,
    )


def regs_from_kvm(regs: kvm.kvm_regs) -> Regs:
    return Regs(
        regs.rax,
        regs.rbx,
        regs.rcx,
        regs.rdx,
        regs.rsi,
        regs.rdi,
        regs.rsp,
        regs.rbp,
        regs.r8,
        regs.r9,
        regs.r10,
        regs.r11,
        regs.r12,
        regs.r13,
        regs.r14,
        regs.r15,
        regs.rip,
        regs.rflags,
    )


def segment_to_kvm(segment: Segment) -> kvm.kvm_segment:
    return kvm.kvm_segment(
        segment.base,
        segment.limit,
        segment.selector,
        segment.type,
        segment.present,
        segment.dpl,
        segment.db,
        segment.s,
        segment.l,
        segment.g,
        segment.avl,
        not segment.present,
    )


def segment_from_kvm(segment: kvm.kvm_segment) -> Segment:
    return Segment(
        segment.base,
        segment.limit,
        segment.selector,
        segment.type,
        segment.present and not segment.unusable,
        segment.dpl,
        segment.db,
        segment.s,
        segment.l,
        segment.g,
        segment.avl,
    )


def table_to_kvm(table: Table) -> kvm.kvm_dtable:
    return kvm.kvm_dtable(base=table.base, limit=table.limit)


def table_from_kvm(table: kvm.kvm_dtable) -> Table:
    return Table(base=table.base, limit=table.limit)


def sregs_to_kvm(sregs: Sregs) -> kvm.kvm_sregs:
    return kvm.kvm_sregs(
        cs=segment_to_kvm(sregs.cs),
        ds=segment_to_kvm(sregs.ds),
        es=segment_to_kvm(sregs.es),
        fs=segment_to_kvm(sregs.fs),
        gs=segment_to_kvm(sregs.gs),
        ss=segment_to_kvm(sregs.ss),
        tr=segment_to_kvm(sregs.tr),
        ldt=segment_to_kvm(sregs.ldt),
        gdt=table_to_kvm(sregs.gdt),
        idt=table_to_kvm(sregs.idt),
        cr0=sregs.cr0,
        cr2=sregs.cr2,
        cr3=sregs.cr3,
        cr4=sregs.cr4,
        cr8=sregs.cr8,
        efer=sregs.efer,
        apic_base=sregs.apic_base,
    )


def sregs_from_kvm(sregs: kvm.kvm_sregs) -> Sregs:
    return Sregs(
        cs=segment_from_kvm(sregs.cs),
        ds=segment_from_kvm(sregs.ds),
        es=segment_from_kvm(sregs.es),
        fs=segment_from_kvm(sregs.fs),
        gs=segment_from_kvm(sregs.gs),
        ss=segment_from_kvm(sregs.ss),
        tr=segment_from_kvm(sregs.tr),
        ldt=segment_from_kvm(sregs.ldt),
        gdt=table_from_kvm(sregs.gdt),
        idt=table_from_kvm(sregs.idt),
        cr0=sregs.cr0,
        cr2=sregs.cr2,
        cr3=sregs.cr3,
        cr4=sregs.cr4,
        cr8=sregs.cr8,
        efer=sregs.efer,
        apic_base=sregs.apic_base,
    )


StRegisters = c_uint8 * 16 * 8
XmmRegisters = c_uint8 * 16 * 16


def fpu_to_kvm(fpu: Fpu) -> kvm.kvm_fpu:
    return kvm.kvm_fpu(
        fpr=StRegisters.from_buffer_copy(fpu.st),
        fcw=fpu.fcw,
        fsw=fpu.fsw,
        ftwx=fpu.ftw,
        last_opcode=fpu.fop,
        last_ip=fpu.fip,
        last_dp=fpu.fdp,
        xmm=XmmRegisters.from_buffer_copy(fpu.xmm),
        mxcsr=fpu.mxcsr,
    )


def fpu_from_kvm(fpu: kvm.kvm_fpu) -> Fpu:
    return Fpu(
        fcw=fpu.fcw,
        fsw=fpu.fsw,
        ftw=fpu.ftwx,
        fop=fpu.last_opcode,
        fip=fpu.last_ip,
        fdp=fpu.last_dp,
        mxcsr=fpu.mxcsr,
        st=bytes(fpu.fpr),
        xmm=bytes(fpu.xmm),
    )


class KvmVcpu(Vcpu):
    """A virtual CPU of KVM; made by :class:`KvmVm`."""

    def __init__(self, fd: int, run_size: int) -> None:
        self.fd = fd
        self._page = mmap.mmap(fd, run_size)
        self._run = kvm.kvm_run.from_buffer(self._page)

    def get_regs(self) -> Regs:
        regs = kvm.kvm_regs()
        ioctl(self.fd, kvm.KVM_GET_REGS, regs)
        return regs_from_kvm(regs)

    def set_regs(self, regs: Regs) -> None:
        ioctl(self.fd, kvm.KVM_SET_REGS, regs_to_kvm(regs))

    def get_sregs(self) -> Sregs:
        sregs = kvm.kvm_sregs()
        ioctl(self.fd, kvm.KVM_GET_SREGS, sregs)
        return sregs_from_kvm(sregs)

    def set_sregs(self, sregs: Sregs) -> None:
        ioctl(self.fd, kvm.KVM_SET_SREGS, sregs_to_kvm(sregs))

    def get_fpu(self) -> Fpu:
        fpu = kvm.kvm_fpu()
        ioctl(self.fd, kvm.KVM_GET_FPU, fpu)
        return fpu_from_kvm(fpu)

    def set_fpu(self, fpu: Fpu) -> None:
        ioctl(self.fd, kvm.KVM_SET_FPU, fpu_to_kvm(fpu))

    def set_msrs(self, msrs: Mapping[int, int]) -> None:
        entries = (kvm.kvm_msr_entry * len(msrs))()
        for entry, (index, value) in zip(entries, msrs.items(), strict=True):
            entry.index = index
            entry.data = value
        buffer = bytearray(kvm.kvm_msrs(nmsrs=len(msrs))) + bytes(entries)
        count = ioctl(self.fd, kvm.KVM_SET_MSRS, buffer)
        if count < len(msrs):
            raise OSError(f"KVM_SET_MSRS: MSR {list(msrs)[count]:#x} was refused")

    def get_lapic(self) -> Lapic:
        page = bytearray(kvm.KVM_APIC_REG_SIZE)
        ioctl(self.fd, kvm.KVM_GET_LAPIC, page)
        return Lapic(page)

    def set_lapic(self, lapic: Lapic) -> None:
        ioctl(self.fd, kvm.KVM_SET_LAPIC, lapic.page)

    def set_cpuid(self, cpuid: bytearray) -> None:
        """Set CPUID, laid out as KVM takes it, which is possible until the first run."""
        ioctl(self.fd, kvm.KVM_SET_CPUID2, cpuid)

    def run(self) -> Exit:
        """Run the guest until it needs something, and return what: a new record each time."""
        try:
            ioctl(self.fd, kvm.KVM_RUN)
        except InterruptedError:
            return Interrupted()
        run = self._run
        match run.exit_reason:
            case kvm.KVM_EXIT_IO:
                io = run.io
                if io.direction == kvm.KVM_EXIT_IO_IN:
                    return IoIn(io.port, io.size, io.count)
                begin = io.data_offset
                data = self._page[begin : begin + io.size * io.count]
                return IoOut(io.port, io.size, data)
            case kvm.KVM_EXIT_MMIO:
                mmio = run.mmio
                if mmio.is_write:
                    return MmioWrite(mmio.phys_addr, bytes(mmio.data[: mmio.len]))
                return MmioRead(mmio.phys_addr, mmio.len)
            case kvm.KVM_EXIT_HLT:
                return Halt()
            case kvm.KVM_EXIT_SHUTDOWN:
                return Shutdown()
            case reason:
                return OtherExit(reason)

    def close(self) -> None:
        """Close the vCPU, which cannot be used afterwards."""
        del self._run  # it keeps the page from being closed
        self._page.close()
        os.close(self.fd)


CPUID_ENTRIES = 256
TSS_ADDRESS = 0x7FFFD000
"""Where KVM has three pages for itself on Intel's processors; fcntl.ioctl takes nothing above."""


def supported_cpuid(device: int) -> bytearray:
    """Ask for everything that KVM can show a guest, laid out as KVM_SET_CPUID2 takes it."""
    cpuid = bytearray(kvm.kvm_cpuid2(nent=CPUID_ENTRIES))
    cpuid += bytes(CPUID_ENTRIES * sizeof(kvm.kvm_cpuid_entry2))
    ioctl(device, kvm.KVM_GET_SUPPORTED_CPUID, cpuid)
    return cpuid


class KvmVm:
    """A virtual machine of KVM with one vCPU; a context manager."""

    def __init__(self, memory_size: int, *, irqchip: bool) -> None:
        with ExitStack() as opened:
            device = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
            opened.callback(os.close, device)
            self.memory = mmap.mmap(-1, memory_size)
            opened.callback(self.memory.close)
            self.fd = ioctl(device, kvm.KVM_CREATE_VM)
            opened.callback(os.close, self.fd)
            ioctl(self.fd, kvm.KVM_SET_TSS_ADDR, TSS_ADDRESS)
            region = kvm.kvm_userspace_memory_region(
                memory_size=memory_size, userspace_addr=addressof(c_char.from_buffer(self.memory))
            )
            ioctl(self.fd, kvm.KVM_SET_USER_MEMORY_REGION, region)
            if irqchip:
                ioctl(self.fd, kvm.KVM_CREATE_IRQCHIP)
                pit = kvm.kvm_pit_config(flags=kvm.KVM_PIT_SPEAKER_DUMMY)
                ioctl(self.fd, kvm.KVM_CREATE_PIT2, pit)
            vcpu = ioctl(self.fd, kvm.KVM_CREATE_VCPU)
            self.vcpu = KvmVcpu(vcpu, ioctl(device, kvm.KVM_GET_VCPU_MMAP_SIZE))
            opened.callback(self.vcpu.close)
            self.vcpu.set_cpuid(supported_cpuid(device))
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Destroy the machine and its memory; closing twice is safe."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self.close()


def open_vm(memory_size: int = 0x10000, *, irqchip: bool = False) -> KvmVm:
    """Make a machine whose guest memory begins at 0, and whose vCPU has its CPUID."""
    return KvmVm(memory_size, irqchip=irqchip)
