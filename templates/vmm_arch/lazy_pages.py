"""Pages of guest memory that a callable fills when somebody first uses them.

A guest, or the kernel for it, waits for a missing page; a thread asks the source for it. The host's
own accesses, through :class:`~vmm_arch.memory.GuestMemory`, fill what they need before: a thread
that holds the GIL must never wait for another one. Offsets and sizes are in bytes; an offset is from
the beginning of guest memory, as ``GuestMemory.save`` writes it.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import WeakSet

from vmm_arch.errors import ForkedError, VcpuError
from vmm_arch.forks import ForkLock, forks
from vmm_arch.userfaultfd import PageFaults

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PageSource: TypeAlias = "Callable[[int, int], ReadableBuffer]"
"""Given an offset and a size, returns so many bytes of guest memory."""
READ_AHEAD: Final = 0x1_0000
"""How much is asked for at once, if nothing of it is there yet."""
_PAGE: Final = mmap.PAGESIZE


class PageSourceError(OSError):
    """A guest's memory cannot be filled: its source raised an error, which is the cause of this one."""


class LazyPages:
    """All pages of a new anonymous mapping, none of which was touched.

    When the source raises an error for a guest's page, the guest does not go on: its page is zeros,
    but before it sees them its vCPUs are kicked, and from then on every run() and every access raises
    PageSourceError. An error while the host needs a page is raised there, and changes nothing.
    """

    def __init__(self, address: int, size: int, source: PageSource) -> None:
        """Begin to serve page faults. Raises UserfaultfdUnavailableError."""
        self._address = address
        self._size = size
        self._source = source
        self._present = bytearray(-(-size // _PAGE))
        """For each page 1 if it is there; as long as none is, that costs no memory."""
        self._lock = ForkLock()
        self._failure: tuple[int, BaseException] | None = None
        self._machines: WeakSet[Any] = WeakSet()
        self._forks = forks()
        self._closed = self._unmapped = self._released_here = False
        self._faults = PageFaults(address, len(self._present) * _PAGE)
        try:
            self._told, self._tell = os.pipe()
        except BaseException:
            self._faults.close(is_mapped=True)
            raise
        self._thread = threading.Thread(target=self._serve, name="page source", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._release()
            raise

    def add_machine(self, machine: Any) -> None:
        """Kick the vCPUs of this machine, too, when the source fails."""
        self._machines.add(machine)

    @property
    def missing(self) -> int:
        """How many bytes are not there yet."""
        with self._lock:  # a guest may run on before its pages are counted
            return self._present.count(0) * _PAGE

    def fill(self, offset: int, size: int) -> None:
        """Fill what is missing of a range; raises what the source raises, or PageSourceError."""
        end = offset + size
        page, last = offset // _PAGE, -(-end // _PAGE)
        if self._failure is None and self._present.find(0, page, last) < 0:
            return
        if self._forks != forks():
            cause = (
                "this is a forked child, and the pages that are missing are its parent's to fill"
            )
            raise ForkedError("page_source", "EIO", cause, errno.EIO)
        with self._lock:
            self.check()
            while not self._closed and (page := self._present.find(0, page, last)) >= 0:
                page = self._fill_around(page)

    def check(self) -> None:
        """Raise PageSourceError if the source failed before."""
        if self._failure is not None:
            offset, error = self._failure
            raise PageSourceError(
                errno.EIO,
                f"page_source: guest memory at offset {offset:#x} cannot be filled:"
                f" {type(error).__name__}: {error}; close the machine and make another one",
            ) from error

    def close(self, unmap: Callable[[], object] | None = None) -> None:
        """Ask no more: pages that are missing are zeros from now on. May be called again.

        With ``unmap`` the mapping goes first; what that raises leaves everything as it is.
        """
        with self._lock:  # nothing may be filled where other memory may come to lie
            if unmap is not None:
                unmap()
                self._unmapped = True
            if self._closed:
                return
            self._closed = True
        if self._forks != forks():
            self._unmapped = True  # the parent's memory is none of ours
            self._release()
            return
        os.write(self._tell, b"\0")
        if threading.current_thread() is self._thread:  # closed by the source
            self._released_here = True
        else:
            self._thread.join()
            self._release()

    def _release(self) -> None:
        self._faults.close(is_mapped=not self._unmapped)
        os.close(self._told)
        os.close(self._tell)

    def _serve(self) -> None:
        """Fill what others wait for, until it is closed."""
        waiting = select.poll()
        waiting.register(self._faults.descriptor, select.POLLIN)
        waiting.register(self._told, select.POLLIN)
        while not self._closed:
            waiting.poll()
            for address in self._faults.take():
                if self._closed:
                    break
                self._answer((address - self._address) // _PAGE)
        if self._released_here:
            self._release()

    def _answer(self, page: int) -> None:
        """Fill a page that somebody waits for, whatever happens."""
        at = self._address + page * _PAGE
        with self._lock:
            if self._present[page]:  # by now
                self._faults.wake(at, _PAGE)
                return
            if self._failure is None and not self._closed:
                try:
                    self._fill_around(page)
                    return
                except BaseException as error:
                    self._failure = page * _PAGE, error
            # The kick comes first: it keeps the guest from going on when the page is there.
            for machine in list(self._machines):
                for vcpu in list(machine.vcpus):
                    with suppress(VcpuError):
                        vcpu.kick()
            with suppress(OSError):
                self._faults.zero(at, _PAGE)
            self._present[page] = 1

    def _fill_around(self, page: int) -> int:
        """Fill the missing pages from this one on that are asked for at once; return the next."""
        ahead = max(READ_AHEAD // _PAGE, 1)
        last = min(page - page % ahead + ahead, len(self._present))
        first = max(page - page % ahead, self._present.rfind(1, 0, page) + 1)
        if (there := self._present.find(1, page, last)) >= 0:
            last = there
        offset, size = first * _PAGE, (last - first) * _PAGE
        wanted = min(size, self._size - offset)
        content = bytes(self._source(offset, wanted))
        if len(content) != wanted:
            raise ValueError(
                f"page_source({offset:#x}, {wanted:#x}) returned {len(content):#x} bytes; return all"
            )
        if content.count(0) == wanted:
            self._faults.zero(self._address + offset, size)
        else:
            self._faults.copy(self._address + offset, content.ljust(size, b"\0"))
        self._present[first:last] = b"\1" * (last - first)
        return last
