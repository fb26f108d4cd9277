"""bzImage and ELF: what is loaded where, and which images are refused and why."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from images import (
    CODE,
    DATA,
    GIB,
    MIB,
    NOISE,
    PAGE,
    TEXT,
    Counted,
    Part,
    Recorded,
    bzimage,
    elf,
    loaded,
    multiboot,
    multiboot2,
    noisy,
    note,
    notes,
    old_bzimage,
    refused,
    unchanged,
)
from vmm_arch.abi.linux_x86_64 import (
    ELFCLASS32,
    ELFDATA2MSB,
    EM_386,
    EM_AARCH64,
    ET_DYN,
    ET_REL,
    PN_XNUM,
    PT_NOTE,
    elf64_shdr,
    setup_header,
)
from vmm_arch.memory import GuestMemory, Region
from vmm_arch.x86_64.entry import Long64
from vmm_arch.x86_64.linux.kernel import load_kernel

PVH = note(b"Xen\0", 18, (2 * MIB).to_bytes(4, "little"))

# bzImage


def test_a_bzimage_goes_where_it_prefers_and_is_entered_at_0x200() -> None:
    with GuestMemory(8 * MIB) as memory:
        linux = load_kernel(memory, bzimage())
        assert memory.read(2 * MIB, len(CODE)) == CODE
    assert linux.address == linux.rip == 2 * MIB + 0x200
    assert linux.kernel == range(2 * MIB, 2 * MIB + 0x10000)
    assert linux.initrd is None


def test_the_entry_is_one_of_64_bit_code_with_the_zero_page_in_rsi() -> None:
    linux = loaded(bzimage())
    assert isinstance(linux, Long64)
    assert (linux.rsi, linux.rsp, linux.rbx) == (0x7000, 0x8FF0, 0)
    assert (linux.gdt, linux.page_tables) == (0x500, 0x9000)
    assert hash(linux) == hash(replace(linux))
    with pytest.raises(FrozenInstanceError):
        linux.rsi = 0  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        linux.more = 0  # type: ignore[attr-defined]


def test_only_kernel_and_command_line_are_written() -> None:
    with GuestMemory(8 * MIB) as memory:
        noisy(memory)
        linux = load_kernel(memory, bzimage(), cmdline="quiet")
        memory.write(2 * MIB, NOISE * len(CODE))
        memory.write(linux.command_line.start, NOISE * len("quiet\0"))
        assert unchanged(memory)


def test_what_is_behind_the_code_is_not_loaded() -> None:
    """A signature, for instance."""
    with GuestMemory(8 * MIB) as memory:
        load_kernel(memory, bzimage(behind=b"signature"))
        assert memory.read(2 * MIB + len(CODE), 16) == bytes(16)


@pytest.mark.parametrize("size", range(0x2F1, 0x301))
def test_the_last_paragraph_need_not_be_whole(size: int) -> None:
    """The size in the header is in paragraphs, rounded up: memtest86+ has no padding."""
    code = CODE[:size]
    with GuestMemory(8 * MIB) as memory:
        noisy(memory)
        linux = load_kernel(memory, bzimage(code, init_size=size))
        assert memory.read(2 * MIB, 0x301) == code + bytes(0x300 - size) + NOISE
    assert linux.kernel == range(2 * MIB, 2 * MIB + 0x300)
    said = refused(bzimage(code[:0x2F0], syssize=0x30))
    assert "it ends at 0x6f0, before the end of its code, [0x400, 0x700)" in said


def test_no_setup_sectors_are_four() -> None:
    with GuestMemory(8 * MIB) as memory:
        load_kernel(memory, bzimage(setup_sects=0))
        assert memory.read(2 * MIB, len(CODE)) == CODE


def test_the_oldest_protocol_is_2_12() -> None:
    """Its header ended with handover_offset; of that nothing behind init_size is needed."""
    for end in (0x264, 0x268):
        linux = loaded(bzimage(version=0x20C, jump=0xEB | (end - 0x202) << 8))
        assert len(linux.setup_header) == end - 0x1F1


def test_a_kernel_without_a_preference_goes_to_1_mib() -> None:
    assert loaded(bzimage(pref_address=0, relocatable_kernel=0)).kernel.start == MIB
    assert loaded(bzimage(pref_address=0, kernel_alignment=2 * MIB)).kernel.start == 2 * MIB


LOW = Region(0, MIB)


@pytest.mark.parametrize(
    ("regions", "start"),
    [
        ([LOW, Region(MIB, 2 * MIB)], 2 * MIB),
        ([Region(0, 2 * MIB), Region(3 * MIB, 8 * MIB)], 4 * MIB),
        ([Region(0, 2 * MIB), Region(2 * MIB, MIB, read_only=True), Region(3 * MIB, 2 * MIB)], 4 * MIB),
        ([Region(0, 2 * MIB + 0xF000), Region(5 * MIB, 8 * MIB)], 6 * MIB),
        ([LOW, Region(GIB, MIB), Region(4 * GIB, 8 * MIB)], GIB),
    ],
)  # fmt: skip
def test_a_relocatable_kernel_goes_to_the_next_place_that_is_aligned_and_ram(
    regions: list[Region], start: int
) -> None:
    """Never below where it prefers: it would move up from there (compressed/head_64.S)."""
    linux = loaded(bzimage(), regions)
    assert linux.kernel.start == start
    assert linux.address == start + 0x200


def test_another_kernel_goes_where_it_prefers_or_nowhere() -> None:
    image = bzimage(relocatable_kernel=0, pref_address=0x223000)
    assert loaded(image).kernel.start == 0x223000
    for low in (2 * MIB, 0x232000):  # none of it fits, or not all
        message = refused(image, [Region(0, low), Region(3 * MIB, 8 * MIB)])
        assert "needs 0x10000 bytes of RAM (init_size) at 0x223000 (pref_address), w" in message


@pytest.mark.parametrize(
    ("image", "memory", "message"),
    [
        (
            bzimage(),
            2 * MIB + 0xF000,
            "it needs 0x10000 bytes of RAM (init_size) at 0x200000 (pref_address) or at a higher"
            " multiple of 0x200000 (kernel_alignment), within [0x100000, 0x100000000);"
            " RAM is [0x0, 0x20f000); give the guest 3 MiB of memory or more",
        ),
        (bzimage(init_size=0xFFFFFFFF), 8 * MIB, "it needs 0xffffffff bytes of RAM (init_size)"),
        (bzimage(pref_address=(1 << 64) - 1), 8 * MIB, "the image is corrupt or cut short"),
        (bzimage(pref_address=0x90000, relocatable_kernel=0), 8 * MIB, "within [0x100000, 0x1"),
        (bzimage(kernel_alignment=1 << 31), 8 * MIB, "multiple of 0x80000000 (kernel_alignment)"),
        (bzimage(), [LOW, Region(4 * GIB, 8 * MIB)], "RAM is [0x0, 0x100000), [0x100000000, "),
        (bzimage(), [LOW, Region(MIB, 8 * MIB, read_only=True)], "RAM is [0x0, 0x100000); give"),
    ],
)
def test_a_kernel_without_a_place_is_refused(
    image: bytes, memory: int | list[Region], message: str
) -> None:
    assert message in refused(image, memory)


# The smallest images that are wrong in one way

BROKEN = [
    (b"", "kernel: it is empty; the image is corrupt or cut short: get or build it again"),
    (b"\0", "it is 0x1 bytes that are neither a bzImage nor an ELF file; give a kernel; load_flat()"),
    (bytes(4096), "it is 0x1000 bytes that are neither a bzImage nor an ELF file"),
    (b"\x1f\x8b\x08" + bytes(99), "it is compressed with gzip; decompress it first (gunzip)"),
    (b"\xfd7zXZ\0", "it is compressed with xz; decompress it first (unxz)"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd"),
    (b"BZh91AY", "it is compressed with bzip2"),
    (b"\x5d\0\0\x80\0", "it is compressed with LZMA"),
    (b"\x02\x21\x4c\x18", "it is compressed with LZ4"),
    (b"\x04\x22\x4d\x18", "it is compressed with LZ4"),
    (b"\x89LZO\0\r\n", "it is compressed with LZO"),
    (b"\x27\x05\x19\x56", "it is wrapped for U-Boot (uImage); give the bzImage in it"),
    (b"070701", "it is a cpio archive; give it as the initrd"),
    (b"MZ".ljust(0x38) + b"ARM\x64", "it is for arm64; give a kernel for x86-64"),
    (b"MZ".ljust(0x38) + b"RSC\x05", "it is for RISC-V; give a kernel for x86-64"),
    (b"MZ".ljust(4096, b"\0"), "it is an EFI program without Linux's setup header; give a bzImage ("),
    (b"\x55\xaa\x92".ljust(4096, b"\0"), "it is an option ROM, which needs a BIOS; give the kernel"),
    (bytes(0x1FE) + b"\x55\xaa" + bytes(4096), "it begins with a boot sector, which needs a BIOS"),
    (bzimage()[:0x206], "it ends at 0x206, before the end of its setup header, [0x1f1, 0x281)"),
    (bzimage()[:-16], "it ends at 0x6f0, before the end of its code, [0x400, 0x700) (setup_sects,"),
    (bzimage(setup_sects=255)[:2000], "it ends at 0x7d0, before the end of its code, [0x20000, "),
    (bzimage(syssize=1 << 31), "before the end of its code, [0x400, 0x800000400)"),
    (bzimage(syssize=0), "syssize at 0x1f4 is 0x0: there is no code at the 64-bit entry, 0x200"),
    (bzimage(syssize=0x20), "syssize at 0x1f4 is 0x20: there is no code at the 64-bit entry"),
    (bzimage(boot_flag=0), "boot_flag at 0x1fe is 0x0, not 0xaa55"),
    (bzimage(version=0x20B), "version at 0x206 is 0x20b: a boot protocol before 2.12 has no 64-bit"),
    (bzimage(version=0), "give a kernel of Linux 3.8 or newer"),
    (
        old_bzimage(b"2.6.18 (who@where) #1 SMP", 0x204),
        "a boot protocol before 2.12 has no 64-bit entry; give a kernel of Linux 3.8 or newer",
    ),
    (
        old_bzimage(b"1.0.0+git-20190125.36a4c85", 0x207),
        "version at 0x206 is 0x207: a boot protocol before 2.12 has no 64-bit entry, and"
        ' "1.0.0+git-20190125.36a4c85" (kernel_version) is not Linux; such programs need a BIOS',
    ),
    (old_bzimage(b"MEMDISK 6.04 20200816", 0x203), '"MEMDISK 6.04 20200816" (kernel_version) is not'),
    (old_bzimage(b"\x1b[2J", 0x203), "a boot protocol before 2.12 has no 64-bit entry; give a kernel"),
    (old_bzimage(b"\xff" * 99, 0x203), '"' + r"\xff" * 64 + '" (kernel_version) is not Linux'),
    (bzimage(version=0x203, kernel_version=0xFFFF), "has no 64-bit entry; give a kernel of Linux 3.8"),
    (bzimage(jump=0x6AE9), "jump at 0x200 is 0x6ae9, not a short jump to 0x264 or beyond"),
    (bzimage(jump=0x61EB), "jump at 0x200 is 0x61eb, not a short jump to 0x264 or beyond"),
    (bzimage(jump=0x80EB), "jump at 0x200 is 0x80eb, not a short jump to 0x264 or beyond"),
    (bzimage(loadflags=0), "loadflags at 0x211 is 0x0: a zImage, which is loaded below 1 MiB"),
    (bzimage(xloadflags=0x6), "xloadflags at 0x236 is 0x6: no 64-bit entry (XLF_KERNEL_64); give"),
    (bzimage(init_size=0x2F0), "init_size at 0x260 is 0x2f0, less than its code, 0x300 bytes"),
    (bzimage(kernel_alignment=0), "kernel_alignment at 0x230 is 0x0, not a power of two"),
    (bzimage(kernel_alignment=3 * MIB), "kernel_alignment at 0x230 is 0x300000, not a power of two"),
]  # fmt: skip


@pytest.mark.parametrize(("image", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_an_image_that_is_no_kernel_for_here_is_refused(image: bytes, message: str) -> None:
    said = refused(image)
    assert message in said
    assert said.startswith("kernel: ")


def test_the_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(bzimage(loadflags=0))
    assert refused(path).startswith(f"kernel {path}: loadflags at 0x211 is 0x0")


# ELF


def test_an_elf_kernel_is_loaded_by_physical_address() -> None:
    image = elf([Part(3 * MIB, TEXT), Part(2 * MIB, DATA)], e_entry=3 * MIB + 0x10)
    with GuestMemory(8 * MIB) as memory:
        linux = load_kernel(memory, image)
        assert memory.read(3 * MIB, len(TEXT)) == TEXT
        assert memory.read(2 * MIB, len(DATA)) == DATA
    assert linux.address == 3 * MIB + 0x10
    assert linux.kernel == range(2 * MIB, 3 * MIB + len(TEXT))


@pytest.mark.parametrize("size", [1, 0x1000, 3 * MIB + 5])
def test_memory_behind_a_segments_bytes_becomes_zero(size: int) -> None:
    start, end = 2 * MIB + len(DATA), 2 * MIB + len(DATA) + size
    with GuestMemory(8 * MIB) as memory:
        noisy(memory)
        load_kernel(memory, elf([Part(2 * MIB, DATA, len(DATA) + size)]))
        assert memory.read(2 * MIB, len(DATA)) == DATA
        assert memory.read(start, size) == bytes(size)
        assert memory.read(end, 16) == NOISE * 16
        assert memory.read(2 * MIB - 16, 16) == NOISE * 16


def test_zeros_are_not_written_where_zeros_are() -> None:
    """Only pages that are touched cost memory."""
    with Recorded(64 * MIB) as memory:
        load_kernel(memory, elf([Part(2 * MIB, DATA, 32 * MIB)]))
        assert sum(written.stop - written.start for written in memory.written) < PAGE


def test_a_virtual_entry_is_translated_by_its_segment() -> None:
    """As BSDs have it, and the System V ABI says."""
    parts = [Part(2 * MIB, TEXT), Part(3 * MIB, DATA)]
    assert loaded(elf(parts, e_entry=0xFFFFFFFF80300008)).address == 3 * MIB + 8
    swapped = [
        Part(2 * MIB, TEXT, None, (("p_vaddr", 3 * MIB),)),
        Part(3 * MIB, TEXT, None, (("p_vaddr", 2 * MIB),)),
    ]
    assert loaded(elf(swapped, e_entry=2 * MIB + 4)).address == 3 * MIB + 4


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (elf([Part(2 * MIB, multiboot() + TEXT)]), "a Multiboot kernel (header at 0x78)"),
        (elf([Part(2 * MIB, multiboot(2 * MIB) + TEXT)]), "a Multiboot kernel (header at 0x78)"),
        (elf([Part(2 * MIB, multiboot2() + TEXT)]), "a Multiboot 2 kernel (header at 0x78)"),
        (elf([Part(2 * MIB, multiboot2(2 * MIB) + TEXT)]), "a Multiboot 2 kernel (header at 0x78)"),
        (
            elf([Part(2 * MIB, multiboot() + TEXT)], e_entry=0xFFFFFFFF80200000),
            "a Multiboot kernel (header at 0x78)",
        ),
        (
            elf([Part(2 * MIB, multiboot() + TEXT)], EI_CLASS=ELFCLASS32, e_machine=EM_386),
            "a Multiboot kernel (header at 0x78)",
        ),
        (bytes(64) + multiboot(2 * MIB), "a Multiboot kernel (header at 0x40)"),
        (
            elf([Part(2 * MIB, TEXT), notes(note(b"GNU\0", 3, b"build") + PVH)]),
            "a PVH kernel (Xen's note PHYS32_ENTRY)",
        ),
    ],
)  # fmt: skip
def test_a_kernel_that_is_entered_in_32_bit_code_is_refused_by_name(
    image: bytes, what: str
) -> None:
    loader = "load_multiboot()" if "Multiboot" in what else "load_pvh()"
    remedy = f"give another kernel; {loader} is for these"
    assert refused(image) == f"kernel: it is {what}, entered in 32-bit code; {remedy}"


def test_a_kernel_for_xens_pv_guests_is_refused_by_name() -> None:
    entry = note(b"Xen\0", 1, (0xFFFFFFFF80200000).to_bytes(8, "little"))
    image = elf([Part(2 * MIB, TEXT), notes(entry)], e_entry=0xFFFFFFFF80200000)
    assert "a kernel for Xen's PV guests (Xen's note ENTRY); give a kernel for a PC" in refused(
        image
    )


def with_sections(names: bytes, **fields: int) -> bytes:
    """An ELF kernel with one section header: that of the sections' names."""
    image = elf([Part(2 * MIB, TEXT)])
    end = len(image)
    table = {"e_shoff": end + len(names), "e_shentsize": 64, "e_shnum": 1, "e_shstrndx": 0}
    section = elf64_shdr(sh_offset=end, sh_size=len(names))
    return elf([Part(2 * MIB, TEXT)], **(table | fields)) + names + bytes(section)


