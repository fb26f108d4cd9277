"""Instructions that every operating system needs, and that some hypervisors cannot execute.

A hypervisor without hardware virtualization emulates each instruction, and implements only some of
them. Small guests run there; a kernel crashes in the middle of its boot.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Any, NamedTuple

from vmm_arch.errors import HypervisorError
from vmm_arch.protocols.x86_64 import AnyVcpu, Backend
from vmm_arch.x86_64.entry import Long64
from vmm_arch.x86_64.tables import CODE_SELECTOR

_CX16, _POPCNT, _XSAVE = 1 << 13, 1 << 23, 1 << 26
_ALWAYS = 0


class Instruction(NamedTuple):
    """An instruction and its test guest, which executes it and sends 42 to port 0x10."""

    name: str
    feature: int
    """The bit in ECX of CPUID leaf 1 without which no operating system uses the instruction."""
    assembly: str
    code: str


_IDTR, _IDT = 0x3000, 0x4000
_CODE, _HANDLER = 0x1000, 0x1100
_STACK = 0x8000
_ANSWER = b"\xb0\x2a\xe6\x10"  # mov al, 42; out 0x10, al

INSTRUCTIONS = (
    Instruction(
        "cmpxchg16b",
        _CX16,
        "mov esi, 0x2000; xor eax, eax; xor edx, edx; mov ebx, 42; xor ecx, ecx;"
        " lock cmpxchg16b [rsi]; mov al, [rsi]; out 0x10, al",
        "be00200000 31c0 31d2 bb2a000000 31c9 f0480fc70e 8a06 e610",
    ),
    Instruction("int3", _ALWAYS, "lidt [0x3000]; int3", "0f011c2500300000 cc"),
    Instruction(
        "popcnt",
        _POPCNT,
        "movabs rax, 0x3ffffffffff; popcnt rax, rax; out 0x10, al",
        "48b8ffffffffff030000 f3480fb8c0 e610",
    ),
    Instruction(
        "paddd",
        _ALWAYS,
        "mov rax, cr4; or eax, 0x200; mov cr4, rax; mov eax, 21; movd xmm0, eax;"
        " paddd xmm0, xmm0; movd eax, xmm0; out 0x10, al",
        "0f20e0 0d00020000 0f22e0 b815000000 660f6ec0 660ffec0 660f7ec0 e610",
    ),
    Instruction(
        "xrstor",
        _XSAVE,
        "mov rax, cr4; or eax, 0x40200; mov cr4, rax; xor ecx, ecx; xor edx, edx; mov eax, 3;"
        " xsetbv; xrstor [0x2000]; mov al, 42; out 0x10, al",
        "0f20e0 0d00020400 0f22e0 31c9 31d2 b803000000 0f01d1 0fae2c2500200000 b02a e610",
    ),
)


def missing_instructions(backend: Backend[AnyVcpu]) -> tuple[str, ...]:
    """The instructions that this hypervisor cannot execute although its CPUID has them; cached.

    Each is tried by a guest of its own. Raises HypervisorError if no guest can be created.
    """
    module: Any = backend
    return _missing_instructions(module, tuple(INSTRUCTIONS))


@cache
def _missing_instructions(backend: Any, tried: tuple[Instruction, ...]) -> tuple[str, ...]:
    leaf_1 = (one.ecx for one in backend.supported_cpuid() if one.function == 1)
    features = next(leaf_1, 0)
    wanted = (one for one in tried if one.feature & features == one.feature)
    return tuple(one.name for one in wanted if not _executes(backend, bytes.fromhex(one.code)))


def _executes(backend: Backend[AnyVcpu], code: bytes) -> bool:
    gate = struct.pack("<HHHHQ", _HANDLER, CODE_SELECTOR, 0x8E00, 0, 0)  # interrupts stay off
    with backend.GuestMemory(0x10000) as memory, backend.Vm(memory) as vm:
        memory.write(_CODE, code)
        memory.write(_HANDLER, _ANSWER)
        memory.write(_IDTR, struct.pack("<HQ", 16 * 4 - 1, _IDT))
        memory.write(_IDT + 16 * 3, gate)
        entry = Long64(_CODE, rsp=_STACK)
        backend.configure_system(vm, entry)
        backend.configure_vcpu(vm.vcpus[0], entry)
        try:
            exit = vm.vcpus[0].run()
        except HypervisorError:
            return False
    return repr(exit) == "IoOut(port=0x10, data=b'*', size=1)"
