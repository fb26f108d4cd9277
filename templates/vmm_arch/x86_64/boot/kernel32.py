"""Loads kernels that are entered in 32-bit code, with modules: what Multiboot and PVH have in common.

Such a kernel is loaded to the physical addresses that it is linked to, and finds in EBX the address
of its *boot information*, which its protocol lays out. No field of an image is trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from vmm_arch.boot.image import Image, opened, terminated
from vmm_arch.boot.ranges import (
    Segment,
    aligned,
    clipped,
    highest,
    holds,
    listing,
    lowest,
    runs_of,
    without,
)
from vmm_arch.memory import PAGE_SIZE, GuestMemory
from vmm_arch.x86_64.entry import Protected32, Tables
from vmm_arch.x86_64.platform.description import Platform
from vmm_arch.x86_64.platform.e820 import e820_map
from vmm_arch.x86_64.platform.memory_map import EBDA, HIGH_MEMORY, memory_up_to
from vmm_arch.x86_64.tables import GDT_SIZE, MAPPED
from vmm_arch.x86_64.topology import Topology

if TYPE_CHECKING:
    from vmm_arch.boot.image import Source

LOADER_NAME: Final = b"vmm-arch\0"
_BEFORE: Final = aligned(GDT_SIZE, 16)
"""Room for a descriptor table before the information."""
_LOWEST: Final = PAGE_SIZE
"""Below are a PC's real-mode interrupt table and BIOS data area."""


@dataclass(frozen=True, slots=True)
class BootModule:
    """A file that is loaded for a kernel, such as an initrd, and its command line."""

    image: Source
    """A path, bytes or a binary file."""
    cmdline: str | bytes = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What a kernel's boot information says."""

    entries: Sequence[tuple[range, int]]
    """The memory map (:func:`~vmm_arch.x86_64.platform.e820.e820_map`)."""
    ram: Sequence[range]
    """What 32-bit code reaches of it."""
    cmdline: bytes
    """Zero-terminated, as are the modules' command lines."""
    modules: Sequence[tuple[range, bytes]]
    """Where each module is, and its command line."""

    @property
    def low_and_high_kib(self) -> tuple[int, int]:
        """KiB of RAM from address 0 on, and from 1 MiB on up to the first hole."""
        low = next((run.stop for run in self.ram if run.start == 0), 0)
        high = next((run.stop - run.start for run in self.ram if run.start == HIGH_MEMORY), 0)
        return low >> 10, high >> 10


Layout: TypeAlias = Callable[[Told, int], bytes]
"""Lays boot information out for an address, which is a multiple of 16."""


@dataclass(frozen=True, slots=True)
class Program:
    """What is loaded of an image, where it is entered (physical addresses), and what it is told."""

    entry: int
    segments: tuple[Segment, ...]
    """In ascending order, without overlap."""
    layout: Layout
    rax: int = 0
    """What EAX is at the entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel32(Protected32):
    """The 32-bit entry of a loaded kernel, and the addresses of its parts.

    RBX has the address of the boot information. The state is what both protocols require: 32-bit
    code, flat segments, no paging.
    """

    segments: tuple[range, ...]
    """The address ranges of the kernel itself, ascending."""
    information: range
    """The boot information with its tables and texts, and the descriptor table."""
    modules: tuple[range, ...] = ()

    def write_tables(
        self, memory: GuestMemory, topology: Topology, platform: Tables | None = None
    ) -> None:
        """Write descriptor table and the platform's tables."""
        Protected32.write_tables(self, memory, topology, platform or Platform())


def load(
    memory: GuestMemory,
    kernel: Source,
    cmdline: str | bytes,
    modules: Iterable[BootModule],
    read_program: Callable[[Image], Program],
) -> Kernel32:
    """Load a kernel with its modules and boot information, once everything is known to fit.

    Modules go to the first pages after the kernel, from 1 MiB on; the information below 640 KiB, or
    after the modules. Raises KernelImageError, with nothing written.
    """
    limit = sum(region.size for region in memory.regions)
    ram = _usable(memory)
    line = terminated(cmdline, "command line")
    with ExitStack() as stack:
        image = stack.enter_context(opened(kernel, "kernel", limit))
        program = read_program(image)
        places = tuple(range(one.address, one.end) for one in program.segments)
        free = ram
        for place in places:
            if not holds(ram, place):
                problem = f"it goes to {listing([place])}; RAM is {listing(ram)}"
                more = memory_up_to(place.stop) if place.start >= HIGH_MEMORY else None
                raise image.error(problem, more or "link it to other addresses")
            free = without(free, place)

        images, loaded = [], []
        start = max(places[-1].stop, HIGH_MEMORY)
        for index, module in enumerate(modules):
            if not isinstance(module, BootModule):
                raise TypeError(f"expected BootModule, got {type(module).__name__}")
            one = stack.enter_context(opened(module.image, f"module {index}", limit))
            address = lowest(free, one.size, start, PAGE_SIZE)
            if address is None:
                problem = f"its {one.size:#x} bytes do not fit after {start:#x}"
                more = memory_up_to(aligned(start, PAGE_SIZE) + one.size)
                raise one.error(f"{problem}; RAM is {listing(ram)}", more or "give a smaller one")
            images.append(one)
            text = terminated(module.cmdline, f"{one.name}'s command line")
            loaded.append((range(address, address + one.size), text))
            start = address + one.size

        told = Told(e820_map(memory), ram, line, loaded)
        size = _BEFORE + len(program.layout(told, 0))
        address = highest(clipped(free, _LOWEST, EBDA.start), size)
        if address is None:
            address = lowest(free, size, start, PAGE_SIZE)
        if address is None:
            problem = f"the {size:#x} bytes of its boot information do not fit beside it"
            raise image.error(f"{problem}; RAM is {listing(ram)}", "give the guest more memory")

        for segment in program.segments:
            image.load(segment, memory)
        for one, (place, _) in zip(images, loaded, strict=True):
            one.copy(0, one.size, memory, place.start)
        memory.write(address, bytes(_BEFORE) + program.layout(told, address + _BEFORE))
    return Kernel32(
        program.entry,
        rax=program.rax,
        rbx=address + _BEFORE,
        gdt=address,
        segments=places,
        information=range(address, address + size),
        modules=tuple(place for place, _ in loaded),
    )


class Information:
    """Boot information while it is laid out: a record, and behind it tables and texts."""

    def __init__(self, address: int, size: int) -> None:
        self.content = bytearray(size)
        self._address = address

    def append(self, data: bytes, alignment: int = 4) -> int:
        """Append data and return its guest-physical address."""
        self.content.extend(bytes(-len(self.content) % alignment))
        self.content.extend(data)
        return self._address + len(self.content) - len(data)

    def finish(self, record: bytes) -> bytes:
        """All of it, with its record at the beginning."""
        self.content[: len(record)] = record
        return bytes(self.content)


def _usable(memory: GuestMemory) -> list[range]:
    """RAM that 32-bit code reaches, except the firmware's on a PC below 1 MiB."""
    ram = runs_of(memory, writable=True)
    return [*clipped(ram, 0, EBDA.start), *clipped(ram, HIGH_MEMORY, MAPPED)]
