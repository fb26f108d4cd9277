"""Memory whose pages are made when they are first used, through the generated userfaultfd ABI."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import select
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from requirements import require

PAGE = mmap.PAGESIZE
_LIBC = ctypes.CDLL(None, use_errno=True)
"""Whose functions run without the GIL, so that another thread can make the page that they wait for."""


def device_abi() -> Any:
    """``vmm_arch.abi.devices_x86_64``, or another CPU's."""
    cpu = platform.machine()
    require(sys.platform == "linux", "not Linux: there is no userfaultfd and no tun")
    require(cpu in ("x86_64", "aarch64", "riscv64"), f"there is no devices_{cpu}")
    return import_module(f"vmm_arch.abi.devices_{cpu}")


@contextmanager
def faults_of_the_kernel() -> Iterator[int]:
    """A userfaultfd for faults that the kernel has as well: KVM, or a system call."""
    require(os.access("/dev/userfaultfd", os.R_OK | os.W_OK), "no access to /dev/userfaultfd")
    device = os.open("/dev/userfaultfd", os.O_RDWR | os.O_CLOEXEC)
    try:
        request = device_abi().USERFAULTFD_IOC_NEW
        descriptor = fcntl.ioctl(device, request, os.O_CLOEXEC | os.O_NONBLOCK)
    finally:
        os.close(device)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def faults_of_the_process() -> Iterator[int]:
    """A userfaultfd for faults in user mode, for which no privilege is needed."""
    abi = device_abi()
    number = import_module(f"vmm_arch.abi.sandbox_{platform.machine()}").__NR_userfaultfd
    flags = os.O_CLOEXEC | os.O_NONBLOCK | abi.UFFD_USER_MODE_ONLY
    descriptor = _LIBC.syscall(number, flags)
    require(descriptor >= 0, f"no userfaultfd: {os.strerror(ctypes.get_errno())}")
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class LazyMemory:
    """Whole pages at an address that nobody has used yet."""

    def __init__(self, descriptor: int, address: int, pages: int) -> None:
        self.abi = abi = device_abi()
        self.address = address
        self.faults: list[int] = []
        """The pages that were asked for, in that order."""
        self._fd = descriptor
        api = abi.uffdio_api(api=abi.UFFD_API)
        fcntl.ioctl(descriptor, abi.UFFDIO_API, api)
        self._range = abi.uffdio_range(start=address, len=pages * PAGE)
        register = abi.uffdio_register(range=self._range, mode=abi.UFFDIO_REGISTER_MODE_MISSING)
        fcntl.ioctl(descriptor, abi.UFFDIO_REGISTER, register)
        offered = [abi._UFFDIO_COPY, abi._UFFDIO_ZEROPAGE, abi._UFFDIO_WAKE]
        assert all(register.ioctls >> number & 1 for number in offered)

    def serve(self, contents: Mapping[int, bytes]) -> None:
        """Make one page for each fault until all that have contents are made; others are zero."""
        wanted = set(contents)
        while wanted:
            assert select.select([self._fd], [], [], 30)[0], "no page was asked for"
            message = self.abi.uffd_msg.from_buffer_copy(
                os.read(self._fd, ctypes.sizeof(self.abi.uffd_msg))
            )
            assert message.event == self.abi.UFFD_EVENT_PAGEFAULT
            page = (message.arg.pagefault.address - self.address) // PAGE
            self.faults.append(page)
            self._make(page, contents.get(page))
            wanted.discard(page)

    def _make(self, page: int, contents: bytes | None) -> None:
        start = self.address + page * PAGE
        if contents is None:
            zero = self.abi.uffdio_zeropage()
            zero.range.start, zero.range.len = start, PAGE
            fcntl.ioctl(self._fd, self.abi.UFFDIO_ZEROPAGE, zero)
            assert zero.zeropage == PAGE
        else:
            source = ctypes.create_string_buffer(contents, PAGE)
            copy = self.abi.uffdio_copy(dst=start, src=ctypes.addressof(source), len=PAGE)
            fcntl.ioctl(self._fd, self.abi.UFFDIO_COPY, copy)
            assert copy.copy == PAGE

    def read(self, page: int) -> bytes:
        """What a page holds; waits for it to be made."""
        held = ctypes.create_string_buffer(PAGE)
        _LIBC.memcpy(held, ctypes.c_void_p(self.address + page * PAGE), ctypes.c_size_t(PAGE))
        return held.raw

    def unregister(self) -> None:
        """Let the kernel make the pages that are still missing, as in other memory."""
        fcntl.ioctl(self._fd, self.abi.UFFDIO_UNREGISTER, self._range)
