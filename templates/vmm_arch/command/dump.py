"""What a vCPU was doing when its guest ended badly, as text."""

from __future__ import annotations

from typing import Any

from vmm_arch.errors import HypervisorError, VcpuError
from vmm_arch.memory import GuestMemory, MemoryAccessError
from vmm_arch.protocols.x86_64 import AnyVcpu

_GENERAL = (
    ("rax", "rbx", "rcx", "rdx"),
    ("rsi", "rdi", "rbp", "rsp"),
    ("r8", "r9", "r10", "r11"),
    ("r12", "r13", "r14", "r15"),
    ("rip", "rflags"),
)
_CONTROL = (("cr0", "cr2", "cr3", "cr4"), ("cr8", "efer", "apic_base"))
_SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs", "tr", "ldt")
_BYTES = 16


def dump(vcpu: AnyVcpu, memory: GuestMemory) -> str:
    """Describe registers and the next instruction's bytes; say so where they cannot be read."""
    try:
        regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
    except (HypervisorError, VcpuError) as error:
        return f"vCPU {vcpu.index}: no registers: {error}"
    lines = [f"vCPU {vcpu.index}:"]
    lines += [_row(regs, names) for names in _GENERAL]
    lines += [_row(sregs, names) for names in _CONTROL]
    for name in _SEGMENTS:
        segment = getattr(sregs, name)
        lines.append(
            f"  {name:3} {segment.selector:04x} base {segment.base:016x} limit {segment.limit:08x}"
            f" type {segment.type:x} dpl {segment.dpl} {'l' if segment.l else 'db'}"
            f" {segment.l or segment.db}"
        )
    lines.append(f"  at rip: {_code(vcpu, memory, sregs.cs.base * (not sregs.cs.l) + regs.rip)}")
    return "\n".join(lines)


def _row(record: Any, names: tuple[str, ...]) -> str:
    return "  " + "  ".join(f"{name:>9} {getattr(record, name):016x}" for name in names)


def _code(vcpu: AnyVcpu, memory: GuestMemory, address: int) -> str:
    try:
        physical = vcpu.translate(address)
        if physical is None:
            return f"{address:#x} is not mapped"
        return memory.read(physical, _BYTES - physical % _BYTES or _BYTES).hex(" ")
    except (HypervisorError, MemoryAccessError) as error:
        return str(error)
