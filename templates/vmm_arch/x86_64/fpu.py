"""The XSAVE area, as XSAVE stores it in its standard format (Intel SDM volume 1, 13.4)."""

from __future__ import annotations

from ctypes import Array, LittleEndianStructure, c_uint8, c_uint16, c_uint32, c_uint64

XSTATE_X87 = 0x1
XSTATE_SSE = 0x2


class XsaveArea(LittleEndianStructure):
    """4,096 bytes: the FXSAVE area, the XSAVE header and the extended state.

    A component is only what the area says if its bit in ``xstate_bv`` is set; otherwise it is in
    its initial state. A new area has the bits of x87 and SSE.
    """

    __slots__ = ()
    fcw: int
    fsw: int
    ftw: int
    """The abridged tag word: a bit for each register that is not empty."""
    fop: int
    fip: int
    fdp: int
    mxcsr: int
    mxcsr_mask: int
    st: Array[Array[c_uint8]]
    """The x87 registers, 10 bytes of each 16 in use."""
    xmm: Array[Array[c_uint8]]
    xstate_bv: int
    xcomp_bv: int
    extended: Array[c_uint8]
    _fields_ = [
        ("fcw", c_uint16),
        ("fsw", c_uint16),
        ("ftw", c_uint8),
        ("_reserved_0", c_uint8),
        ("fop", c_uint16),
        ("fip", c_uint64),
        ("fdp", c_uint64),
        ("mxcsr", c_uint32),
        ("mxcsr_mask", c_uint32),
        ("st", c_uint8 * 16 * 8),
        ("xmm", c_uint8 * 16 * 16),
        ("_reserved_1", c_uint8 * 96),
        ("xstate_bv", c_uint64),
        ("xcomp_bv", c_uint64),
        ("_reserved_2", c_uint8 * 48),
        ("extended", c_uint8 * (4096 - 576)),
    ]

    def __init__(self, *, xstate_bv: int = XSTATE_X87 | XSTATE_SSE, **fields: int) -> None:
        super().__init__(xstate_bv=xstate_bv, **fields)
