"""A vCPU that is reset is like a new one: nothing of the last guest is visible to the next."""

from __future__ import annotations

import struct

from vmm_arch.selftest.harness import agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64
from vmm_arch.x86_64.tables import GDT_LIMIT

ENTRY = Long64(0x10000, rsp=0x8000, rbx=0x1111, rsi=0x2222)
MACHINE = Machine(ENTRY)

FOUND = 0x3000
"""Where the guest stores the state that it sees."""
PARTS = {
    "RAX to RDX": range(0x20),
    "RSI to RBP": range(0x20, 0x40),
    "R8 to R15": range(0x40, 0x80),
    "CS, DS, ES, FS, GS, SS, TR, LDT": range(0x80, 0x90),
    "GDTR": range(0xA0, 0xAA),
    "IDTR": range(0xB0, 0xBA),
    "RFLAGS": range(0xC0, 0xC8),
    "CR0": range(0x100, 0x108),
    "CR2": range(0x108, 0x110),
    "CR3": range(0x110, 0x118),
    "CR4": range(0x118, 0x120),
    "CR8": range(0x120, 0x128),
    "DR0 to DR3": range(0x128, 0x148),
    "DR6": range(0x148, 0x150),
    "DR7": range(0x150, 0x158),
    "EFER": range(0x180, 0x188),
    "STAR, LSTAR, CSTAR, FMASK": range(0x188, 0x1A8),
    "bases of FS and GS": range(0x1A8, 0x1C0),
    "SYSENTER": range(0x1C0, 0x1D8),
    "PAT": range(0x1D8, 0x1E0),
    "the size of XSAVE's area": range(0x1E0, 0x1E8),
    "x87 control, status, tags": range(0x200, 0x206),
    "x87 pointers": range(0x206, 0x218),
    "MXCSR": range(0x218, 0x21C),
    "x87 registers": range(0x220, 0x2A0),
    "XMM registers": range(0x2A0, 0x3A0),
}

# The values of the contract and the entry, in bytes; all others are 0.
NEW = {
    "RAX to RDX": struct.pack("<4Q", 0, 0x1111, 0, 0),
    "RSI to RBP": struct.pack("<4Q", 0x2222, 0, 0x8000, 0x8000),
    "CS, DS, ES, FS, GS, SS, TR, LDT": struct.pack("<8H", 0x10, *[0x18] * 5, 0x20, 0),
    "GDTR": struct.pack("<HQ", GDT_LIMIT, ENTRY.gdt),
    "RFLAGS": struct.pack("<Q", 0x2),
    "CR0": struct.pack("<Q", 0x80000033),
    "CR3": struct.pack("<Q", 0x9000),
    "CR4": struct.pack("<Q", 0x20),
    "DR6": struct.pack("<Q", 0xFFFF0FF0),
    "DR7": struct.pack("<Q", 0x400),
    "EFER": struct.pack("<Q", 0x500),
    "PAT": struct.pack("<Q", 0x0007040600070406),
    "the size of XSAVE's area": struct.pack("<Q", 576),
    "x87 control, status, tags": struct.pack("<HHH", 0x37F, 0, 0),
    "MXCSR": struct.pack("<I", 0x1F80),
}


def scenario(guest: Guest) -> None:
    for life in ("new", "after a reset", "after another reset"):
        guest.memory.write(FOUND, bytes(0x1000))
        guest.halts()
        guest.has_registers(r15=0xEEEEEEEEEEEEEEEE)  # the guest has changed everything
        for part, where in PARTS.items():
            found = guest.memory.read(FOUND + where.start, len(where))
            agree(f"{part}, {life}", found, NEW.get(part, bytes(len(where))))
        guest.restart()
