"""Linux's userfaultfd: a range of memory whose missing pages this process makes itself.

Its records and numbers are the same on every CPU, and stand here since importing a CPU's raw ABI
would take longer than everything else; a test compares them with those of each CPU. Source:
``linux/userfaultfd.h``, and Documentation/admin-guide/mm/userfaultfd.rst. Sizes are in bytes.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import sys
from collections.abc import Iterator
from importlib import import_module
from struct import Struct
from typing import Final

API: Final = 0xAA
NEW: Final = 0xAA00
"""The request to /dev/userfaultfd; the others are to what it returns."""
START: Final = 0xC018AA3F
REGISTER: Final = 0xC020AA00
UNREGISTER: Final = 0x8010AA01
WAKE: Final = 0x8010AA02
COPY: Final = 0xC028AA03
ZERO_PAGE: Final = 0xC020AA04
MODE_MISSING: Final = 1
EVENT_PAGE_FAULT: Final = 0x12

START_RECORD: Final = Struct("=QQQ")
"""uffdio_api: the version of the API, features, ioctls."""
RANGE: Final = Struct("=QQ")
"""uffdio_range: address, size."""
REGISTER_RECORD: Final = Struct("=QQQQ")
"""uffdio_register: a range, mode, ioctls."""
COPY_RECORD: Final = Struct("=QQQQq")
"""uffdio_copy: to, from, size, mode; how much was copied, or a negative errno."""
ZERO_RECORD: Final = Struct("=QQQq")
"""uffdio_zeropage: a range, mode; how much was made, or a negative errno."""
MESSAGE: Final = Struct("=B7xQQ8x")
"""uffd_msg of a page fault: the event, flags, address."""

_DEVICE: Final = "/dev/userfaultfd"
_MESSAGES: Final = 64
_PAGE: Final = mmap.PAGESIZE


class UserfaultfdUnavailableError(OSError):
    """This process may not make the pages of its memory itself; the message says what to do."""


class PageFaults:
    """The page faults of a range of this process's memory, of which no page may exist yet.

    Whoever touches a missing page waits for ``copy`` or ``zero``, the kernel and a guest included. In
    Python that must not be a thread that holds the GIL. Raises UserfaultfdUnavailableError.
    """

    def __init__(self, address: int, size: int) -> None:
        """Take a range of whole pages of the system."""
        self.descriptor = _open()
        self._range = RANGE.pack(address, size)
        try:
            self._call(START, bytearray(START_RECORD.pack(API, 0, 0)))
            self._call(REGISTER, bytearray(REGISTER_RECORD.pack(address, size, MODE_MISSING, 0)))
        except BaseException:
            os.close(self.descriptor)
            raise

    def take(self) -> Iterator[int]:
        """Yield the addresses that somebody waits for, if there are any."""
        try:
            messages = os.read(self.descriptor, _MESSAGES * MESSAGE.size)
        except BlockingIOError:
            return
        for event, _, address in MESSAGE.iter_unpack(messages):
            if event == EVENT_PAGE_FAULT:
                yield address

    def copy(self, address: int, content: bytes) -> None:
        """Make whole pages with this content, and wake who waits for them; those that exist stay."""
        source = ctypes.cast(ctypes.c_char_p(content), ctypes.c_void_p).value or 0
        done, size = 0, len(content)
        while done < size:
            record = bytearray(COPY_RECORD.pack(address + done, source + done, size - done, 0, 0))
            done += self._make(COPY, record, COPY_RECORD, address + done)

    def zero(self, address: int, size: int) -> None:
        """Make whole pages of zeros, which cost nothing, likewise."""
        done = 0
        while done < size:
            record = bytearray(ZERO_RECORD.pack(address + done, size - done, 0, 0))
            done += self._make(ZERO_PAGE, record, ZERO_RECORD, address + done)

    def wake(self, address: int, size: int) -> None:
        """Wake who waits for pages that exist by now."""
        self._call(WAKE, bytearray(RANGE.pack(address, size)))

    def close(self, *, is_mapped: bool) -> None:
        """Leave the pages that are still missing to the kernel: zeros, as in other memory."""
        try:
            if is_mapped:  # a forked child may keep the descriptor open
                self._call(UNREGISTER, bytearray(self._range))
        finally:
            os.close(self.descriptor)

    def _make(self, request: int, record: bytearray, layout: Struct, address: int) -> int:
        """Make some pages; return how many bytes are there now from the first one on."""
        try:
            self._call(request, record)
        except OSError as error:
            if error.errno == errno.EEXIST:
                self.wake(address, _PAGE)
                return _PAGE
            if error.errno != errno.EAGAIN:  # another thread changes the address space
                raise
        done: int = layout.unpack(record)[-1]
        return max(0, done)

    def _call(self, request: int, record: bytearray) -> None:
        from fcntl import ioctl  # this module is imported where there is none

        ioctl(self.descriptor, request, record, True)


def _open() -> int:
    if sys.platform != "linux":
        problem = f"page_source: userfaultfd is part of Linux; this is {sys.platform}"
        raise UserfaultfdUnavailableError(errno.ENOSYS, problem)
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return _from_device(flags)
    except (FileNotFoundError, PermissionError):
        return _from_call(flags)


def _from_device(flags: int) -> int:
    from fcntl import ioctl

    device = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        descriptor: int = ioctl(device, NEW, flags)
        return descriptor
    finally:
        os.close(device)


def _from_call(flags: int) -> int:
    """The older way: the device is there since Linux 6.1."""
    try:
        calls = import_module(f"vmm_arch.abi.sandbox_{platform.machine()}")
    except ModuleNotFoundError:
        raise _unavailable(errno.EACCES) from None
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.syscall(calls.__NR_userfaultfd, flags)
    if descriptor < 0:
        raise _unavailable(ctypes.get_errno())
    return descriptor


def _unavailable(number: int) -> UserfaultfdUnavailableError:
    problem = f"page_source: userfaultfd: {errno.errorcode.get(number, number)}: "
    if number == errno.ENOSYS:
        problem += "this kernel was built without it; use GuestMemory(..., file=...) instead"
    else:
        problem += (
            f"this process may not make pages for the kernel: give it access to {_DEVICE} (setfacl -m"
            f" u:USER:rw {_DEVICE}; Linux 6.1), or the capability CAP_SYS_PTRACE, or as root set"
            " sysctl vm.unprivileged_userfaultfd=1"
        )
    return UserfaultfdUnavailableError(number, problem)
