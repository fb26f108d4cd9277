"""An ELF core dump of a machine, which gdb and crash read (System V ABI, chapters 4 and 5; Linux elfcore.h).

It has the guest's memory, a thread for each vCPU, and what QEMU's dump-guest-memory adds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from ctypes import sizeof
from typing import Any, Final, Protocol

from vmm_arch.abi.linux_x86_64 import (
    EI_CLASS,
    EI_DATA,
    EI_VERSION,
    ELFCLASS64,
    ELFDATA2LSB,
    EM_X86_64,
    ET_CORE,
    EV_CURRENT,
    NT_PRFPREG,
    NT_PRSTATUS,
    PF_R,
    PF_W,
    PF_X,
    PN_XNUM,
    PT_LOAD,
    PT_NOTE,
    elf64_hdr,
    elf64_note,
    elf64_phdr,
    elf64_shdr,
)
from vmm_arch.abi.records import LittleStruct, of, u32, u64
from vmm_arch.memory import PAGE_SIZE, GuestMemory
from vmm_arch.replacing import replacing
from vmm_arch.x86_64.paging import mappings

_MAGIC: Final = b"\x7fELF"
_FXSAVE_SIZE: Final = 512
_MSR_KERNEL_GS_BASE: Final = 0xC000_0102
_PIECE: Final = 1 << 20
_VMCOREINFO: Final = b"VMCOREINFO"
_SEGMENTS: Final = ("cs", "ds", "es", "fs", "gs", "ss", "ldt", "tr")


class Vm(Protocol):
    """What is used of a machine."""

    @property
    def memory(self) -> GuestMemory: ...
    @property
    def vcpus(self) -> Sequence[Any]: ...


class _UserRegs(LittleStruct):
    """user_regs_struct of x86-64."""

    r15: int = u64
    r14: int = u64
    r13: int = u64
    r12: int = u64
    rbp: int = u64
    rbx: int = u64
    r11: int = u64
    r10: int = u64
    r9: int = u64
    r8: int = u64
    rax: int = u64
    rcx: int = u64
    rdx: int = u64
    rsi: int = u64
    rdi: int = u64
    orig_rax: int = u64
    rip: int = u64
    cs: int = u64
    rflags: int = u64
    rsp: int = u64
    ss: int = u64
    fs_base: int = u64
    gs_base: int = u64
    ds: int = u64
    es: int = u64
    fs: int = u64
    gs: int = u64


class _Prstatus(LittleStruct):
    """elf_prstatus of x86-64: of a vCPU there are only its number and registers."""

    _signal: Any = u32 * 8
    pid: int = u32
    _process: Any = u32 * 19
    regs: _UserRegs = of(_UserRegs)
    _fpvalid: int = u64


class _QemuSegment(LittleStruct):
    selector: int = u32
    limit: int = u32
    flags: int = u32
    _pad: int = u32
    base: int = u64


class _QemuCpuState(LittleStruct):
    """The note of QEMU's about a vCPU (target/i386/arch_dump.c), from which crash has CR3 and IDT."""

    version: int = u32
    size: int = u32
    rax: int = u64
    rbx: int = u64
    rcx: int = u64
    rdx: int = u64
    rsi: int = u64
    rdi: int = u64
    rsp: int = u64
    rbp: int = u64
    r8: int = u64
    r9: int = u64
    r10: int = u64
    r11: int = u64
    r12: int = u64
    r13: int = u64
    r14: int = u64
    r15: int = u64
    rip: int = u64
    rflags: int = u64
    cs: _QemuSegment = of(_QemuSegment)
    ds: _QemuSegment = of(_QemuSegment)
    es: _QemuSegment = of(_QemuSegment)
    fs: _QemuSegment = of(_QemuSegment)
    gs: _QemuSegment = of(_QemuSegment)
    ss: _QemuSegment = of(_QemuSegment)
    ldt: _QemuSegment = of(_QemuSegment)
    tr: _QemuSegment = of(_QemuSegment)
    gdt: _QemuSegment = of(_QemuSegment)
    idt: _QemuSegment = of(_QemuSegment)
    cr0: int = u64
    cr1: int = u64
    cr2: int = u64
    cr3: int = u64
    cr4: int = u64
    kernel_gs_base: int = u64


