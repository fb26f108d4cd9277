"""The guest sees all general registers that the host sets, and the host those that the guest sets."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000))

NAMES = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)
GIVEN = {name: 0x1111111111111111 * (i % 15 + 1) ^ i << 8 for i, name in enumerate(NAMES)}
"""All different, with upper halves that are not zero."""

CARRY = 0x1
ALWAYS_ONE = 0x2
DIRECTION = 0x400


def scenario(guest: Guest) -> None:
    guest.has_registers(**dict.fromkeys(NAMES, 0), rip=0x10000, rflags=ALWAYS_ONE)

    regs = guest.vcpu.get_regs()
    for name, value in GIVEN.items():
        setattr(regs, name, value)
    regs.rflags = ALWAYS_ONE | CARRY
    guest.vcpu.set_regs(regs)
    guest.has_registers(**GIVEN, rip=0x10000, rflags=ALWAYS_ONE | CARRY)

    guest.halts()

    def changed(name: str, by: int) -> int:
        return (GIVEN[name] + by) % 2**64

    guest.has_registers(
        rax=GIVEN["rax"] & ~0xFF | 1,
        rbx=changed("rcx", 1),
        rcx=changed("rbx", 2),
        rdx=changed("rsi", 3),
        rsi=changed("rdx", 4),
        rdi=changed("rbp", 5),
        rbp=changed("rdi", 6),
        rsp=changed("rsp", 7),
        r8=changed("r15", 8),
        r9=changed("r14", 9),
        r10=changed("r13", 10),
        r11=changed("r12", 11),
        r12=changed("r11", 12),
        r13=changed("r10", 13),
        r14=changed("r9", 14),
        r15=changed("r8", 15),
        rip=0x10000 + len(guest.code),
        rflags=ALWAYS_ONE | DIRECTION,
    )
