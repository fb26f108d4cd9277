"""The contract of x86_64: what every hypervisor's module offers, and the state of a vCPU by name.

This file is read twice. The generator compares each hypervisor's folder with it and instantiates
the operations; and people who want to choose a hypervisor at run time import it::

    def boot(arch: Backend[VcpuT], kernel: Path) -> Vm[VcpuT]: ...

A type variable ``RegsT`` stands for the backend's own type ``Regs``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from vmm_arch.activity import Activity
from vmm_arch.exits import Exit
from vmm_arch.memory import Region
from vmm_arch.report import Report
from vmm_arch.x86_64.cpuid import CpuidEntry
from vmm_arch.x86_64.entry import Entry
from vmm_arch.x86_64.events import Events
from vmm_arch.x86_64.platform.memory_map import GuestMemory


class Segment(Protocol):
    """A segment register with its hidden part (Intel SDM volume 3, 3.4.3)."""

    base: int
    limit: int
    """In bytes, whatever the granularity says."""
    selector: int
    type: int
    s: int
    dpl: int
    present: int
    avl: int
    l: int  # noqa: E741 - the field's name
    db: int
    g: int


class Table(Protocol):
    """GDTR or IDTR."""

    base: int
    limit: int


class Regs(Protocol):
    """The general registers."""

    rax: int
    rbx: int
    rcx: int
    rdx: int
    rsi: int
    rdi: int
    rsp: int
    rbp: int
    r8: int
    r9: int
    r10: int
    r11: int
    r12: int
    r13: int
    r14: int
    r15: int
    rip: int
    rflags: int


class Sregs(Protocol):
    """Segments, descriptor tables and control registers. Each segment is a view, not a copy."""

    cr0: int
    cr2: int
    cr3: int
    cr4: int
    cr8: int
    efer: int
    apic_base: int

    @property
    def cs(self) -> Segment: ...
    @property
    def ds(self) -> Segment: ...
    @property
    def es(self) -> Segment: ...
    @property
    def fs(self) -> Segment: ...
    @property
    def gs(self) -> Segment: ...
    @property
    def ss(self) -> Segment: ...
    @property
    def tr(self) -> Segment: ...
    @property
    def ldt(self) -> Segment: ...
    @property
    def gdt(self) -> Table: ...
    @property
    def idt(self) -> Table: ...


class Fpu(Protocol):
    """x87 and SSE state, under the names of the FXSAVE area (Intel SDM volume 1, 10.5.1)."""

    fcw: int
    fsw: int
    ftw: int
    fop: int
    fip: int
    fdp: int
    mxcsr: int

    @property
    def st(self) -> Sequence[Any]: ...
    @property
    def xmm(self) -> Sequence[Any]: ...


class Lapic(Protocol):
    """The local APIC's registers by their offset in its page: ``lapic[0x350]`` is LVT LINT0."""

    def __getitem__(self, offset: int, /) -> int: ...
    def __setitem__(self, offset: int, value: int, /) -> None: ...


RegsT = TypeVar("RegsT", bound=Regs)
SregsT = TypeVar("SregsT", bound=Sregs)
FpuT = TypeVar("FpuT", bound=Fpu)
LapicT = TypeVar("LapicT", bound=Lapic)