def save_core(vm: Vm, file: str | os.PathLike[str], *, by_virtual_address: bool = False) -> None:
    """Write an ELF core dump of a machine to a new file, which replaces an old one once it is whole.

    No vCPU may be running, and none may wait for an answer. Memory is where the guest has it
    physically, which crash wants; pages of zeros are holes in the file. With
    ``by_virtual_address`` it is where the page tables of the vCPUs map it, so that gdb shows
    symbols, stacks and variables of a kernel that is not where it is linked to physically. Each
    vCPU is a thread: general registers, segments' selectors, x87 and SSE. Notes called QEMU have
    the segments and control registers, and the guest's own VMCOREINFO is added, if Linux has
    written one.

    Raises ValueError if page tables cannot be followed, OSError; the path is then as before.
    """
    loads = list(_by_virtual_address(vm) if by_virtual_address else _by_physical_address(vm))
    notes = b"".join(_notes(vm))
    with replacing(file) as descriptor:
        start = _write_headers(descriptor, loads, notes)
        vm.memory.save(descriptor, start)


_Load = tuple[int, int, int, int]
"""Virtual and physical address, size, offset in memory as it is saved."""


def _by_physical_address(vm: Vm) -> Iterator[_Load]:
    offset = 0
    for region in vm.memory.regions:
        yield region.address, region.address, region.size, offset
        offset += region.size


def _by_virtual_address(vm: Vm) -> Iterator[_Load]:
    """What each vCPU's page tables map, and that is memory; all memory if none has paging on."""
    paging = [sregs for vcpu in vm.vcpus if (sregs := vcpu.get_sregs()).cr0 >> 31]
    if not paging:
        yield from _by_physical_address(vm)
    seen: set[_Load] = set()
    for sregs in paging:
        for load in _in_memory(vm.memory, mappings(vm.memory, sregs)):
            if load not in seen:
                seen.add(load)
                yield load


def _in_memory(memory: GuestMemory, runs: Iterable[tuple[int, int, int]]) -> Iterator[_Load]:
    """The parts of these runs that are in regions of memory."""
    for linear, physical, size in runs:
        offset = 0
        for region in memory.regions:
            start = max(physical, region.address)
            end = min(physical + size, region.end)
            if start < end:
                yield linear + start - physical, start, end - start, offset + start - region.address
            offset += region.size


