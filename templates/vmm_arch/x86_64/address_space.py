"""Guest-virtual memory: what the guest's page tables make of its memory, for the VMM to read and write."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Protocol

from vmm_arch.memory import PAGE_SIZE, GuestMemory, MemoryAccessError
from vmm_arch.x86_64.paging import Registers, Walk, walk

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_END: Final = 1 << 64


class Vcpu(Protocol):
    """What is used of a vCPU."""

    @property
    def vm(self) -> Any: ...
    def get_sregs(self) -> Any: ...


class AddressSpace:
    """Guest-virtual memory (linear addresses) under the page tables that control registers select.

    The tables are walked in guest memory at each access, so this sees what the guest changes in
    them, and works with saved registers, too; permissions are not checked. Segments are the
    caller's: a linear address is the segment's base plus the offset. All modes: no paging, 32-bit,
    PAE, four and five levels. ::

        space = AddressSpace.of(vcpu)  # one hypervisor call
        space.read(0xFFFF_FFFF_8100_0000, 16)
    """

    def __init__(self, memory: GuestMemory, registers: Registers) -> None:
        """The space of CR0, CR3, CR4 and EFER, which are copied."""
        self.memory = memory
        names = ("cr0", "cr3", "cr4", "efer")
        self._registers: Any = SimpleNamespace(**{name: getattr(registers, name) for name in names})

    @classmethod
    def of(cls, vcpu: Vcpu) -> AddressSpace:
        """The space that a vCPU, which is not running, is in now."""
        return cls(vcpu.vm.memory, vcpu.get_sregs())

    def walk(self, address: int) -> Walk:
        """Each step on the way to the page of an address."""
        return walk(self.memory, self._registers, address)

    def translate(self, address: int) -> int | None:
        """The guest-physical address; None if the page tables do not map it."""
        return self.walk(address).physical

    def read(self, address: int, size: int) -> bytes:
        """Copy `size` bytes from a guest-virtual address on; may span pages.

        Raises MemoryAccessError, which names the part that is not mapped or has no memory.
        """
        parts = list(self._parts(address, size))
        return b"".join(self.memory.read(physical, part) for _, physical, part in parts)

    def write(self, address: int, data: ReadableBuffer) -> None:
        """Write all of `data` to a guest-virtual address, or nothing.

        Read-only pages are written as well. Raises MemoryAccessError as read() does.
        """
        data = memoryview(data).tobytes()
        parts = list(self._parts(address, len(data)))
        for at, physical, part in parts:
            self.memory.write(physical, data[at - address : at - address + part])

    def read_mapped(self, address: int, size: int) -> bytes:
        """As much of read() as is mapped without a gap; empty if the first byte is not."""
        found = b""
        for at in _pages(address, min(size, _END - address)):
            try:
                found += self.read(at, min(PAGE_SIZE - at % PAGE_SIZE, address + size - at))
            except MemoryAccessError:
                break
        return found

    def _parts(self, address: int, size: int) -> Iterator[tuple[int, int, int]]:
        """The part on each page: its guest-virtual and -physical address and its size."""
        if size < 0:
            raise ValueError(f"access to {size} bytes at {address:#x}; ask for 0 bytes or more")
        end = address + size
        if not 0 <= address <= end <= _END:
            raise MemoryAccessError(f"{_interval(address, end)} is not within 64 bits")
        for at in _pages(address, size):
            part = min(PAGE_SIZE - at % PAGE_SIZE, end - at)
            found = self.walk(at)
            if found.physical is None:
                raise self._refused(address, end, at, f"not mapped{_last_step(found)}")
            try:
                self.memory.read(found.physical, part)
            except MemoryAccessError:
                why = f"mapped to physical {found.physical:#x}, where there is no memory"
                raise self._refused(address, end, at, why) from None
            yield at, found.physical, part

    def _refused(self, address: int, end: int, at: int, why: str) -> MemoryAccessError:
        """The error about the first part of an access that there is not."""
        stop = min(at - at % PAGE_SIZE + PAGE_SIZE, end)
        return MemoryAccessError(f"{_interval(address, end)}: {_interval(at, stop)} is {why}")


def _pages(address: int, size: int) -> Iterator[int]:
    """The address, and those behind it at which a page starts."""
    at = address
    while at < address + size:
        yield at
        at += PAGE_SIZE - at % PAGE_SIZE


def _last_step(found: Walk) -> str:
    return f": {found.steps[-1]}" if found.steps else ""


def _interval(start: int, end: int) -> str:
    return f"guest-virtual [{start:#x}, {end:#x})"