class Vcpu(Protocol[RegsT, SregsT, FpuT, LapicT]):
    """A virtual CPU: its state, and running it.

    One thread at a time may use it; :meth:`kick` is for the others. Getting or setting state first
    lets the guest's last instruction finish; while the guest waits for an answer that is an
    :class:`~vmm_arch.errors.UnansweredError`. Every operation raises
    :class:`~vmm_arch.errors.HypervisorError` if the hypervisor refuses,
    :class:`~vmm_arch.errors.ClosedError` after the VM was closed and
    :class:`~vmm_arch.errors.BusyError` while another thread runs the vCPU.
    """

    @property
    def index(self) -> int:
        """The vCPU's number, from 0; its APIC id as well."""

    @property
    def is_secondary(self) -> bool:
        """Whether the vCPU waits for another one to start it (INIT and SIPI)."""

    def get_regs(self) -> RegsT:
        """Read the general registers into a new record."""

    def set_regs(self, regs: RegsT) -> None:
        """Write all general registers."""

    def get_sregs(self) -> SregsT:
        """Read segments, descriptor tables and control registers into a new record."""

    def set_sregs(self, sregs: SregsT) -> None:
        """Write all segments, descriptor tables and control registers."""

    def get_fpu(self) -> FpuT:
        """Read x87 and SSE state into a new record."""

    def set_fpu(self, fpu: FpuT) -> None:
        """Write x87 and SSE state."""

    def get_msrs(self, indices: Iterable[int]) -> dict[int, int]:
        """Read model-specific registers by their index."""

    def set_msrs(self, msrs: Mapping[int, int]) -> None:
        """Write model-specific registers; an error names the first one that was refused."""

    def get_lapic(self) -> LapicT:
        """Read the local APIC's registers; needs a VM with an irqchip."""

    def set_lapic(self, lapic: LapicT) -> None:
        """Write the local APIC's registers; needs a VM with an irqchip."""

    def get_tsc_khz(self) -> int:
        """Tell how fast the guest's time stamp counter counts, in kHz."""

    def get_activity(self) -> Activity:
        """Tell whether the vCPU executes instructions, is halted or waits to be started.

        Where there is no irqchip HLT is an exit, and the vCPU runs on when it is run again.
        """

    def get_debugregs(self) -> dict[str, int]:
        """Read the debug registers by their names, ``dr0`` to ``dr3``, ``dr6`` and ``dr7``."""

    def get_events(self) -> Events:
        """Read what is pending: exceptions, interrupts, NMIs, and what holds them back."""

    def translate(self, address: int) -> int | None:
        """Translate a guest-virtual to a guest-physical address; None if it is not mapped."""

    def inject_interrupt(self, vector: int) -> None:
        """Make the guest take an external interrupt next; needs a VM without an irqchip.

        The guest has to be able to: its interrupts enabled, as an
        :class:`~vmm_arch.exits.InterruptWindow` says.
        """

    def inject_nmi(self) -> None:
        """Make the guest take a non-maskable interrupt."""

    def request_interrupt_window(self, wanted: bool) -> None:
        """Have :meth:`run` return when the guest can take an interrupt, until that is not wanted."""

    def step(self, wanted: bool) -> None:
        """Have :meth:`run` return after each instruction, until that is not wanted.

        What it returns then is a :class:`~vmm_arch.exits.SingleStep`.
        """

    def run(self) -> Exit:
        """Run the guest until it needs something, and return what: an exit, valid until the next.

        An exit that waits for an answer must have got one, from its ``complete``, ``refuse`` or
        ``ignore``, before the next run.
        """

    def kick(self) -> None:
        """Make :meth:`run` return :class:`~vmm_arch.exits.Kicked`: the present run or the next.

        For other threads. Kicks are not counted: two before the vCPU notices are one.
        """


EFFECTS: Mapping[str, tuple[str, ...]] = {
    "get_regs": ("completes pending",),
    "set_regs": ("completes pending", "changes state"),
    "get_sregs": ("completes pending",),
    "set_sregs": ("completes pending", "changes state"),
    "get_fpu": ("completes pending",),
    "set_fpu": ("completes pending", "changes state"),
    "get_msrs": ("completes pending",),
    "set_msrs": ("completes pending", "changes state"),
    "get_lapic": ("completes pending",),
    "set_lapic": ("completes pending", "changes state"),
    "get_tsc_khz": ("completes pending",),
    "get_activity": ("completes pending",),
    "get_debugregs": ("completes pending",),
    "get_events": ("completes pending",),
    "translate": ("completes pending",),
    "inject_interrupt": ("completes pending", "changes state"),
    "inject_nmi": ("completes pending", "changes state"),
    "request_interrupt_window": ("completes pending", "changes state"),
    "step": ("completes pending",),
    "run": (),  # it does both itself, when no other thread can come in between
    "kick": (),
}
"""What a vCPU's operations do beside what they are for: whether the guest's last instruction is
completed first, and whether the vCPU counts as configured, even in part, afterwards."""

AnyVcpu: TypeAlias = Vcpu[Any, Any, Any, Any]
"""Any backend's vCPU."""
VcpuT = TypeVar("VcpuT", bound=AnyVcpu)
VcpuT_co = TypeVar("VcpuT_co", bound=AnyVcpu, covariant=True)


class Vm(Protocol[VcpuT_co]):
    """A virtual machine: guest memory and vCPUs. A context manager; closing it is safe twice."""

    @property
    def memory(self) -> GuestMemory:
        """The guest's memory."""

    @property
    def irqchip(self) -> bool:
        """Whether the hypervisor emulates the interrupt controllers."""

    @property
    def track_dirty(self) -> bool:
        """Whether account is kept of the pages that the guest writes."""

    @property
    def vcpus(self) -> Sequence[VcpuT_co]:
        """The vCPUs by their index."""

    def set_irq_line(self, line: int, active: bool) -> None:
        """Raise or lower a line of the interrupt controllers; needs an irqchip.

        Lines 0 to 23 lead to the I/O APIC; 0 to 15 to both 8259s too, where the hypervisor has them.
        Raises ValueError for another one.
        """

    def dirty_pages(self) -> list[int]:
        """Tell which pages the guest has written since this was last asked, and forget them.

        Guest-physical addresses, in order. A page that the guest reads for the first time may be
        among them; what the host writes does not count. Needs a VM with ``track_dirty``, and that
        no vCPU runs.
        """

    def suspend_time(self) -> None:
        """Stop the clocks of the guest until :meth:`resume_time`."""

    def resume_time(self) -> None:
        """Let the clocks of the guest go on, as if no time had passed."""

    def close(self) -> None:
        """Destroy the machine and give its memory back. Its vCPUs cannot be used afterwards.

        A thread that runs one is stopped: its run() raises ClosedError. Of several threads that
        close it, each returns once it is closed, except in a signal's handler while the thread runs
        one of its vCPUs.
        """

    def __enter__(self) -> Any:
        """Return the machine itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Close the machine."""


