"""Software breakpoints: any number of them, in guest memory, for all vCPUs of a machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final

from vmm_arch.exits import Breakpoint, Halt, SingleStep
from vmm_arch.memory import PAGE_SIZE
from vmm_arch.x86_64.exits import Exit

_INT3: Final = b"\xcc"
_HLT: Final = b"\xf4"


class Breakpoints:
    """Breakpoints at guest-physical addresses, made by writing over the instructions there.

    There is no limit to their number, and one that is not reached costs nothing; so those that are
    met only :meth:`add_once` give a fuzzer its coverage at one exit for each new place. Run vCPUs
    with :meth:`run`, which returns those that are reached as
    :class:`~vmm_arch.exits.Breakpoint`, continues over those that stay, and lets the guest have
    the exceptions of INT3 instructions of its own. ::

        with Breakpoints(vm) as breakpoints:
            breakpoints.add_once(range(0x1000, 0x1010))
            match breakpoints.run(vm.vcpus[0]):
                case Breakpoint(pc): ...

    They are INT3, or HLT with ``halting``: that is an exit of every hypervisor, also where INT3 cannot
    be intercepted, but only for code in ring 0 of a machine without an irqchip.

    The guest, and whoever reads its memory, sees these there. While one vCPU continues over a
    breakpoint that stays, others may pass it without notice; continuing needs single steps
    (``step``), which not every hypervisor has. ``Vm.reset_to`` leaves those that are set set, but one
    that was removed and is in the snapshot's memory comes back as the guest's own. Whoever restores
    memory otherwise places them again (:meth:`place_again`).
    """

    def __init__(self, vm: Any, *, halting: bool = False) -> None:
        """Prepare all vCPUs, which must not be running. Raises ValueError for ``halting``."""
        if halting and vm.irqchip:
            raise ValueError("halting=True: with an irqchip HLT is no exit; use INT3")
        self._vm = vm
        self._instruction = _HLT if halting else _INT3
        self._originals: dict[int, bytes] = {}
        """The bytes that are there otherwise, by guest-physical addresses."""
        self._once: set[int] = set()
        self._stopped: dict[int, tuple[int, int]] = {}
        """Vcpus that stand at a breakpoint that stays, by index: its pc, its physical address."""
        self._intercept(True)
        self._by_page: dict[int, set[int]] = {}
        if vm._written is not None:
            vm._written.on_reset.append(self._after_reset)

    def __len__(self) -> int:
        return len(self._originals)

    def __contains__(self, address: object) -> bool:
        """Whether there is one at a guest-physical address."""
        return address in self._originals

    def add(self, *addresses: int) -> None:
        """Set breakpoints that stay. Raises MemoryAccessError before any is set."""
        self._place(addresses)
        self._once.difference_update(addresses)

    def add_once(self, addresses: Iterable[int]) -> None:
        """Set breakpoints that are removed when a vCPU reaches them; those that stay do so."""
        new = [address for address in addresses if address not in self._originals]
        self._place(new)
        self._once.update(new)

    def remove(self, *addresses: int) -> None:
        """Remove breakpoints; addresses without one are ignored."""
        for address in addresses:
            original = self._originals.pop(address, None)
            self._once.discard(address)
            if original is not None:
                self._by_page[address // PAGE_SIZE].discard(address)
                self._vm.memory.write(address, original)

    def place_again(self) -> None:
        """Write all breakpoints again, where restored memory has overwritten them."""
        for address in self._originals:
            self._vm.memory.write(address, self._instruction)
        self._stopped.clear()

    def run(self, vcpu: Any) -> Exit:
        """Run a vCPU to its next exit, as :meth:`Vcpu.run` does, breakpoints included."""
        stopped = self._stopped.pop(vcpu.index, None)
        if stopped is not None and (other := self._step_over(vcpu, *stopped)) is not None:
            return other
        while True:
            exit: Exit = vcpu.run()
            if isinstance(exit, Halt) and self._instruction == _HLT:
                reached = self._halted(vcpu)
                if reached is None:
                    return exit
            elif isinstance(exit, Breakpoint) and exit.hardware is None:
                reached = exit
            else:
                return exit
            address = vcpu.translate(reached.pc)
            if address not in self._originals:
                reached.ignore()  # an INT3 of the guest's own
            elif address in self._once:
                self.remove(address)
                return reached
            else:
                self._stopped[vcpu.index] = reached.pc, address
                return reached

    def close(self) -> None:
        """Remove all breakpoints, and let the guest have its own again."""
        self.remove(*self._originals)
        self._intercept(False)
        written = self._vm._written
        if written is not None and self._after_reset in written.on_reset:
            written.on_reset.remove(self._after_reset)

    def __enter__(self) -> Breakpoints:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.close()

    def _intercept(self, wanted: bool) -> None:
        if self._instruction == _INT3:
            for vcpu in self._vm.vcpus:
                vcpu.intercept_breakpoints(wanted)

    def _halted(self, vcpu: Any) -> Breakpoint | None:
        """Go back before the HLT that the guest has executed; None if it is one of its own."""
        pc = _linear_pc(vcpu) - 1
        if vcpu.translate(pc) not in self._originals:
            return None
        regs = vcpu.get_regs()
        regs.rip -= 1
        vcpu.set_regs(regs)
        return Breakpoint(pc, None)

    def _place(self, addresses: Iterable[int]) -> None:
        memory = self._vm.memory
        originals = {}
        for address in addresses:
            if address not in self._originals:
                originals[address] = memory.read(address, 1)
        self._originals |= originals
        for address in originals:
            self._by_page.setdefault(address // PAGE_SIZE, set()).add(address)
            memory.write(address, self._instruction)

    def _after_reset(self, changed: Sequence[tuple[int, int]] | None) -> None:
        """Place again those in memory that was written; a reset of few pages costs only these."""
        self._stopped.clear()
        pages: Iterable[int] = self._by_page
        if changed is not None:
            pages = chain.from_iterable(
                range(low // PAGE_SIZE, -(-high // PAGE_SIZE)) for low, high in changed
            )
        memory = self._vm.memory
        for page in pages:
            for address in self._by_page.get(page, ()):
                if memory.read(address, 1) != self._instruction:
                    memory.write(address, self._instruction)

    def _step_over(self, vcpu: Any, pc: int, address: int) -> Exit | None:
        """Execute the instruction below a breakpoint; None if it made no exit."""
        original = self._originals.get(address)
        if original is None or _linear_pc(vcpu) != pc:
            return None
        self._vm.memory.write(address, original)
        try:
            vcpu.step(True)
            exit: Exit = vcpu.run()
        finally:
            self._vm.memory.write(address, self._instruction)
            vcpu.step(False)
        return None if isinstance(exit, SingleStep) else exit


def _linear_pc(vcpu: Any) -> int:
    """RIP with the base of the code segment, as exits have it."""
    cs = vcpu.get_sregs().cs
    pc: int = vcpu.get_regs().rip + (0 if cs.l else cs.base)
    return pc
