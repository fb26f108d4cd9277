"""translate() uses the page tables that the guest has made."""

from __future__ import annotations

from vmm_arch.selftest.harness import agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000))


def scenario(guest: Guest) -> None:
    translate = guest.vcpu.translate
    agree("an address in memory", translate(0x12345), 0x12345)
    agree("the last mapped address", translate(0xFFFF_FFFF), 0xFFFF_FFFF)
    agree("the first address that is not mapped", translate(0x1_0000_0000), None)
    agree("an address in the second GiB", translate(0x4000_0123), 0x4000_0123)

    guest.expects_out(0x10, 4, 0xCAFEF00D)
    guest.halts()

    agree("an address in the second GiB", translate(0x4000_0123), 0x10_0123)
    agree("an address after the new page", translate(0x4000_1000), None)
    agree("an address in memory", translate(0x12345), 0x12345)
    guest.has_memory(0x10_0123, bytes.fromhex("0d f0 fe ca"))
