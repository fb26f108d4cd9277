"""What the KVM backends share: the ways into the kernel, errors by name, the signal for kicks.

Three ways lead into the kernel, since none does for every call:

- ``fcntl.ioctl`` is the fastest, but holds the interpreter's lock if its buffer is longer than
  1,024 bytes, takes no integer of 2**31 or more, and from Python 3.14 on retries after a signal.
- :func:`ioctl_large`, by ctypes, has none of these limits and costs a microsecond more.
- :func:`enter_guest` is KVM_RUN, which has to come back after a signal.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from mmap import mmap
from pathlib import Path
from types import FrameType
from typing import Any

from vmm_arch.errors import ForkedError, HypervisorError, HypervisorUnavailableError
from vmm_arch.report import Check

DEVICE = Path("/dev/kvm")
MODULES = Path("/sys/module")
_PARAMETERS = ("nested", "npt", "avic", "ept", "unrestricted_guest", "enable_apicv")
"""Of kvm_amd and kvm_intel."""

if sys.platform == "linux":
    from fcntl import ioctl

    _libc = ctypes.CDLL(None, use_errno=True)
    _ioctl = _libc.ioctl
    _ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]
    _ioctl.restype = ctypes.c_int

    def ioctl_large(fd: int, request: int, argument: Any) -> int:
        """Make a call with a ctypes record of any size, or any integer, and without the GIL."""
        pointer = argument if isinstance(argument, int) else ctypes.byref(argument)
        result: int = _ioctl(fd, request, pointer)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result

    def map_run_page(vcpu: int, size: int) -> mmap:
        """Map the page that a vCPU shares with its process.

        Before Python 3.13 a mapping keeps a descriptor of its own, beside the vCPU's.
        """
        try:
            if sys.version_info >= (3, 13):
                return mmap(vcpu, size, trackfd=False)
            return mmap(vcpu, size)
        except OSError as error:
            number = error.errno or 0
            code = errno.errorcode.get(number, str(number))
            cause = _ANY_CAUSE.get(code) or os.strerror(number)
            raise HypervisorError("mmap of a vCPU", code, cause, number) from None

    if sys.version_info >= (3, 14):

        def enter_guest(fd: int, request: int) -> int:
            """Make a call that comes back with InterruptedError after a signal."""
            return ioctl_large(fd, request, 0)

    else:
        enter_guest = ioctl

    def send_kick(thread: int) -> None:
        """Interrupt a thread, named by its native id, in KVM_RUN."""
        # Unlike pthread_kill it may be called for a thread that has just ended.
        if _libc.tgkill(os.getpid(), thread, KICK_SIGNAL) and ctypes.get_errno() != errno.ESRCH:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    KICK_SIGNAL = signal.SIGRTMIN

    def install_kick_signal() -> None:
        """Let kicks interrupt threads instead of ending the process; the first Vm does it.

        Only the main thread can: call this there if the first Vm is made elsewhere. Without it
        RuntimeError is raised.
        """
        if signal.getsignal(KICK_SIGNAL) not in (signal.SIG_DFL, signal.SIG_IGN, None):
            return
        try:
            signal.signal(KICK_SIGNAL, _do_nothing)
        except ValueError:
            raise RuntimeError(
                "the signal for kicks can be installed in the main thread only: make the first Vm"
                " there, or call install_kick_signal() there before"
            ) from None

else:

    KICK_SIGNAL = 0

    def ioctl(fd: int, request: int, argument: Any = 0) -> int:
        raise unavailable("KVM", "ENOSYS", f"KVM is part of Linux; this is {sys.platform}")

    def map_run_page(vcpu: int, size: int) -> mmap:
        raise unavailable("KVM", "ENOSYS", f"KVM is part of Linux; this is {sys.platform}")

    ioctl_large = ioctl
    enter_guest = ioctl

    def send_kick(thread: int) -> None:
        raise unavailable("KVM", "ENOSYS", f"KVM is part of Linux; this is {sys.platform}")

    def install_kick_signal() -> None:
        """Do nothing: no thread is ever in KVM_RUN here."""


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Handle the signal, which only has to interrupt a system call."""


_forked = False


def _note_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def unavailable(operation: str, code: str, cause: str) -> HypervisorUnavailableError:
    return HypervisorUnavailableError(operation, code, cause, getattr(errno, code, None))


CAUSES = {
    ("KVM_CREATE_VM", "ENOMEM"): "the host is out of memory, or the user out of locked memory",
    ("KVM_CREATE_VCPU", "EEXIST"): "the machine has a vCPU of this index already",
    ("KVM_CREATE_VCPU", "EINVAL"): "the host allows no vCPU of this index",
    ("KVM_SET_USER_MEMORY_REGION", "EEXIST"): "the slot overlaps another one",
    ("KVM_SET_USER_MEMORY_REGION", "EINVAL"): "the slot's number, alignment or address is wrong",
    ("KVM_RUN", "EINVAL"): "the vCPU's state is one that no processor can be in",
    ("KVM_RUN", "EFAULT"): "the guest used memory that this process has unmapped",
}
_ANY_CAUSE = {
    "EBADF": "the machine is closed",
    "EFAULT": "the argument is no buffer, or too short",
    "EINVAL": "a value in the argument is not allowed, or the machine is not made for this call",
    "EIO": "the machine belongs to the process that made it",
    "EMFILE": "this process has too many open files: raise the limit, see ulimit -n; a vCPU takes two"
    " descriptors, and one from Python 3.13 on",
    "ENFILE": "the host has too many open files",
    "ENOMEM": "the host is out of memory",
    "ENOTTY": "this kernel does not know the call",
    "ENXIO": "the machine has no such device; an irqchip, for instance, is asked for at creation",
    "EPERM": "this process may not do that",
}


