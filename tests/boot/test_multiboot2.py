"""Multiboot 2 kernels: what their headers ask for, what they read, and images that are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from guests.assemble import assemble
from hypothesis import example, given, settings
from hypothesis import strategies as st
from images import MACHINES, MIB, NOISE, TEXT, Part, noisy
from vmm_arch.memory import GuestMemory
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.x86_64.boot.kernel32 import BootModule
from vmm_arch.x86_64.boot.multiboot import load_multiboot
from vmm_arch.x86_64.platform.memory_map import GuestMemory as X86Memory

from boot.images import attempt, elf32, header2, read_multiboot2, tag, what_it_says
from boot.test_multiboot import TELLS, loaded, modules_given, refused, texts, values

ADDRESS, ENTRY, OPTIONAL = 2, 3, 1
CODE = TEXT


def entered(*tags: bytes, code: bytes = CODE, **fields: Any) -> bytes:
    """An ELF image with a header of these tags, at a multiple of 8."""
    fields = {"e_entry": 2 * MIB} | fields
    return elf32([Part(2 * MIB, bytes(4) + header2(*tags) + code, 0x2000)], **fields)


def flat(header_at: int, load: int, load_end: int, bss_end: int, *tags: bytes) -> bytes:
    return header2(tag(ADDRESS, header_at, load, load_end, bss_end), *tags) + TEXT


KERNEL = entered(tag(1, 1, 2, 3, 4, 6), tag(4, 3), tag(6), tag(10, 0, MIB, 16, 0))
FLAT = flat(MIB, MIB, MIB + 128, MIB + 0x2000, tag(ENTRY, MIB + 80))


def test_a_kernel_reads_what_it_is_told(arch: AnyBackend) -> None:
    code = assemble(TELLS.with_name("tells2.S"), MIB + 4)
    modules = [BootModule(b"first\0", "one.txt a=b"), BootModule(b"2nd\0")]
    with X86Memory(4 * MIB) as memory:
        noisy(memory)
        kernel = elf32([Part(MIB, bytes(4) + code, 0x1000)], e_entry=MIB)
        entry = load_multiboot(memory, kernel, cmdline="prog -v", modules=modules)
        assert entry.address == MIB + 4 + len(
            header2(tag(ENTRY, 0))
        )  # its tag counts, not ELF's header
        numbers, said = what_it_says(arch, memory, entry)
        read = read_multiboot2(memory, entry.rbx)
    magic, lower, upper, count = numbers
    assert (magic, lower, upper, count) == (0x36D76289, 639, 3 << 10, len(read.entries))
    wanted = [b"prog -v", b"vmm-arch", b"one.txt a=b", b"first", b"", b"2nd", b""]
    assert said.split(b"\0") == wanted


def test_an_entry_tag_counts_for_an_elf_file() -> None:
    assert loaded(KERNEL).address == 2 * MIB
    assert loaded(entered(tag(ENTRY, 2 * MIB + 4))).address == 2 * MIB + 4


def test_addresses_in_the_header_say_where_an_image_goes_that_is_no_elf_file() -> None:
    with GuestMemory(8 * MIB) as memory:
        noisy(memory)
        entry = load_multiboot(memory, FLAT)
        assert (entry.address, entry.segments) == (MIB + 80, (range(MIB, MIB + 0x2000),))
        assert memory.read(MIB, 0x2001) == FLAT[:128].ljust(0x2000, b"\0") + NOISE
    before = bytes(8)
    whole = before + flat(MIB + 8, 0xFFFFFFFF, 0, 0, tag(ENTRY, MIB + 8))
    entry = loaded(whole)
    assert entry.segments == (range(MIB, MIB + len(whole)),)  # load_addr -1: from its beginning on


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (entered(tag(5, 0, 0, 32)), "requires a framebuffer: not supported; build it without that"),
        (entered(tag(1, 1, 14, 15)), "requires information of type 14, information of type 15: not"),
        (entered(tag(99), tag(9, 1)), "requires a feature of type 99, EFI's 64-bit entry: not"),
        (entered(tag(ADDRESS, 1)), "tag at 0x68 has 4 bytes, too few for its type, 2; the image is"),
        (entered(tag(4, 1, size=7)), "tag at 0x68 has size 0x7; the image is corrupt"),
        (entered(tag(4, 1, size=0xFFFFFFFF)), "tag at 0x68 has size 0xffffffff; the image is"),
        (entered(tag(ENTRY, 1)), "its Multiboot 2 entry, 0x1, is outside what is loaded"),
        (header2() + TEXT, "it is not an ELF file, and its Multiboot 2 header has no address tag"),
        (header2(architecture=4) + TEXT, "architecture at 0x4 is 4: not 32-bit protected mode"),
        (flat(MIB, MIB, 0, 0), "has an address tag and no entry address tag"),
        (flat(MIB, MIB + 4, 0, 0, tag(ENTRY, MIB)), "header_addr 0x100000, load_addr 0x100004, load"),
        (flat(MIB, MIB, MIB + 0x10000, 0, tag(ENTRY, MIB)), "the image begins or ends elsewhere"),
    ],
)  # fmt: skip
def test_an_image_that_cannot_be_loaded_is_refused(image: bytes, message: str) -> None:
    assert message in refused(image)


def test_what_is_optional_need_not_be_there() -> None:
    image = entered(tag(5, 0, 0, 32, flags=OPTIONAL), tag(99, flags=OPTIONAL))
    assert loaded(image).address == 2 * MIB


# Whatever is in an image


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """An image with a few fields of its header overwritten, cut short or made longer."""
    original = draw(st.sampled_from([KERNEL, FLAT]))
    image = bytearray(original)
    start = image.index((0xE85250D6).to_bytes(4, "little"))
    for _ in range(draw(st.integers(0, 4))):
        width = draw(st.sampled_from([1, 2, 4]))
        offset = draw(st.integers(0, start + 100 - width))
        value = draw(values) & (1 << 8 * width) - 1
        image[offset : offset + width] = value.to_bytes(width, "little")
    if draw(st.booleans()):  # so that the change is not refused at once
        fields = [int.from_bytes(image[start + at : start + at + 4], "little") for at in (0, 4, 8)]
        image[start + 12 : start + 16] = (-sum(fields) & 0xFFFFFFFF).to_bytes(4, "little")
    if draw(st.booleans()):
        image = image[: draw(st.integers(0, len(image)))]
    return bytes(image) + draw(st.binary(max_size=8))


@settings(deadline=None, max_examples=500)
@given(st.sampled_from(MACHINES), mutated(), texts, modules_given)
@example(MACHINES[0], KERNEL, b"quiet", [(b"module", b"its text")])
@example(MACHINES[0], FLAT, b"quiet", [(b"module", b"its text")])
def test_a_mutated_image_is_refused_or_loaded_as_announced(
    machine: Any, image: bytes, cmdline: bytes, modules: Sequence[tuple[bytes, bytes]]
) -> None:
    attempt(machine, image, cmdline, modules)


def test_the_images_that_are_mutated_can_be_loaded() -> None:
    for image in (
        KERNEL,
        FLAT,
        elf32([Part(MIB, bytes(4) + header2())], e_entry=MIB),
    ):
        for machine in MACHINES[:3]:
            assert attempt(machine, image, b"quiet", [(b"module", b"text")]) is not None