def _write_headers(descriptor: int, loads: Sequence[_Load], notes: bytes) -> int:
    """Write all that comes before memory, and return where that begins."""
    count = 1 + len(loads)
    many = count >= PN_XNUM
    programs_at = sizeof(elf64_hdr) + many * sizeof(elf64_shdr)
    notes_at = programs_at + count * sizeof(elf64_phdr)
    start = -(-(notes_at + len(notes)) // PAGE_SIZE) * PAGE_SIZE
    header = elf64_hdr(
        e_type=ET_CORE,
        e_machine=EM_X86_64,
        e_version=EV_CURRENT,
        e_phoff=programs_at,
        e_ehsize=sizeof(elf64_hdr),
        e_phentsize=sizeof(elf64_phdr),
        e_phnum=PN_XNUM if many else count,
    )
    header.e_ident[: len(_MAGIC)] = list(_MAGIC)
    header.e_ident[EI_CLASS] = ELFCLASS64
    header.e_ident[EI_DATA] = ELFDATA2LSB
    header.e_ident[EI_VERSION] = EV_CURRENT
    parts = [bytes(header)]
    if many:  # then the number is in the first section's header (elf(5))
        header.e_shoff, header.e_shentsize = sizeof(elf64_hdr), sizeof(elf64_shdr)
        header.e_shnum = 1
        parts = [bytes(header), bytes(elf64_shdr(sh_info=count))]
    note = elf64_phdr(p_type=PT_NOTE, p_offset=notes_at, p_filesz=len(notes), p_align=4)
    parts.append(bytes(note))
    for virtual, physical, size, offset in loads:
        load = elf64_phdr(
            p_type=PT_LOAD,
            p_flags=PF_R | PF_W | PF_X,
            p_offset=start + offset,
            p_vaddr=virtual,
            p_paddr=physical,
            p_filesz=size,
            p_memsz=size,
            p_align=0,  # crash takes it for a dump of netdump's otherwise
        )
        parts.append(bytes(load))
    parts.append(notes)
    left = memoryview(b"".join(parts))
    while left:
        left = left[os.write(descriptor, left) :]
    return start


def _notes(vm: Vm) -> Iterator[bytes]:
    qemu = []
    for vcpu in vm.vcpus:
        regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
        yield _note(b"CORE", NT_PRSTATUS, bytes(_prstatus(vcpu.index, regs, sregs)))
        fpu = bytes(vcpu.get_fpu())[:_FXSAVE_SIZE]
        yield _note(b"CORE", NT_PRFPREG, fpu.ljust(_FXSAVE_SIZE, b"\0"))
        qemu.append(_note(b"QEMU", 0, bytes(_qemu_state(vcpu, regs, sregs))))
    yield from qemu
    vmcoreinfo = find_vmcoreinfo(vm.memory)
    if vmcoreinfo is not None:
        yield _note(_VMCOREINFO, 0, vmcoreinfo)


def _note(name: bytes, kind: int, content: bytes) -> bytes:
    name += b"\0"
    header = elf64_note(n_namesz=len(name), n_descsz=len(content), n_type=kind)
    return bytes(header) + _padded(name) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _prstatus(index: int, regs: Any, sregs: Any) -> _Prstatus:
    status = _Prstatus(pid=index + 1)
    for name in (*_GENERAL, "rip", "rflags"):
        setattr(status.regs, name, getattr(regs, name))
    for name in ("cs", "ss", "ds", "es", "fs", "gs"):
        setattr(status.regs, name, getattr(sregs, name).selector)
    status.regs.fs_base, status.regs.gs_base = sregs.fs.base, sregs.gs.base
    return status


_GENERAL: Final = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp"),
    *(f"r{number}" for number in range(8, 16)),
)


def _qemu_state(vcpu: Any, regs: Any, sregs: Any) -> _QemuCpuState:
    state = _QemuCpuState(version=1, size=sizeof(_QemuCpuState))
    for name in (*_GENERAL, "rip", "rflags"):
        setattr(state, name, getattr(regs, name))
    for name in _SEGMENTS:
        segment, copy = getattr(sregs, name), getattr(state, name)
        copy.selector, copy.limit, copy.base = segment.selector, segment.limit, segment.base
        copy.flags = (
            segment.type << 8
            | segment.s << 12
            | segment.dpl << 13
            | segment.present << 15
            | segment.avl << 20
            | segment.l << 21
            | segment.db << 22
            | segment.g << 23
        )
    for name in ("gdt", "idt"):
        table, copy = getattr(sregs, name), getattr(state, name)
        copy.limit, copy.base = table.limit, table.base
    for name in ("cr0", "cr2", "cr3", "cr4"):
        setattr(state, name, getattr(sregs, name))
    state.kernel_gs_base = vcpu.get_msrs([_MSR_KERNEL_GS_BASE])[_MSR_KERNEL_GS_BASE]
    return state


def find_vmcoreinfo(memory: GuestMemory) -> bytes | None:
    """What Linux says about itself for crash: the note that it keeps at the start of a page."""
    name = _VMCOREINFO + b"\0"
    # Of the header the size of the content is not known; what begins each content is.
    begins = _padded(name) + b"OSRELEASE="
    for region in memory.regions:
        for start in range(0, region.size, _PIECE):
            piece = memory.read(region.address + start, min(_PIECE, region.size - start))
            at = piece.find(begins)
            while at >= 0:
                page = at - sizeof(elf64_note)
                if page >= 0 and page % PAGE_SIZE == 0:
                    note = elf64_note.from_buffer_copy(piece, page)
                    content = at + len(_padded(name))
                    end = content + note.n_descsz
                    if note.n_namesz == len(name) and note.n_type == 0 and end <= len(piece):
                        return piece[content:end]
                at = piece.find(begins, at + 1)
    return None
