"""x87 and SSE state as FXSAVE and XSAVE store it (Intel SDM volume 1, 10.5.1 and 13.4)."""

from __future__ import annotations

from ctypes import Array, c_uint8

from vmm_arch.abi.records import LittleStruct, u8, u16, u32, u64

XSTATE_X87 = 0x1
XSTATE_SSE = 0x2
XSTATE_TILE_DATA = 1 << 18
"""The tiles of AMX."""


class FxsaveRegisters(LittleStruct):
    """The FXSAVE area up to the last XMM register: 416 bytes.

    The abridged tag word ``ftw`` has a bit for each register that is not empty. An x87 register in
    ``st`` uses 10 of its 16 bytes.
    """

    fcw: int = u16
    fsw: int = u16
    ftw: int = u8
    _pad_0: int = u8
    fop: int = u16
    fip: int = u64
    fdp: int = u64
    mxcsr: int = u32
    mxcsr_mask: int = u32
    st: Array[Array[c_uint8]] = u8 * 16 * 8
    xmm: Array[Array[c_uint8]] = u8 * 16 * 16


class XsaveArea(FxsaveRegisters):
    """4,096 bytes: the FXSAVE area, the XSAVE header and the extended state, in standard format.

    A component whose bit in ``xstate_bv`` is clear is in its initial state, whatever the area
    contains. A new area has the bits of x87 and SSE set.
    """

    _pad_1: Array[c_uint8] = u8 * 96
    xstate_bv: int = u64
    xcomp_bv: int = u64
    _pad_2: Array[c_uint8] = u8 * 48
    extended: Array[c_uint8] = u8 * (4096 - 576)

    def __init__(self, *, xstate_bv: int = XSTATE_X87 | XSTATE_SSE, **fields: int) -> None:
        super().__init__(xstate_bv=xstate_bv, **fields)
