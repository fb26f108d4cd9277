"""The contract of x86_64: what every backend offers.

It has two uses. The generator compares each hypervisor's folder with it and instantiates the
operations; and code that chooses a hypervisor at run time imports it for its types::

    def boot(arch: Backend[VcpuT], kernel: Path) -> Vm[VcpuT]: ...

The type variable ``RegsT`` stands for the backend's own type ``Regs``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, TypeAlias, TypeVar

from vmm_arch.activity import Activity
from vmm_arch.backing import File, HugePages
from vmm_arch.breakpoint import HardwareBreakpoint
from vmm_arch.devices.description import MmioDevice
from vmm_arch.exits import MmioWrite
from vmm_arch.lazy_pages import PageSource
from vmm_arch.memory import Region
from vmm_arch.protocols.x86_64_records import Fpu, Lapic, Regs, Segment, Sregs, Table
from vmm_arch.report import Report
from vmm_arch.snapshot.snapshot import MachineSnapshot
from vmm_arch.state import SavedState
from vmm_arch.statistic import Statistic
from vmm_arch.x86_64.cpuid import CpuidEntry
from vmm_arch.x86_64.doorbell import Doorbell
from vmm_arch.x86_64.entry import Entry
from vmm_arch.x86_64.events import Events
from vmm_arch.x86_64.exits import Exit, IoOut
from vmm_arch.x86_64.msr_exits import MsrSet
from vmm_arch.x86_64.platform.description import Platform
from vmm_arch.x86_64.platform.memory_map import GuestMemory
from vmm_arch.x86_64.topology import Topology

__all__ = [
    "EFFECTS",
    "AnyVcpu",
    "Backend",
    "Fpu",
    "FpuT",
    "Host",
    "Lapic",
    "LapicT",
    "Machine",
    "Memory",
    "Regs",
    "RegsT",
    "Segment",
    "Sregs",
    "SregsT",
    "Table",
    "Vcpu",
    "VcpuT",
    "VcpuT_co",
    "Vm",
    "VmRequest",
]

RegsT = TypeVar("RegsT", bound=Regs)
SregsT = TypeVar("SregsT", bound=Sregs)
FpuT = TypeVar("FpuT", bound=Fpu)
LapicT = TypeVar("LapicT", bound=Lapic)


class Vcpu(Protocol[RegsT, SregsT, FpuT, LapicT]):
    """A virtual CPU: its state, and running it.

    One thread at a time may use it; only :meth:`kick` is for other threads. Getting or setting
    state first completes the guest's last instruction. While that waits for an answer, its state can
    be read, as it is before the instruction; everything else raises
    :class:`~vmm_arch.errors.UnansweredError`: answer first, or :meth:`discard_exit`. Every operation raises
    :class:`~vmm_arch.errors.HypervisorError` if the hypervisor refuses,
    :class:`~vmm_arch.errors.ClosedError` after the VM was closed and
    :class:`~vmm_arch.errors.BusyError` while another thread runs the vCPU. That check is reliable
    with the GIL only: on a free-threaded Python two threads that enter at the same moment may both
    pass it, so the caller has to see to it that only one does.
    """

    @property
    def index(self) -> int:
        """The vCPU's number, from 0."""

    @property
    def apic_id(self) -> int:
        """The id of its local APIC, which follows from the machine's topology."""

    @property
    def is_secondary(self) -> bool:
        """Whether the vCPU waits until another one starts it (INIT and SIPI)."""

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
        """Write model-specific registers; the error names the first one that was refused."""

    def get_lapic(self) -> LapicT:
        """Read the local APIC's registers; needs a VM with an irqchip."""

    def set_lapic(self, lapic: LapicT) -> None:
        """Write the local APIC's registers; needs a VM with an irqchip."""

    def get_tsc_khz(self) -> int:
        """Return the frequency of the guest's time stamp counter in kHz."""

    def get_activity(self) -> Activity:
        """Return whether the vCPU executes instructions, is halted or waits to be started.

        Without an irqchip HLT is an exit, and the vCPU continues when it is run again.
        """

    def get_debugregs(self) -> dict[str, int]:
        """Read the debug registers by their names, ``dr0`` to ``dr3``, ``dr6`` and ``dr7``."""

    def get_events(self) -> Events:
        """Read pending exceptions, interrupts and NMIs, and what blocks them."""

    def save(self) -> SavedState:
        """Return the whole state of the vCPU, as the backend's ``VcpuState``.

        That is everything that the hypervisor can read and write, which is more than the guest can;
        guest memory and what the machine's vCPUs share are not part of it. In the middle of an exit
        the instruction is completed first; if it waits for an answer, or makes another access,
        UnansweredError says so. For a state that fits its neighbours' save the machine
        (:meth:`Vm.save`) while no vCPU runs.
        """

    def restore(self, state: SavedState) -> None:
        """Write a whole state, of the same backend, and check that the vCPU then has it.

        The machine must be alike: CPUID, irqchip, and the vCPU's index. A pending exit is discarded,
        ignoring what it waits for. The time stamp counter continues from its saved value.

        Raises :class:`~vmm_arch.errors.StateError`, which lists everything that is wrong. The vCPU
        is then as it was: what can be compared beforehand is, before anything is touched; if the
        hypervisor refuses a part later, the former state is written back.
        """

    def translate(self, address: int) -> int | None:
        """Translate a guest-virtual to a guest-physical address; None if it is not mapped."""

    def inject_interrupt(self, vector: int) -> None:
        """Inject an external interrupt; needs a VM without an irqchip.

        The guest must be able to accept it, that is, have interrupts enabled: wait for an
        :class:`~vmm_arch.x86_64.exits.InterruptWindow`.
        """

    def inject_nmi(self) -> None:
        """Inject a non-maskable interrupt."""

    def request_interrupt_window(self, wanted: bool) -> None:
        """Enable or disable an exit of :meth:`run` when the guest can accept an interrupt."""

    def step(self, wanted: bool) -> None:
        """Enable or disable an exit of :meth:`run` after each instruction.

        The exit is a :class:`~vmm_arch.exits.SingleStep`.
        """

    def set_breakpoints(self, breakpoints: Sequence[HardwareBreakpoint]) -> None:
        """Replace the hardware breakpoints, at most four; the exit is a Breakpoint.

        Their addresses are linear ones. While there are some, the guest's own debug registers have no
        effect. Raises ValueError if there are more.
        """

    def intercept_breakpoints(self, wanted: bool) -> None:
        """Enable or disable an exit of :meth:`run` before the guest executes INT3 (opcode 0xCC).

        The exit is a :class:`~vmm_arch.exits.Breakpoint`, whose ``ignore()`` lets the guest have its
        exception after all.
        """

    def discard_exit(self) -> None:
        """Take back the access that waits for an answer: the vCPU stands before its instruction.

        Registers can then be changed, and run() executes the instruction again, unless RIP was
        changed as well. Of an instruction with several accesses, those that were already made are
        made again, except by string instructions, which continue with the present one. What it would
        have written to guest memory may be written, with zeros or ones. Raises UnansweredError if no
        exit waits for an answer.
        """

    def statistics(self) -> dict[str, Statistic]:
        """Return what the hypervisor counts of the vCPU, by its own names: exits, time, and more.

        They differ between hypervisors, and between their versions. For any thread, while the vCPU
        runs as well; on KVM only if it was called once before, while it did not. What was counted is
        no part of saved state. Raises HypervisorError if the host has no statistics.
        """

    def run(self) -> Exit:
        """Run the guest until it exits, and return the exit, which is valid until the next run.

        An exit that waits for an answer must be answered before the next run, with its
        ``complete``, ``refuse`` or ``ignore``.
        """

    def kick(self) -> None:
        """Make :meth:`run` return :class:`~vmm_arch.exits.Kicked`: the current call or the next.

        For other threads. Kicks are not counted: two before the vCPU notices count as one.
        """


