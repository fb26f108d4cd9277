"""PVH kernels: what they read, and images that are refused."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import sizeof
from typing import Any

import pytest
from guests.assemble import assemble
from hypothesis import example, given, settings
from hypothesis import strategies as st
from images import DATA, MACHINES, MIB, TEXT, Part, elf, noisy, note, notes, unchanged
from vmm_arch.abi import xen_x86_64 as xen
from vmm_arch.boot.image import KernelImageError
from vmm_arch.memory import GuestMemory
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.x86_64.boot import pvh
from vmm_arch.x86_64.boot.kernel32 import BootModule
from vmm_arch.x86_64.boot.pvh import load_pvh
from vmm_arch.x86_64.platform.memory_map import GuestMemory as X86Memory

from boot.images import attempt, elf32, read_pvh, what_it_says
from boot.test_multiboot import TELLS, modules_given, texts, values


def entry_note(address: int, size: int = 4) -> Part:
    return notes(note(b"Xen\0", xen.XEN_ELFNOTE_PHYS32_ENTRY, address.to_bytes(size, "little")))


KERNEL = elf([Part(2 * MIB, TEXT, 0x2000), Part(2 * MIB + 0x4000, DATA), entry_note(2 * MIB + 4)])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (pvh.StartInfo, xen.hvm_start_info),
        (pvh.ModuleEntry, xen.hvm_modlist_entry),
        (pvh.MemoryMapEntry, xen.hvm_memmap_table_entry),
    ],
)
def test_records_are_those_of_xens_header(ours: Any, theirs: Any) -> None:
    def layout(record: Any) -> list[tuple[str, int, int]]:
        names = [name for name, *_ in record._fields_]
        return [(name, getattr(record, name).offset, getattr(record, name).size) for name in names]

    assert layout(ours) == layout(theirs)
    assert sizeof(ours) == sizeof(theirs)
    assert pvh.START_MAGIC == xen.XEN_HVM_START_MAGIC_VALUE


@pytest.mark.parametrize("make", [elf, elf32])
def test_a_kernel_reads_what_it_is_told(arch: AnyBackend, make: Any) -> None:
    code = assemble(TELLS.with_name("tells_pvh.S"), MIB)
    modules = [BootModule(b"first\0", "one.txt a=b"), BootModule(b"2nd\0")]
    with X86Memory(4 * MIB) as memory:
        noisy(memory)
        kernel = make([Part(MIB, code, 0x1000), entry_note(MIB)])
        entry = load_pvh(memory, kernel, cmdline="prog -v", modules=modules)
        numbers, said = what_it_says(arch, memory, entry)
        read = read_pvh(memory, entry.rbx)
    cr0, cr4, flags, task = numbers[4:]
    rsd = int.from_bytes(b"RSD ", "little")
    assert numbers[:4] == [pvh.START_MAGIC, 2, len(read.entries), rsd]
    assert (cr0 & 1, cr0 >> 31, cr4, flags & 0x20300, task) == (1, 0, 0, 0, 0x20)
    assert said.split(b"\0") == [b"prog -v", b"one.txt a=b", b"first", b"", b"2nd", b""]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "kernel: it is empty; the image is corrupt"),
        (TEXT, "kernel: it is not an ELF file; give a PVH kernel, such as a vmlinux"),
        (elf([Part(MIB, TEXT)]), "it has no PVH entry (Xen's note PHYS32_ENTRY); give a PVH kernel"),
        (
            elf([Part(MIB, TEXT), entry_note(MIB - 1)]),
            "its PVH entry, 0xfffff, is outside what is loaded; the image is corrupt",
        ),
        (elf([Part(9 * MIB, TEXT), entry_note(9 * MIB)]), "; give the guest 10 MiB of memory or more"),
    ],
)  # fmt: skip
def test_an_image_that_cannot_be_loaded_is_refused(image: bytes, message: str) -> None:
    with GuestMemory(8 * MIB) as memory:
        noisy(memory)
        with pytest.raises(KernelImageError) as error:
            load_pvh(memory, image)
        assert message in str(error.value)
        assert unchanged(memory)


def test_an_entry_may_have_64_bits() -> None:
    """Xen's toolstack takes both, as Linux writes the one and FreeBSD the other."""
    with GuestMemory(8 * MIB) as memory:
        assert load_pvh(memory, elf([Part(MIB, TEXT), entry_note(MIB, 8)])).address == MIB


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """An image with a few fields overwritten, cut short or made longer."""
    image = bytearray(KERNEL)
    for _ in range(draw(st.integers(1, 4))):
        width = draw(st.sampled_from([1, 2, 4, 8]))
        offset = draw(st.integers(0, len(image) - width))
        value = draw(values) & (1 << 8 * width) - 1
        image[offset : offset + width] = value.to_bytes(width, "little")
    if draw(st.booleans()):
        image = image[: draw(st.integers(0, len(image)))]
    return bytes(image) + draw(st.binary(max_size=8))


@settings(deadline=None, max_examples=500)
@given(st.sampled_from(MACHINES), mutated(), texts, modules_given)
@example(MACHINES[0], KERNEL, b"quiet", [(b"module", b"its text")])
def test_a_mutated_image_is_refused_or_loaded_as_announced(
    machine: Any, image: bytes, cmdline: bytes, modules: Sequence[tuple[bytes, bytes]]
) -> None:
    attempt(machine, image, cmdline, modules, load_pvh)


def test_the_image_that_is_mutated_can_be_loaded() -> None:
    for machine in MACHINES[:3]:
        entry = attempt(machine, KERNEL, b"quiet", [(b"module", b"text")], load_pvh)
        assert entry is not None
        assert entry.address == 2 * MIB + 4