Memory: TypeAlias = GuestMemory
Machine: TypeAlias = Vm[VcpuT]


class Host(Protocol):
    """What a backend module tells about the machine that it runs on."""

    def probe(self, *, device: int | None = None) -> Report:
        """Tell what this host can do, what is missing and how to get it. Never raises.

        ``device`` is that of :class:`Vm`.
        """

    def install_kick_signal(self) -> None:
        """Let kicks interrupt threads, where that takes a signal; the first Vm does it.

        Only the main thread can: call this there if the first Vm is made in another one.
        """

    def supported_cpuid(self, *, device: int | None = None) -> list[CpuidEntry]:
        """Tell what CPUID the hypervisor can show a guest; a new list each time.

        It says that there is a hypervisor, and that the local APIC's timer has a deadline mode.
        ``device`` is that of :class:`Vm`.
        """


class Backend(Host, Protocol[VcpuT]):
    """A backend module, such as ``vmm_arch.kvm_x86_64``.

    Its parameter is its class :class:`Vcpu`.
    """

    @property
    def UNSUPPORTED(self) -> Mapping[str, str]:
        """The operations that the hypervisor does not have, each with the reason that it raises."""

    @property
    def MACHINES_PER_PROCESS(self) -> int | None:
        """How many machines one process can have at a time; None: as many as there is room for.

        Where it is 1, each machine takes a process of its own, which is started anew and not
        forked: :mod:`multiprocessing` does that with the start method ``spawn``.
        """

    def Vm(
        self,
        memory: Memory,
        *,
        vcpus: int = 1,
        irqchip: bool = False,
        cpuid: Sequence[CpuidEntry] | None = None,
        track_dirty: bool = False,
        device: int | None = None,
        prepare: Callable[[Machine[VcpuT]], object] | None = None,
    ) -> Machine[VcpuT]:
        """Create a virtual machine.

        It maps all of ``memory`` and owns it until it is closed. ``irqchip`` asks for the
        hypervisor's interrupt controllers and makes every vCPU but the first wait for it.
        ``cpuid`` is what the guest's CPUID instruction says, by default what
        :func:`supported_cpuid` says; the parts that tell one vCPU from another, and how many there
        are, are filled in. ``track_dirty`` is for :meth:`dirty_pages`.

        ``device`` is an open descriptor of the hypervisor's device, for a process that may not
        open it; it stays the caller's and may be closed when this returns. A hypervisor without a
        device file refuses it. ``prepare`` is called with the machine when the hypervisor has made
        it and nothing is in it yet, neither memory nor interrupt controllers nor vCPUs: for what
        must be asked for that early.

        Raises :class:`~vmm_arch.errors.HypervisorUnavailableError` if this host cannot.
        """

    def GuestMemory(self, size_or_regions: int | Iterable[Region], /) -> Memory:
        """Make guest memory of a size in bytes, or of exact regions."""

    def setup_fpu(self, vcpu: VcpuT, /) -> None: ...
    def setup_msrs(self, vcpu: VcpuT, /) -> None: ...
    def setup_regs(self, vcpu: VcpuT, entry: Entry, /) -> None: ...
    def setup_sregs(self, vcpu: VcpuT, entry: Entry, /) -> None: ...
    def set_lint(self, vcpu: VcpuT, /) -> None: ...
    def configure_system(self, vm: Machine[VcpuT], entry: Entry, /) -> None: ...
    def configure_vcpu(self, vcpu: VcpuT, entry: Entry, /) -> None: ...
    def reset_vcpu(self, vcpu: VcpuT, entry: Entry, /, *, tsc: int | None = None) -> None: ...


class VmRequest(Protocol):
    """What only a machine of this CPU is asked for; the rest is in :mod:`vmm_arch.protocols.inside`."""

    cpuid: list[CpuidEntry]
    """What CPUID shall say."""