XEN = b"\0.text\0__xen_guest\0"


def test_a_kernel_for_older_xen_is_told_by_a_section() -> None:
    said = refused(with_sections(XEN))
    assert "a kernel for Xen's PV guests (section __xen_guest); give a kernel for a PC" in said


@pytest.mark.parametrize(
    "image",
    [
        with_sections(b"\0.text\0.__xen_guest\0"),
        with_sections(XEN)[:-1],
        with_sections(XEN, e_shnum=0),
        with_sections(XEN, e_shentsize=40),
        with_sections(XEN, e_shoff=(1 << 64) - 1),
        with_sections(XEN + bytes(64 << 10)),
    ],
    ids=["another name", "cut", "none", "another size", "nowhere", "very long"],
)
def test_what_is_wrong_with_sections_does_not_matter(image: bytes) -> None:
    """They are for debuggers; a loader needs none."""
    assert loaded(image).address == 2 * MIB


@pytest.mark.parametrize(
    "image",
    [
        elf([Part(2 * MIB, TEXT), notes(PVH)], e_entry=2 * MIB + 4),
        elf([Part(2 * MIB, multiboot(2 * MIB + 4) + TEXT)]),
        elf([Part(2 * MIB, multiboot2(2 * MIB + 4) + TEXT)]),
        elf([Part(2 * MIB, b"\0\0" + multiboot() + TEXT)]),
        elf([Part(2 * MIB, multiboot()[:8] + TEXT)]),
        elf([Part(2 * MIB, bytes(8192) + multiboot())]),
        elf([Part(2 * MIB, TEXT), notes(PVH[:-1])]),
        elf([Part(2 * MIB, TEXT), notes(PVH.replace(b"Xen", b"NeX"))]),
    ],
    ids=[
        "PVH entry beside it", "Multiboot entry beside it", "Multiboot 2 entry beside it",
        "not aligned", "wrong checksum", "too far", "note cut short", "note of another's",
    ],
)  # fmt: skip
def test_an_entry_beside_those_of_other_protocols_is_taken(image: bytes) -> None:
    """Linux has one for PVH as well."""
    assert loaded(image).address in (2 * MIB, 2 * MIB + 4)


