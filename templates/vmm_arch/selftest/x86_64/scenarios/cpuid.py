"""CPUID returns the host's entries, with APIC id and topology filled in."""

from __future__ import annotations

from vmm_arch.selftest.harness import agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.cpuid import HYPERVISOR_PRESENT, CpuidEntry
from vmm_arch.x86_64.entry import RealMode

HYPERVISOR_LEAVES = range(0x4000_0000, 0x4000_0100)


def signed(supported: list[CpuidEntry]) -> list[CpuidEntry]:
    """What the hypervisor supports, under another hypervisor's name."""
    kept = [entry for entry in supported if entry.function not in HYPERVISOR_LEAVES]
    ebx, ecx, edx = (int.from_bytes(part, "little") for part in (b"Vmm-", b"arch", b"Test"))
    return [
        *kept,
        CpuidEntry(0x4000_0000, None, eax=0x4000_0001, ebx=ebx, ecx=ecx, edx=edx),
        CpuidEntry(0x4000_0001, None, eax=0x11, ebx=0x22, ecx=0x33, edx=0xFFFFFFFF),
    ]


MACHINE = Machine(RealMode(0x1000, rsp=0x8000), cpuid=signed)


def scenario(guest: Guest) -> None:
    guest.expects_out(0x10, 4, 0x4000_0001)
    guest.expects_out(0x11, 4, int.from_bytes(b"Vmm-", "little"))
    guest.expects_out(0x12, 4, int.from_bytes(b"arch", "little"))
    guest.expects_out(0x13, 4, int.from_bytes(b"Test", "little"))

    for port, value in zip(range(0x10, 0x14), (0x11, 0x22, 0x33, 0xFFFFFFFF), strict=True):
        guest.expects_out(port, 4, value)

    version = next(e.eax for e in guest.arch.supported_cpuid() if e.function == 1)
    guest.expects_out(0x10, 4, version)
    agree("the APIC id of vCPU 0", guest.sends(0x11, 4) >> 24, 0)
    agree("the hypervisor's bit", guest.sends(0x12, 4) & HYPERVISOR_PRESENT, HYPERVISOR_PRESENT)
    guest.sends(0x13, 4)
    guest.halts()
