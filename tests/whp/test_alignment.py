"""Where this Python puts the records that C aligns to more than 8 bytes."""

from __future__ import annotations

import ctypes
from typing import Any

import abi_check
import pytest
from vmm_arch.abi import whp_x86_64 as abi
from vmm_arch.whp.x86_64.registers import Fpu, RegisterImage, Regs, Sregs

from whp.library import Partition, hresult

ALIGNED = {name: kind for name, kind in vars(abi).items() if getattr(kind, "_aligned_", 0) > 8}


@pytest.mark.parametrize("name", ALIGNED)
def test_raw_records(name: str) -> None:
    kind: Any = ALIGNED[name]
    abi_check.check_addresses(kind, kind._aligned_)


def test_registers_of_the_backend() -> None:
    image = RegisterImage({abi.WHvX64RegisterRax: 1})
    buffers: list[Any] = [make() for make in (Regs, Sregs, Fpu) for _ in range(50)]
    buffers += [RegisterImage({abi.WHvX64RegisterRax: n}).values for n in range(50)]
    buffers += [RegisterImage.from_buffer_copy(image).values for _ in range(50)]
    assert not any(ctypes.addressof(buffer) % 16 for buffer in buffers)


def test_misplaced_values_are_an_access_violation() -> None:
    """Which ends the process there: here it is an HRESULT."""
    room = (abi.WHV_REGISTER_VALUE * 2)()
    names = (ctypes.c_int32 * 1)(abi.WHvX64RegisterRax)
    misplaced = ctypes.addressof(room) + 8
    with Partition() as partition:
        for name in ("WHvGetVirtualProcessorRegisters", "WHvSetVirtualProcessorRegisters"):
            assert hresult(name, partition.handle, 0, names, 1, misplaced) == 0xC0000005
        run = "WHvRunVirtualProcessor", partition.handle, 0
        assert hresult(*run, misplaced, 224) == 0xC0000005