def refused(
    error: OSError, request: int, names: Mapping[str, object], causes: Mapping[tuple[str, str], str]
) -> HypervisorError:
    """Name what the kernel refused: the call, its answer, the usual cause.

    ``names`` are those of the raw ABI, where the call's own name is looked up.
    """
    found = (n for n, value in names.items() if n.startswith("KVM_") and value == request)
    operation = next(found, f"ioctl {request:#x}")
    number = error.errno or 0
    code = errno.errorcode.get(number, str(number))
    if code == "EIO" and _forked:
        cause = "this is a forked child, and the machine belongs to its parent: make another here"
        return ForkedError(operation, code, cause, number)
    key = (operation, code)
    cause = causes.get(key) or CAUSES.get(key) or _ANY_CAUSE.get(code) or os.strerror(number)
    return HypervisorError(operation, code, cause, number)


def exit_name(reason: int, names: Mapping[str, object]) -> str:
    """What the header calls a vCPU's reason to exit; ``names`` are those of the raw ABI.

    KVM_EXIT_IO_IN is a member of KVM_EXIT_IO, and other names that begin with another's are too.
    """
    exits = [name for name in names if name.startswith("KVM_EXIT_")]
    for name in exits:
        if names[name] == reason and not any(name.startswith(f"{other}_") for other in exits):
            return name
    return str(reason)


def offset(record: type[ctypes.Structure], member: str) -> int:
    """Tell where a member begins in its record, in bytes."""
    begin: int = getattr(record, member).offset
    return begin


def open_device() -> int:
    """Open /dev/kvm and return its descriptor, or say what has to be done to have it."""
    if sys.platform != "linux":
        raise unavailable("KVM", "ENOSYS", f"KVM is part of Linux; this is {sys.platform}")
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        code, cause = "ENOENT", (
            "there is no such device: load the module kvm_intel or kvm_amd, switch virtualization"
            " on in the firmware, or, in a virtual machine or container, have /dev/kvm passed in"
        )
    except PermissionError as error:
        code = errno.errorcode[error.errno or errno.EACCES]
        cause = "this user may not use it: add the user to the group kvm, and log in again"
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, str(error.errno))
        cause = _ANY_CAUSE.get(code) or f"the device cannot be opened: {error.strerror}"
    raise unavailable(f"open {DEVICE}", code, cause)


def device_name(given: int | None) -> str:
    """What messages call the device: by its path, or the caller's descriptor."""
    return str(DEVICE) if given is None else f"device={given}"


@contextmanager
def opened_device(given: int | None, get_api_version: int, api_version: int) -> Iterator[int]:
    """Have /dev/kvm open for a while, if it speaks the version of the API that we do.

    A descriptor that is given is used instead, and left open.
    """
    device = open_device() if given is None else given
    try:
        try:
            version = ioctl(device, get_api_version)
        except (OSError, ValueError) as error:  # a negative descriptor is a ValueError
            number = error.errno or 0 if isinstance(error, OSError) else errno.EBADF
            code = errno.errorcode.get(number, str(number))
            remedy = (
                "have the host's own one passed in" if given is None else "open /dev/kvm for it"
            )
            cause = f"{device_name(given)} is not KVM's device: {remedy}"
            raise unavailable("KVM_GET_API_VERSION", code, cause) from None
        if version != api_version:
            cause = f"the kernel's KVM API is version {version}; version {api_version} is needed"
            raise unavailable("KVM_GET_API_VERSION", "EPROTO", f"{cause}: use a newer kernel")
        yield device
    finally:
        if given is None:
            os.close(device)


def check_capabilities(
    device: int, check_extension: int, wanted: Mapping[str, tuple[int, str, bool]]
) -> tuple[Check, ...]:
    """Ask for capabilities: of each its number, what it is for, and whether it is required."""
    checks = []
    for name, (number, purpose, required) in wanted.items():
        found = ioctl(device, check_extension, number)
        detail = purpose if found else f"{purpose}: this kernel lacks it; a newer one is needed"
        checks.append(Check(name, bool(found), detail, required))
    return tuple(checks)


def check_module() -> Check:
    """Which module gives KVM its processor, with those of its parameters that tell hosts apart."""
    found = []
    for module in sorted(MODULES.glob("kvm_*")):
        values = []
        for name in _PARAMETERS:
            try:
                values.append(f"{name}={(module / 'parameters' / name).read_text().strip()}")
            except OSError:  # it has no such parameter
                continue
        found.append(" ".join([module.name, *values]))
    detail = ", ".join(found) or f"{MODULES} names none"
    return Check("module", bool(found), detail, required=False)


def require(checks: tuple[Check, ...]) -> None:
    """Raise the first required thing that is missing."""
    for check in checks:
        if check.required and not check.available:
            raise unavailable("KVM_CHECK_EXTENSION", "ENOSYS", f"{check.name}: {check.detail}")


__all__ = [
    "DEVICE",
    "check_capabilities",
    "check_module",
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
    "refused",
    "require",
    "send_kick",
    "unavailable",
]