def test_notes_are_not_read_without_end() -> None:
    many = [Part(0, b"", 1, (("p_type", PT_NOTE), ("p_offset", 0), ("p_filesz", 0xF000)))] * 999
    image = elf([Part(2 * MIB, TEXT), *many]) + bytes(0xF000)
    file = Counted(image)
    loaded(file)
    assert file.count < 2 * len(image)


def test_a_position_independent_elf_kernel_is_loaded() -> None:
    assert loaded(elf([Part(MIB, TEXT)], e_type=ET_DYN)).address == MIB


def test_parts_that_are_not_to_be_loaded_are_not() -> None:
    note = Part(0, b"", 0, (("p_type", 4), ("p_offset", 1 << 63), ("p_filesz", 1 << 63)))
    empty = Part(0x8000, b"", 0)
    with Recorded(8 * MIB) as memory:
        load_kernel(memory, elf([Part(2 * MIB, TEXT), note, empty]))
        assert memory.written == [range(2 * MIB, 2 * MIB + len(TEXT)), range(0x20000, 0x20001)]


def test_an_elf_kernel_tells_linux_what_its_bzimage_would() -> None:
    header = setup_header.from_buffer_copy(loaded(elf([Part(2 * MIB, TEXT)])).setup_header)
    assert (header.boot_flag, header.header) == (0xAA55, 0x53726448)
    assert header.version == 0x020C
    assert (header.cmdline_size, header.initrd_addr_max) == (2047, 0x7FFFFFFF)