EFFECTS: Mapping[str, tuple[str, ...]] = {
    "get_regs": ("reads",),
    "set_regs": ("completes pending", "changes state"),
    "get_sregs": ("reads",),
    "set_sregs": ("completes pending", "changes state"),
    "get_fpu": ("reads",),
    "set_fpu": ("completes pending", "changes state"),
    "get_msrs": ("reads",),
    "set_msrs": ("completes pending", "changes state"),
    "get_lapic": ("reads",),
    "set_lapic": ("completes pending", "changes state"),
    "get_tsc_khz": ("reads",),
    "get_activity": ("completes pending",),
    "get_debugregs": ("reads",),
    "get_events": ("reads",),
    "save": ("completes pending",),
    "restore": (),  # it discards what is pending, once it has looked at the state
    "translate": ("reads",),
    "inject_interrupt": ("completes pending", "changes state"),
    "inject_nmi": ("completes pending", "changes state"),
    "request_interrupt_window": ("completes pending", "changes state"),
    "step": ("completes pending",),
    "set_breakpoints": ("completes pending",),
    "intercept_breakpoints": ("completes pending",),
    "discard_exit": (),  # it is for what waits for an answer
    "statistics": (),
    "run": (),  # it does both itself, after it has taken the vCPU for its thread
    "kick": (),
}
"""Side effects of a vCPU's operations: whether they first complete the guest's last instruction
("reads": unless that waits for an answer), and whether the vCPU counts as configured, even in part,
afterwards."""

