"""The numbers and records of userfaultfd, which neutral code has of its own, are every CPU's."""

from __future__ import annotations

import ctypes
from importlib import import_module

import pytest
from vmm_arch import userfaultfd as ours


@pytest.mark.parametrize("cpu", ["x86_64", "aarch64", "riscv64"])
def test_they_are_those_of_the_facts(cpu: str) -> None:
    abi = import_module(f"vmm_arch.abi.devices_{cpu}")
    found = {
        "USERFAULTFD_IOC_NEW": ours.NEW,
        "UFFD_API": ours.API,
        "UFFDIO_API": ours.START,
        "UFFDIO_REGISTER": ours.REGISTER,
        "UFFDIO_UNREGISTER": ours.UNREGISTER,
        "UFFDIO_WAKE": ours.WAKE,
        "UFFDIO_COPY": ours.COPY,
        "UFFDIO_ZEROPAGE": ours.ZERO_PAGE,
        "UFFDIO_REGISTER_MODE_MISSING": ours.MODE_MISSING,
        "UFFD_EVENT_PAGEFAULT": ours.EVENT_PAGE_FAULT,
    }
    assert found == {name: getattr(abi, name) for name in found}


@pytest.mark.parametrize("cpu", ["x86_64", "aarch64", "riscv64"])
def test_the_records_are_laid_out_alike(cpu: str) -> None:
    abi = import_module(f"vmm_arch.abi.devices_{cpu}")
    register = abi.uffdio_register.from_buffer_copy(ours.REGISTER_RECORD.pack(1, 2, 3, 4))
    assert (register.range.start, register.range.len, register.mode, register.ioctls) == (
        1,
        2,
        3,
        4,
    )
    copy = abi.uffdio_copy.from_buffer_copy(ours.COPY_RECORD.pack(1, 2, 3, 4, -5))
    assert (copy.dst, copy.src, copy.len, copy.mode, copy.copy) == (1, 2, 3, 4, -5)
    zero = abi.uffdio_zeropage.from_buffer_copy(ours.ZERO_RECORD.pack(1, 2, 3, -4))
    assert (zero.range.start, zero.range.len, zero.mode, zero.zeropage) == (1, 2, 3, -4)
    start = abi.uffdio_api.from_buffer_copy(ours.START_RECORD.pack(1, 2, 3))
    assert (start.api, start.features, start.ioctls) == (1, 2, 3)
    message = abi.uffd_msg(event=0x12)
    message.arg.pagefault.flags, message.arg.pagefault.address = 7, 0x1234_5000
    assert ours.MESSAGE.unpack(bytes(message)) == (0x12, 7, 0x1234_5000)
    for ours_, theirs in (
        (ours.RANGE, abi.uffdio_range),
        (ours.REGISTER_RECORD, abi.uffdio_register),
        (ours.COPY_RECORD, abi.uffdio_copy),
        (ours.ZERO_RECORD, abi.uffdio_zeropage),
        (ours.START_RECORD, abi.uffdio_api),
        (ours.MESSAGE, abi.uffd_msg),
    ):
        assert ours_.size == ctypes.sizeof(theirs)