BROKEN_ELF = [
    (elf([Part(2 * MIB, TEXT)])[:63], "it ends at 0x3f, before the end of its ELF header, [0x0, 0x40)"),
    (elf([Part(2 * MIB, TEXT)])[:100], "it ends at 0x64, before the end of its program headers (e_p"),
    (elf([Part(2 * MIB, TEXT)])[:-1], "p_offset at 0x48 is 0x78, p_filesz at 0x60 is 0x100: beyond the file's end"),
    (elf([Part(2 * MIB, TEXT)], EI_CLASS=ELFCLASS32), "EI_CLASS at 0x4 is 0x1: not 64-bit; give a vm"),
    (elf([Part(2 * MIB, TEXT)], EI_DATA=ELFDATA2MSB), "EI_DATA at 0x5 is 0x2: not little-endian"),
    (elf([Part(2 * MIB, TEXT)], e_machine=EM_386), "e_machine at 0x12 is 0x3: for another CPU"),
    (elf([Part(2 * MIB, TEXT)], e_machine=EM_AARCH64), "e_machine at 0x12 is 0xb7: for another CPU"),
    (elf([Part(2 * MIB, TEXT)], e_type=ET_REL), "e_type at 0x10 is 0x1: not an executable"),
    (elf([Part(2 * MIB, TEXT)], e_phentsize=32), "e_phentsize at 0x36 is 0x20, not 0x38"),
    (elf([Part(2 * MIB, TEXT)], e_phnum=PN_XNUM), "e_phnum at 0x38 is 0xffff: more program headers"),
    (elf([Part(2 * MIB, TEXT)], e_phnum=0xFFFE), "it ends at 0x178, before the end of its program h"),
    (elf([Part(2 * MIB, TEXT)], e_phoff=(1 << 64) - 1), "before the end of its program headers"),
    (elf([]), "it has no PT_LOAD segment: there is nothing to load"),
    (elf([Part(2 * MIB, TEXT, 0)]), "it has no PT_LOAD segment"),
    (elf([Part(2 * MIB, TEXT, 8)]), "p_filesz at 0x60 is 0x100, more than p_memsz, 0x8"),
    (
        elf([Part(2 * MIB, TEXT), Part(3 * MIB, DATA, None, (("p_offset", (1 << 64) - 1),))]),
        "p_offset at 0x80 is 0xffffffffffffffff, p_filesz at 0x98 is 0x80: beyond the file's end at 0x230",
    ),
    (elf([Part(2 * MIB, TEXT)], e_entry=1), "e_entry at 0x18 is 0x1, in no loaded segment (p_vaddr, p"),
    (elf([Part(2 * MIB, TEXT, MIB)], e_entry=2 * MIB + len(TEXT)), "e_entry at 0x18 is 0x200100, in"),
    (elf([Part(2 * MIB, TEXT)], e_entry=0xFFFFFFFF80200100), "e_entry at 0x18 is 0xffffffff80200100"),
    (
        elf([Part(2 * MIB + 8, TEXT), Part(2 * MIB, DATA)]),
        "segments overlap: [0x200000, 0x200080), [0x200008, 0x200108) (p_paddr, p_memsz); the image is",
    ),
    (elf([Part(2 * MIB, TEXT), Part(2 * MIB + 1, DATA, 1 << 20)]), "segments overlap"),
    (elf([Part(0x7000, TEXT)]), "its segments go to [0x7000, 0x7100) (p_paddr, p_memsz): below 0x1"),
    (elf([Part(MIB - 1, TEXT)]), "below 0x100000, used for zero page, page tables, command line; link"),
    (
        elf([Part(2 * MIB, TEXT), Part(9 * MIB, DATA, 3 * MIB)]),
        "its segments go to [0x200000, 0xc00000) (p_paddr, p_memsz): not all of that is RAM below"
        " 0x100000000; RAM is [0x0, 0x800000); give the guest 12 MiB of memory or more",
    ),
    (elf([Part(2 * MIB, TEXT, (1 << 64) - 1)]), "its segments go to [0x200000, 0x100000000001fffff)"),
    (elf([Part((1 << 64) - 1, TEXT)]), "its segments go to [0xffffffffffffffff, 0x100000000000000ff)"),
]  # fmt: skip


@pytest.mark.parametrize(("image", "message"), BROKEN_ELF, ids=[said for _, said in BROKEN_ELF])
def test_an_elf_image_that_cannot_be_loaded_is_refused(image: bytes, message: str) -> None:
    assert message in refused(image)


def test_segments_may_touch() -> None:
    image = elf([Part(2 * MIB, TEXT), Part(2 * MIB + len(TEXT), DATA)])
    assert loaded(image).kernel == range(2 * MIB, 2 * MIB + len(TEXT) + len(DATA))


def test_what_lies_between_segments_is_the_kernels_and_has_to_be_ram() -> None:
    image = elf([Part(2 * MIB, TEXT), Part(5 * MIB, DATA)])
    assert loaded(image).kernel == range(2 * MIB, 5 * MIB + len(DATA))
    hole = [Region(0, 3 * MIB), Region(4 * MIB, 4 * MIB)]
    assert "[0x200000, 0x500080) (p_paddr, p_memsz): not all of that is RAM" in refused(image, hole)


def test_a_segment_above_4_gib_is_not_mapped_and_refused() -> None:
    image = elf([Part(4 * GIB, TEXT)])
    assert "not all of that is RAM below 0x100000000" in refused(image, [LOW, Region(4 * GIB, MIB)])