AnyVcpu: TypeAlias = Vcpu[Any, Any, Any, Any]
"""Any backend's vCPU."""
VcpuT = TypeVar("VcpuT", bound=AnyVcpu)
VcpuT_co = TypeVar("VcpuT_co", bound=AnyVcpu, covariant=True)


class Vm(Protocol[VcpuT_co]):
    """A virtual machine: guest memory and vCPUs. A context manager; may be closed twice."""

    @property
    def memory(self) -> GuestMemory:
        """The guest's memory."""

    @property
    def irqchip(self) -> bool:
        """Whether the hypervisor emulates the interrupt controllers."""

    @property
    def track_dirty(self) -> bool:
        """Whether the pages that the guest writes are tracked."""

    @property
    def vcpus(self) -> Sequence[VcpuT_co]:
        """The vCPUs by their index."""

    @property
    def topology(self) -> Topology:
        """Where the vCPUs are: sockets, dies, cores, threads."""

    def set_irq_line(self, line: int, active: bool) -> None:
        """Raise or lower a line of the interrupt controllers; needs an irqchip.

        Lines 0 to 23 are connected to the I/O APIC, and 0 to 15 also to the two 8259s if the
        hypervisor has them. Raises ValueError for any other line.
        """

    def add_ioeventfd(self, event: int, doorbell: Doorbell) -> None:
        """Have the guest's writes to a place ring an event descriptor (eventfd), without an exit.

        The hypervisor adds one to its counter for each write; who waits for it reads it, as
        ``os.eventfd_read`` does. Like everything that a VMM asks for, it is no part of saved state. The
        machine keeps a duplicate, so that the descriptor can be closed at any time.

        Raises :class:`~vmm_arch.events.EventInUseError` if some write would ring another one, too;
        ValueError if guest memory is there; HypervisorError for what is no event descriptor.
        """

    def remove_ioeventfd(self, doorbell: Doorbell) -> None:
        """Take back an ioeventfd: writes are exits again. Raises KeyError if there is none."""

    def add_irqfd(self, event: int, line: int, *, resample: int | None = None) -> None:
        """Have writes to an event descriptor raise an interrupt line; needs an irqchip.

        Each is an edge: the line rises and falls. With ``resample``, another event descriptor, it stays
        high until the guest ends the interrupt, which then rings that descriptor: for level-triggered
        lines. The machine keeps duplicates; lines are those of :meth:`set_irq_line`.

        Raises :class:`~vmm_arch.events.EventInUseError` if the line has this descriptor already,
        ValueError for a line that is not there, HypervisorError for what is no event descriptor.
        """

    def remove_irqfd(self, event: int, line: int) -> None:
        """Take back an irqfd, by the number of its descriptor. Raises KeyError if there is none."""

    def signal_msi(self, address: int, data: int) -> bool:
        """Send a message-signalled interrupt; needs an irqchip. Whether a vCPU took it.

        Address and data are those that a PCI device would write, in the format of a processor without
        interrupt remapping (SDM volume 3, 11.11): the destination's APIC id, and the vector. On WHP,
        which does not tell, the result is True. Raises ValueError for an address of no local APIC.
        """

    def coalesce_writes(
        self,
        addresses: Iterable[range],
        ports: Iterable[range],
        handle: Callable[[IoOut | MmioWrite], object],
    ) -> None:
        """Collect the guest's writes to places that can wait, instead of an exit each.

        Those of all vCPUs are given to ``handle``, in order: in :meth:`Vcpu.run`, before it returns the
        next exit, so that whatever a vCPU wrote before its exit was handled before; and in
        :meth:`drain_writes`, which is for a timer, since a guest may make no exit for long. While no
        vCPU runs, nothing is left. An exit is the write that does not lie within one of the ranges, and
        now and then another, when the hypervisor's room is full. An exception of ``handle`` is raised
        there; the exit, and the other writes, come with the next run.

        A call replaces the former places; ``coalesce_writes((), (), handle)`` ends it. It is no part of
        saved state. No vCPU may be running. Raises ValueError for what is no range of places, and
        then changes nothing.
        """

    def drain_writes(self) -> int:
        """Have collected writes handled now, in this thread, and return how many; for any thread."""

    def set_halt_polling(self, nanoseconds: int) -> None:
        """Let a vCPU that halts wait at most so long for an interrupt before its thread sleeps.

        That answers interrupts sooner, and costs the host's time; 0 ends it. By default it is as the host
        has it configured. Needs an irqchip to have an effect. Raises ValueError beyond 32 bits,
        HypervisorUnavailableError if the host cannot.
        """

    def disable_exits(self, instructions: Iterable[str]) -> None:
        """Let the guest execute ``hlt``, ``mwait`` and ``pause`` itself, and enter C-states (``cstate``).

        For a guest that has processors for itself: it wakes sooner, and the host cannot use them
        meanwhile. Only in ``prepare`` of :class:`Vm`. What serves a guest then cannot tell that it has
        halted. Raises ValueError for other names, HypervisorUnavailableError for what the host does
        not allow, and lists it.
        """

    def intercept_msrs(self, reads: MsrSet, writes: MsrSet, *, unknown: bool = False) -> None:
        """Choose the accesses to model-specific registers that are exits, on all vCPUs.

        The exits are :class:`~vmm_arch.x86_64.exits.MsrRead` and ``MsrWrite``. The MSRs are listed, or
        are ``AllExcept([…])`` of a list, so that only what is known to be harmless is not an exit.
        ``unknown`` makes exits of accesses to MSRs that the hypervisor does not have, and on KVM of
        writes of values that it refuses. What is no exit is the hypervisor's; a call replaces the former
        ones, ``intercept_msrs((), ())`` ends them. RDTSC, SYSCALL and the like do not access MSRs, nor do
        ``get_msrs`` and ``set_msrs``. Like everything that a VMM asks for, it is no part of saved state.

        Call it in ``prepare`` of :class:`Vm`, since some hypervisors then take MSRs that they do not
        later. Raises ValueError or HypervisorError for what cannot be intercepted; then nothing has
        changed.
        """

    def intercept_cpuid(self, functions: Iterable[int]) -> None:
        """Choose the leaves for which CPUID is an exit, a :class:`~vmm_arch.x86_64.exits.Cpuid`.

        On all vCPUs, and in place of the former ones. Raises ValueError for what is no leaf.
        """

    def intercept_exceptions(self, vectors: Iterable[int]) -> None:
        """Choose the exceptions that are exits before the guest has them, on all vCPUs.

        The exit is a :class:`~vmm_arch.x86_64.exits.GuestException`. A call replaces the former ones.
        Raises ValueError for what is no exception (0 to 31), HypervisorError for those that the host
        cannot intercept.
        """

    def add_memory(self, memory: GuestMemory) -> None:
        """Map more memory into the machine, also while its vCPUs run, at the addresses that it has.

        The machine holds it until :meth:`remove_memory`, or until it is closed. ``vm.memory`` then
        reads and writes it as well, and dirty pages are tracked in it. It is no part of snapshots, of
        which the machine can take none meanwhile, nor be reset to one. The same memory can be added to
        several machines, which share it.

        Raises ValueError if it overlaps what the machine has.
        """

    def remove_memory(self, memory: GuestMemory) -> None:
        """Undo an :meth:`add_memory`; the guest had better not use it any more.

        With ``track_dirty`` no vCPU may be running, and the memory's pages are forgotten.
        """

    def add_alias(self, address: int, source: Region) -> Region:
        """Map a part of the machine's memory at another address too; return where it is seen.

        ``source`` is within one region of ``vm.memory``, or of what was added. The alias is read-only
        if ``source`` says so, or the region is: the guest's writes to it are exits, as they are in each
        read-only region. What the guest writes through it counts as written to the original, by whose
        addresses :meth:`dirty_pages` knows it. For the rest it is like added memory.
        """

    def remove_alias(self, address: int) -> None:
        """Undo an :meth:`add_alias`; with ``track_dirty`` no vCPU may be running."""

    def prefault(self, address: int, size: int) -> None:
        """Have the hypervisor map pages now, so that the guest does not wait when it first uses them.

        On KVM as if the guest read them: what is copied when it is written is copied then. ``address`` and ``size`` are whole pages of memory that is there. The first vCPU must not be
        running. Raises :class:`~vmm_arch.errors.HypervisorUnavailableError` if the host cannot (KVM:
        Linux 6.11, with nested paging).
        """

    def dirty_pages(self) -> list[int]:
        """Return and clear the set of pages that the guest has written, since a reset_to() at most.

        Guest-physical addresses in ascending order. A page that the guest reads for the first time
        may be among them; the host's writes are not. Needs a VM with ``track_dirty``, and no vCPU
        may be running.
        """

    def save(self) -> SavedState:
        """Return the state of the machine, as the backend's ``VmState``: vCPUs and what they share.

        No vCPU may be running, and none may wait for an answer. Guest memory is not part of it.
        """

    def restore(self, state: SavedState, *, catch_up: bool = False) -> None:
        """Write the state of a machine, in an order that fits, and check that it is there.

        Restore guest memory before. As with a vCPU, StateError leaves the machine as it was. The
        guest's clocks, its time stamp counters and the hypervisor's own, continue from their saved
        values; with ``catch_up`` they are as if the machine had not stood still, by the host's real
        time (exact to about the milliseconds that restoring takes), which jumps for the guest.
        Raises StateError if the state does not say when it was saved, as old ones do not.
        """

    def take_snapshot(
        self,
        *,
        base: MachineSnapshot | None = None,
        devices: Mapping[str, Any] | None = None,
    ) -> MachineSnapshot:
        """Return the machine at this moment, memory included, as the backend's ``Snapshot``.

        No vCPU may be running, and none may wait for an answer. ``devices`` are values that JSON has,
        for whoever restores the caller's devices. With ``base``, the snapshot that the machine was
        last forked from or reset to, or its last one, only what was written since is copied, by the
        guest and by the host: an increment. That needs ``track_dirty``.

        Raises SnapshotError if this is not known since ``base``, or JSON lacks a value; OSError.
        """

    def reset_to(
        self, snapshot: MachineSnapshot, *, tsc: bool = False, unchanged: Iterable[str] = ()
    ) -> None:
        """Make the machine as the snapshot says, memory included, by writing back what changed.

        For fuzzers, and whoever else runs a machine again and again. The snapshot is of this machine,
        or of one made alike: regions, vCPUs, irqchip, CPUID. Needs a VM with ``track_dirty``; no vCPU
        may be running. A pending exit is discarded, ignoring what it waits for. The first reset to a
        snapshot that was neither taken of this machine nor forked into it compares all of memory.

        Clocks run on, the time stamp counter and the hypervisor's, unless ``tsc`` asks that they
        continue from their saved values too; what the guest added to its counter is undone. What the
        host writes into guest memory is written back like what the guest writes, except through a
        ``host_address()`` and through other mappings of a shared file. :meth:`dirty_pages` forgets
        what was written before.

        ``unchanged`` names groups of the vocabulary, such as ``debug`` or ``msrs``, that this guest is
        known not to change, and that are not written: each saves a hypervisor call where it has one
        of its own. If the guest does change them, they keep what it has written.

        Raises StateError if the machine is not alike, before anything is changed. After any other
        error the machine can only be reset again or closed: its vCPUs raise
        :class:`~vmm_arch.errors.UnfinishedResetError`.
        """

    def statistics(self) -> dict[str, Statistic]:
        """Return what the hypervisor counts of the whole machine, by its own names, such as pages.

        What it counts by vCPU is in :meth:`Vcpu.statistics`.
        """

    def suspend_time(self) -> None:
        """Stop the guest's clocks until :meth:`resume_time`."""

    def resume_time(self) -> None:
        """Restart the guest's clocks as if no time had passed."""

    def close(self) -> None:
        """Destroy the machine and release its memory. Its vCPUs cannot be used afterwards.

        A thread that runs one is stopped: its run() raises ClosedError. If several threads close
        it, each returns once it is closed, except in a signal handler whose thread runs one of its
        vCPUs, which does not wait.
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
    """What a backend module reports about the host."""

    def probe(self, *, device: int | None = None) -> Report:
        """Report what this host can do, what is missing and how to get it. Never raises.

        ``device`` is that of :class:`Vm`.
        """

    def install_kick_signal(self) -> None:
        """Install the signal handler that kicks need on some systems; the first Vm calls this.

        Only the main thread can install it: call this there if the first Vm is created elsewhere.
        """

    def supported_cpuid(self, *, device: int | None = None) -> list[CpuidEntry]:
        """Return the CPUID entries that the hypervisor can give a guest; a new list each time.

        The hypervisor bit is set, and the TSC deadline mode of the local APIC's timer. ``device``
        is that of :class:`Vm`.
        """


class Backend(Host, Protocol[VcpuT]):
    """A backend module, such as ``vmm_arch.kvm_x86_64``.

    Its parameter is its class :class:`Vcpu`.
    """

    @property
    def UNSUPPORTED(self) -> Mapping[str, str]:
        """The operations that the hypervisor does not support, with the reason that they raise."""

    @property
    def MACHINES_PER_PROCESS(self) -> int | None:
        """How many machines one process can have at a time; None means no limit.

        If it is 1, each further machine needs a process of its own, which must not be forked: use
        :mod:`multiprocessing` with the start method ``spawn``.
        """

    def Vm(
        self,
        memory: Memory,
        *,
        vcpus: int = 1,
        topology: Topology | None = None,
        irqchip: bool = False,
        cpuid: Sequence[CpuidEntry] | None = None,
        track_dirty: bool = False,
        device: int | None = None,
        prepare: Callable[[Machine[VcpuT]], object] | None = None,
    ) -> Machine[VcpuT]:
        """Create a virtual machine.

        It maps all of ``memory`` and holds it until it is closed. ``irqchip`` enables the
        hypervisor's interrupt controllers, and every vCPU but the first then waits to be started.
        ``cpuid`` is what the guest's CPUID instruction returns, by default
        :func:`supported_cpuid`; APIC ids and topology are filled in. ``topology`` says where the vCPUs
        are, and how many there are; by default each is a core of one socket.
        ``track_dirty`` is needed for :meth:`dirty_pages`.

        ``device`` is an open descriptor of the hypervisor's device, for a process that may not
        open it; it stays the caller's and may be closed when this returns. A hypervisor without a
        device file refuses it. ``prepare`` is called with the machine once the hypervisor has
        created it and while it is still empty, without memory, interrupt controllers or vCPUs: for
        capabilities and properties that must be set that early.

        Raises :class:`~vmm_arch.errors.HypervisorUnavailableError` if this host cannot run it.
        """

    @property
    def VcpuState(self) -> type[SavedState]:
        """What :meth:`Vcpu.save` returns; it has ``from_json``."""

    @property
    def VmState(self) -> type[SavedState]:
        """What :meth:`Vm.save` returns."""

    @property
    def Snapshot(self) -> type[MachineSnapshot]:
        """What :meth:`Vm.take_snapshot` returns."""

    def GuestMemory(
        self,
        size_or_regions: int | Iterable[Region],
        /,
        *,
        file: File | None = None,
        offset: int = 0,
        shared: bool = False,
        huge_pages: HugePages | None = None,
        page_source: PageSource | None = None,
        guest_memfd: bool = False,
    ) -> Memory:
        """Allocate guest memory: a size in bytes, or exact regions; or map it from a file."""

    def setup_fpu(self, vcpu: VcpuT, /) -> None: ...
    def setup_msrs(self, vcpu: VcpuT, /) -> None: ...
    def setup_regs(self, vcpu: VcpuT, entry: Entry, /) -> None: ...
    def setup_sregs(self, vcpu: VcpuT, entry: Entry, /) -> None: ...
    def set_lint(self, vcpu: VcpuT, /) -> None: ...
    def configure_system(
        self,
        vm: Machine[VcpuT],
        entry: Entry,
        platform: Platform | None = None,
        /,
        *,
        devices: Sequence[MmioDevice] = (),
    ) -> None: ...
    def configure_vcpu(self, vcpu: VcpuT, entry: Entry, /) -> None: ...
    def reset_vcpu(self, vcpu: VcpuT, entry: Entry, /, *, tsc: int | None = None) -> None: ...


class VmRequest(Protocol):
    """The attributes that only a machine of this CPU has; the frame declares them.

    The others are in :mod:`vmm_arch.protocols.inside`.
    """

    cpuid: list[CpuidEntry]
    """The results of the guest's CPUID instruction."""
    topology: Topology
    """Where its vCPUs are."""