class SegmentValue(NamedTuple):
    """What a segment register is set to: a selector, and the parts of a descriptor."""

    selector: int
    base: int
    limit: int
    attributes: int
    """A descriptor's flag word: type 0-3, s 4, dpl 5-6, present 7, avl 12, l 13, db 14, g 15."""


STATE: Mapping[str, Mapping[str, int | SegmentValue]] = {
    "general": {
        "rax": 0,
        "rbx": 0,
        "rcx": 0,
        "rdx": 0,
        "rsi": 0,
        "rdi": 0,
        "rsp": 0,
        "rbp": 0,
        "r8": 0,
        "r9": 0,
        "r10": 0,
        "r11": 0,
        "r12": 0,
        "r13": 0,
        "r14": 0,
        "r15": 0,
        "rip": 0xFFF0,
        "rflags": 0x2,
    },
    "special": {
        "cs": SegmentValue(0xF000, 0xFFFF0000, 0xFFFF, 0x9B),
        "ds": SegmentValue(0, 0, 0xFFFF, 0x93),
        "es": SegmentValue(0, 0, 0xFFFF, 0x93),
        "fs": SegmentValue(0, 0, 0xFFFF, 0x93),
        "gs": SegmentValue(0, 0, 0xFFFF, 0x93),
        "ss": SegmentValue(0, 0, 0xFFFF, 0x93),
        "tr": SegmentValue(0, 0, 0xFFFF, 0x8B),
        "ldt": SegmentValue(0, 0, 0xFFFF, 0x82),
        "gdt.base": 0,
        "gdt.limit": 0xFFFF,
        "idt.base": 0,
        "idt.limit": 0xFFFF,
        "cr0": 0x60000010,
        "cr2": 0,
        "cr3": 0,
        "cr4": 0,
        "cr8": 0,
        "efer": 0,
        "apic_base": 0xFEE00900,
    },
    "fpu": {
        "fcw": 0x40,
        "fsw": 0,
        "ftw": 0,
        "fop": 0,
        "fip": 0,
        "fdp": 0,
        "mxcsr": 0x1F80,
        "st0": 0,
        "st1": 0,
        "st2": 0,
        "st3": 0,
        "st4": 0,
        "st5": 0,
        "st6": 0,
        "st7": 0,
        "xmm0": 0,
        "xmm1": 0,
        "xmm2": 0,
        "xmm3": 0,
        "xmm4": 0,
        "xmm5": 0,
        "xmm6": 0,
        "xmm7": 0,
        "xmm8": 0,
        "xmm9": 0,
        "xmm10": 0,
        "xmm11": 0,
        "xmm12": 0,
        "xmm13": 0,
        "xmm14": 0,
        "xmm15": 0,
    },
    "msrs": {
        "IA32_SYSENTER_CS": 0,
        "IA32_SYSENTER_ESP": 0,
        "IA32_SYSENTER_EIP": 0,
        "IA32_MISC_ENABLE": 0x1,
        "IA32_PAT": 0x0007040600070406,
        "IA32_MTRR_DEF_TYPE": 0,
        "IA32_STAR": 0,
        "IA32_LSTAR": 0,
        "IA32_CSTAR": 0,
        "IA32_FMASK": 0,
        "IA32_KERNEL_GS_BASE": 0,
        "IA32_TSC_AUX": 0,
    },
    "lapic": {
        "APIC_ID": 0,
        "APIC_TPR": 0,
        "APIC_LDR": 0,
        "APIC_DFR": 0xFFFFFFFF,
        "APIC_SVR": 0xFF,
        "APIC_LVT_CMCI": 0x10000,
        "APIC_LVT_TIMER": 0x10000,
        "APIC_LVT_THERMAL": 0x10000,
        "APIC_LVT_PERFORMANCE": 0x10000,
        "APIC_LVT_LINT0": 0x10000,
        "APIC_LVT_LINT1": 0x10000,
        "APIC_LVT_ERROR": 0x10000,
    },
    "debug": {
        "dr0": 0,
        "dr1": 0,
        "dr2": 0,
        "dr3": 0,
        "dr6": 0xFFFF0FF0,
        "dr7": 0x400,
    },
    "extended_control": {
        "xcr0": 0x1,
    },
    "events": {
        "pending_exception": 0,
        "pending_interrupt": 0,
        "pending_nmi": 0,
        "nmi_masked": 0,
        "interrupt_shadow": 0,
    },
    "activity": {
        "waits_for_sipi": 0,
    },
}
"""The state of a vCPU: groups of elements, each with its value after a hardware reset (Intel SDM
volume 3, table 10-1). Wanting one element of a group means writing all of it, so that the same
function leaves the same machine on every hypervisor."""
