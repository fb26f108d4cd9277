"""Shared by the KVM backends: system calls, errors by name, the signal for kicks.

There are three ways to make a call, since none is right for every call:

- ``fcntl.ioctl`` is the fastest, but holds the GIL if its buffer is longer than 1,024 bytes, takes
  no integer of 2**31 or more, and from Python 3.14 on retries after a signal.
- :func:`ioctl_large`, through ctypes, has none of these limits and costs a microsecond more.
- :func:`enter_guest` is for KVM_RUN, which must return after a signal.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from mmap import mmap
from pathlib import Path
from types import FrameType
from typing import Any

from vmm_arch.errors import ForkedError, HypervisorError, HypervisorUnavailableError
from vmm_arch.forks import forks
from vmm_arch.report import Check

DEVICE = Path("/dev/kvm")
MODULES = Path("/sys/module")

NUMBERS = (
    *(ctypes.c_byte, ctypes.c_short, ctypes.c_int, ctypes.c_long, ctypes.c_longlong),
    *(ctypes.c_ubyte, ctypes.c_ushort, ctypes.c_uint, ctypes.c_ulong, ctypes.c_ulonglong),
)
"""The ctypes numbers, which a call can take by their address."""

if sys.platform == "linux":
    from fcntl import ioctl

    _libc = ctypes.CDLL(None, use_errno=True)
    _ioctl = _libc.ioctl
    _ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]
    _ioctl.restype = ctypes.c_int

    def ioctl_large(fd: int, request: int, argument: Any) -> int:
        """Make a call with a ctypes record of any size, or any integer; releases the GIL."""
        pointer = argument if isinstance(argument, int) else ctypes.byref(argument)
        result: int = _ioctl(fd, request, pointer)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result

    def map_run_page(vcpu: int, size: int, offset: int = 0) -> mmap:
        """Map the page that a vCPU shares with its process, or what follows it.

        Before Python 3.13 the mapping keeps a second descriptor, beside the vCPU's.
        """
        try:
            if sys.version_info >= (3, 13):
                return mmap(vcpu, size, offset=offset, trackfd=False)
            return mmap(vcpu, size, offset=offset)
        except OSError as error:
            number = error.errno or 0
            code = errno.errorcode.get(number, str(number))
            cause = _ANY_CAUSE.get(code) or os.strerror(number)
            raise HypervisorError("mmap of a vCPU", code, cause, number) from None

    if sys.version_info >= (3, 14):

        def enter_guest(fd: int, request: int) -> int:
            """Make a call that raises InterruptedError after a signal."""
            return ioctl_large(fd, request, 0)

    else:
        enter_guest = ioctl

    def send_kick(thread: int) -> None:
        """Interrupt KVM_RUN in the thread with this native id."""
        # Unlike pthread_kill, tgkill is safe for a thread that has just ended.
        if _libc.tgkill(os.getpid(), thread, KICK_SIGNAL) and ctypes.get_errno() != errno.ESRCH:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    KICK_SIGNAL = signal.SIGRTMIN

    def install_kick_signal() -> None:
        """Install the signal handler that kicks need; the first Vm calls this.

        Only the main thread can install it: call this there if the first Vm is created elsewhere.
        Raises RuntimeError in any other thread while it is not installed.
        """
        if signal.getsignal(KICK_SIGNAL) not in (signal.SIG_DFL, signal.SIG_IGN, None):
            return
        try:
            signal.signal(KICK_SIGNAL, _do_nothing)
        except ValueError:
            raise RuntimeError(
                "only the main thread can install the signal handler for kicks: create the first Vm"
                " there, or call install_kick_signal() there first"
            ) from None

else:

    KICK_SIGNAL = 0

    def ioctl(fd: int, request: int, argument: Any = 0) -> int:
        raise unavailable("KVM", "ENOSYS", f"KVM is part of Linux; this is {sys.platform}")

    def map_run_page(vcpu: int, size: int, offset: int = 0) -> mmap:
        raise unavailable("KVM", "ENOSYS", f"KVM is part of Linux; this is {sys.platform}")

    ioctl_large = ioctl
    enter_guest = ioctl

    def send_kick(thread: int) -> None:
        raise unavailable("KVM", "ENOSYS", f"KVM is part of Linux; this is {sys.platform}")

    def install_kick_signal() -> None:
        """Do nothing: there is no KVM_RUN on this system."""


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """The signal handler: the signal only has to interrupt the system call."""


def unavailable(operation: str, code: str, cause: str) -> HypervisorUnavailableError:
    return HypervisorUnavailableError(operation, code, cause, getattr(errno, code, None))


CAUSES = {
    ("KVM_CREATE_VM", "ENOMEM"): "the host is out of memory, or the user out of locked memory",
    ("KVM_CREATE_VCPU", "EEXIST"): "the machine already has a vCPU with this index",
    ("KVM_CREATE_VCPU", "EINVAL"): "the host does not allow a vCPU with this index",
    ("KVM_SET_USER_MEMORY_REGION", "EEXIST"): "the slot overlaps another one",
    ("KVM_SET_USER_MEMORY_REGION", "EINVAL"): "the slot's number, alignment or address is wrong",
    ("KVM_RUN", "EINVAL"): "the vCPU's state is invalid",
    ("KVM_RUN", "EFAULT"): "the guest accessed memory that this process has unmapped",
}
_ANY_CAUSE = {
    "EBADF": "the machine is closed",
    "EFAULT": "the argument is not a buffer, or too short",
    "EINVAL": "a value in the argument is not allowed, or the machine does not allow this call",
    "EIO": "the machine belongs to the process that created it",
    "EMFILE": "this process has too many open files: raise the limit, see ulimit -n; a vCPU takes two"
    " descriptors, and one from Python 3.13 on",
    "ENFILE": "the host has too many open files",
    "ENOMEM": "the host is out of memory",
    "ENOTTY": "this kernel does not know the call",
    "ENXIO": "the machine has no such device; an irqchip, for instance, is requested at creation",
    "EPERM": "this process is not permitted to do that",
}


def refused(
    error: OSError, request: int, names: Mapping[str, object], causes: Mapping[tuple[str, str], str]
) -> HypervisorError:
    """The error for a call that the kernel refused: the call, its errno, the usual cause.

    ``names`` are the names of the raw ABI, where the call's own name is looked up.
    """
    found = (n for n, value in names.items() if n.startswith("KVM_") and value == request)
    operation = next(found, f"ioctl {request:#x}")
    number = error.errno or 0
    code = errno.errorcode.get(number, str(number))
    if code == "EIO" and forks():
        cause = "this is a forked child, and the machine is its parent's: create another one here"
        return ForkedError(operation, code, cause, number)
    key = (operation, code)
    cause = causes.get(key) or CAUSES.get(key) or _ANY_CAUSE.get(code) or os.strerror(number)
    return HypervisorError(operation, code, cause, number)


def exit_name(reason: int, names: Mapping[str, object]) -> str:
    """The header's name for a vCPU's exit reason; ``names`` are the names of the raw ABI.

    A name that extends another one belongs to it and is not a reason: KVM_EXIT_IO_IN is a
    direction of KVM_EXIT_IO.
    """
    exits = [name for name in names if name.startswith("KVM_EXIT_")]
    for name in exits:
        if names[name] == reason and not any(name.startswith(f"{other}_") for other in exits):
            return name
    return str(reason)


def offset(record: type[ctypes.Structure], member: str) -> int:
    """The offset of a member in its record, in bytes."""
    begin: int = getattr(record, member).offset
    return begin


def place(record: type[ctypes.Structure], member: str, begin: int = 0) -> slice:
    """Where a member is among the bytes of a record that begins at ``begin``."""
    begin += offset(record, member)
    size: int = getattr(record, member).size
    return slice(begin, begin + size)


def open_device() -> int:
    """Open /dev/kvm and return its descriptor; the error says how to get access to it."""
    if sys.platform != "linux":
        raise unavailable("KVM", "ENOSYS", f"KVM is part of Linux; this is {sys.platform}")
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        code, cause = "ENOENT", (
            "there is no such device: load the module for this processor, such as kvm_intel, enable"
            " virtualization in the firmware, or, in a virtual machine or container, have /dev/kvm"
            " passed in"
        )
    except PermissionError as error:
        code = errno.errorcode[error.errno or errno.EACCES]
        cause = "this user may not use it: add the user to the group kvm, and log in again"
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, str(error.errno))
        cause = _ANY_CAUSE.get(code) or f"the device cannot be opened: {error.strerror}"
    raise unavailable(f"open {DEVICE}", code, cause)


def device_name(given: int | None) -> str:
    """The device's name in messages: its path, or the caller's descriptor."""
    return str(DEVICE) if given is None else f"device={given}"


@contextmanager
def opened_device(given: int | None, get_api_version: int, api_version: int) -> Iterator[int]:
    """Open /dev/kvm, check the version of its API, and close it again.

    A descriptor that is given is used instead, and left open.
    """
    device = open_device() if given is None else given
    try:
        try:
            version = ioctl(device, get_api_version)
        except (OSError, ValueError) as error:  # a negative descriptor is a ValueError
            number = error.errno or 0 if isinstance(error, OSError) else errno.EBADF
            code = errno.errorcode.get(number, str(number))
            remedy = "have the host's /dev/kvm passed in" if given is None else "pass a /dev/kvm"
            cause = f"{device_name(given)} is not KVM's device: {remedy}"
            raise unavailable("KVM_GET_API_VERSION", code, cause) from None
        if version != api_version:
            cause = f"the kernel's KVM API is version {version}, but {api_version} is required"
            raise unavailable("KVM_GET_API_VERSION", "EPROTO", f"{cause}: use a newer kernel")
        yield device
    finally:
        if given is None:
            os.close(device)


def check_capabilities(
    device: int, check_extension: int, wanted: Mapping[str, tuple[int, str, bool]]
) -> tuple[Check, ...]:
    """Check capabilities, each given with its number, its purpose, and whether it is required."""
    checks = []
    for name, (number, purpose, required) in wanted.items():
        found = ioctl(device, check_extension, number)
        detail = purpose if found else f"{purpose}: needs a newer kernel"
        checks.append(Check(name, bool(found), detail, required))
    return tuple(checks)


def check_modules(parameters: Sequence[str]) -> Check:
    """The kernel's modules for the processor, with these of their parameters, in which hosts differ."""
    found = []
    for module in sorted(MODULES.glob("kvm_*")):
        values = []
        for name in parameters:
            try:
                values.append(f"{name}={(module / 'parameters' / name).read_text().strip()}")
            except OSError:  # the module has no such parameter
                continue
        found.append(" ".join([module.name, *values]))
    detail = ", ".join(found) or f"no module in {MODULES}"
    return Check("module", bool(found), detail, required=False)


def require(checks: tuple[Check, ...]) -> None:
    """Raise an error for the first required capability that is missing."""
    for check in checks:
        if check.required and not check.available:
            raise unavailable("KVM_CHECK_EXTENSION", "ENOSYS", f"{check.name}: {check.detail}")


__all__ = [
    "DEVICE",
    "check_capabilities",
    "check_modules",
    "device_name",
    "enter_guest",
    "exit_name",
    "install_kick_signal",
    "ioctl",
    "ioctl_large",
    "map_run_page",
    "offset",
    "open_device",
    "opened_device",
    "place",
    "refused",
    "require",
    "send_kick",
    "unavailable",
]
