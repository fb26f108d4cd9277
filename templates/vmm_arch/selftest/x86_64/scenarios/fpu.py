"""x87 and SSE state as the guest itself sees it, which may differ from what a hypervisor reports."""

from __future__ import annotations

from vmm_arch.selftest.harness import agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000, rsp=0x8000))

VALUE = bytes.fromhex("01 02 03 04 11 12 13 14 21 22 23 24 31 32 33 34")
PI = bytes.fromhex("35 c2 68 21 a2 da 0f c9 00 40")
"""In x87 format."""


def scenario(guest: Guest) -> None:
    guest.expects_out(0x10, 2, 0x37F)
    guest.expects_out(0x11, 4, 0x1F80)
    guest.expects_outs(0x12, 4, bytes(16))

    fpu = guest.vcpu.get_fpu()
    agree("FCW", fpu.fcw, 0x37F)
    agree("MXCSR", fpu.mxcsr, 0x1F80)
    fpu.fcw = 0x27F  # double precision
    fpu.mxcsr = 0x9F80  # denormals flushed to zero
    fpu.xmm[1][:] = VALUE
    guest.vcpu.set_fpu(fpu)

    guest.expects_out(0x10, 2, 0x27F)
    guest.expects_out(0x11, 4, 0x9F80)
    guest.expects_outs(0x12, 4, VALUE)
    guest.halts()

    fpu = guest.vcpu.get_fpu()
    agree("FCW", fpu.fcw, 0xF7F)
    agree("MXCSR", fpu.mxcsr, 0x5F80)
    agree("XMM1", bytes(fpu.xmm[1]), bytes(16))
    agree("XMM15", bytes(fpu.xmm[15]), b"\xa5" * 16)
    agree("ST0", bytes(fpu.st[0])[:10], PI)
    agree("the x87 stack's top", fpu.fsw >> 11 & 7, 7)
    agree("the abridged tag word", fpu.ftw, 0x80)
