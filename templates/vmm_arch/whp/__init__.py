"""Shared by the WHP backends: the libraries, and errors by name.

Windows' own libraries are loaded at the first call. :func:`load` selects others, such as a build of
the platform for another system.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

from vmm_arch.abi import Prototypes, declare
from vmm_arch.errors import HypervisorError, HypervisorUnavailableError

PLATFORM: Final = "WinHvPlatform.dll"
EMULATION: Final = "WinHvEmulation.dll"
VARIABLE: Final = "VMM_ARCH_WINHVPLATFORM"
"""The environment variable with a path of the platform's library, as for :func:`load`."""

E_INVALIDARG: Final = 0x80070057
WHV_E_UNKNOWN_CAPABILITY: Final = 0x80370300
WHV_E_UNKNOWN_PROPERTY: Final = 0x80370302
CODES: Final = {
    0x80004001: "E_NOTIMPL",
    0x80004003: "E_POINTER",
    0x80004004: "E_ABORT",
    0x80004005: "E_FAIL",
    0x8000FFFF: "E_UNEXPECTED",
    0x80070005: "E_ACCESSDENIED",
    0x8007000E: "E_OUTOFMEMORY",
    0x80070032: "ERROR_NOT_SUPPORTED",
    E_INVALIDARG: "E_INVALIDARG",
    0x8007007A: "ERROR_INSUFFICIENT_BUFFER",
    0x800705AA: "ERROR_NO_SYSTEM_RESOURCES",
    WHV_E_UNKNOWN_CAPABILITY: "WHV_E_UNKNOWN_CAPABILITY",
    0x80370301: "WHV_E_INSUFFICIENT_BUFFER",
    WHV_E_UNKNOWN_PROPERTY: "WHV_E_UNKNOWN_PROPERTY",
    0x80370303: "WHV_E_UNSUPPORTED_HYPERVISOR_CONFIG",
    0x80370304: "WHV_E_INVALID_PARTITION_CONFIG",
    0x80370305: "WHV_E_GPA_RANGE_NOT_FOUND",
    0x80370306: "WHV_E_VP_ALREADY_EXISTS",
    0x80370307: "WHV_E_VP_DOES_NOT_EXIST",
    0x80370308: "WHV_E_INVALID_VP_STATE",
    0x80370309: "WHV_E_INVALID_VP_REGISTER_NAME",
    0xC0350005: "ERROR_HV_INVALID_PARAMETER",
    0xC0350008: "ERROR_HV_OPERATION_DENIED",
    0xC0350015: "ERROR_HV_INVALID_VP_STATE",
    0xC0350050: "ERROR_HV_INVALID_REGISTER_VALUE",
    0xC0351000: "ERROR_HV_NOT_PRESENT",
    0xC0370008: "ERROR_VID_PARTITION_ALREADY_EXISTS",
}
"""The names of HRESULTs (winerror.h; "Windows Hypervisor Platform API Definitions")."""
ENABLE: Final = (
    "enable the Windows feature HypervisorPlatform (in the dialog optionalfeatures, or as"
    " administrator: DISM /Online /Enable-Feature /FeatureName:HypervisorPlatform /All) and restart"
)
CAUSES: Final = {
    ("WHvSetupPartition", "E_INVALIDARG"): "the properties contradict each other",
    ("WHvSetPartitionProperty", "E_INVALIDARG"): "it is too late to set the property, or the value"
    " is not allowed on this host",
    ("WHvMapGpaRange", "E_INVALIDARG"): "the memory is beyond the processor's physical addresses,"
    " or not aligned to pages",
    ("WHvCreateVirtualProcessor", "E_INVALIDARG"): "the index is above the partition's processor"
    " count",
    ("WHvSetVirtualProcessorRegisters", "E_INVALIDARG"): "the registers contradict each other",
    ("WHvSetVirtualProcessorRegisters", "ERROR_HV_INVALID_PARAMETER"): "the registers contradict"
    " each other, such as paging without PAE in long mode",
    ("WHvGetVirtualProcessorInterruptControllerState2", "WHV_E_INVALID_PARTITION_CONFIG"): "the"
    " machine was created without an irqchip",
    ("WHvSetVirtualProcessorInterruptControllerState2", "WHV_E_INVALID_PARTITION_CONFIG"): "the"
    " machine was created without an irqchip",
    ("WHvRequestInterrupt", "ERROR_HV_OPERATION_DENIED"): "the machine was created without an"
    " irqchip",
}
_ANY_CAUSE: Final = {
    "E_ACCESSDENIED": "this user lacks permission: run as administrator, or join the group Hyper-V"
    " Administrators",
    "E_INVALIDARG": "a value is not allowed, or not at this time",
    "E_NOTIMPL": "this version of Windows does not support it",
    "E_OUTOFMEMORY": "the host is out of memory",
    "ERROR_HV_INVALID_PARAMETER": "a register cannot have this value, or not on this host",
    "ERROR_HV_INVALID_REGISTER_VALUE": "a register cannot have this value, or not on this host",
    "ERROR_HV_INVALID_VP_STATE": "the processor's state does not allow this",
    "ERROR_HV_OPERATION_DENIED": "the hypervisor does not allow this in this partition",
    "ERROR_HV_NOT_PRESENT": f"no hypervisor is running: {ENABLE}",
    "ERROR_VID_PARTITION_ALREADY_EXISTS": "this process has another machine, and Windows maps one"
    " process's memory into one partition: close() that one first, or give each machine a process"
    " (multiprocessing with the start method spawn)",
    "ERROR_NO_SYSTEM_RESOURCES": "the host is out of memory or of processors for guests",
    "WHV_E_GPA_RANGE_NOT_FOUND": "nothing is mapped there",
    "WHV_E_INVALID_PARTITION_CONFIG": "the partition's configuration does not allow this call",
    "WHV_E_INVALID_VP_REGISTER_NAME": "this host does not know the register",
    "WHV_E_INVALID_VP_STATE": "the processor is in use, or its state does not allow this",
    "WHV_E_UNKNOWN_CAPABILITY": "this version of Windows does not know the capability",
    "WHV_E_UNKNOWN_PROPERTY": "this version of Windows does not know the property",
    "WHV_E_UNSUPPORTED_HYPERVISOR_CONFIG": "the host's processor or hypervisor cannot do that",
    "WHV_E_VP_ALREADY_EXISTS": "the partition already has a processor with this index",
    "WHV_E_VP_DOES_NOT_EXIST": "the partition has no processor with this index",
}

_chosen: dict[str, str] = {}
"""The path of each library to use instead of Windows' own."""


def load(platform: str | Path, emulation: str | Path | None = None) -> None:
    """Use the libraries at these paths. Call this before anything else of a WHP backend.

    A relative path is relative to the current folder; Windows' search path is not used. By default
    the emulator's library is the file beside the platform's with Emulation instead of Platform in
    its name.
    """
    platform = Path(platform).absolute()
    if emulation is None:
        emulation = platform.with_name(platform.name.replace("Platform", "Emulation"))
    _chosen[PLATFORM] = os.fspath(platform)
    _chosen[EMULATION] = os.fspath(Path(emulation).absolute())


class Library:
    """A library whose functions are attributes; loaded at the first use.

    A function that returns a failure raises HypervisorError with the function's name.
    """

    def __init__(self, name: str, header: str, prototypes: Mapping[str, object]) -> None:
        """`name` is the file's name, `header` the header that declares the functions."""
        self._name = name
        self._prototypes = cast(Prototypes, prototypes[header])

    def __getattr__(self, name: str) -> Any:
        if name not in self._prototypes:
            raise AttributeError(name)
        library = _open(self._name)
        if name in declare(library, self._prototypes):
            cause = f"this {self._name} lacks it: a newer version of Windows is needed"
            raise HypervisorUnavailableError(name, "ERROR_PROC_NOT_FOUND", cause)
        function = getattr(library, name)
        if self._prototypes[name][0] is ctypes.c_int32:
            function.errcheck = _checked(name)
        setattr(self, name, function)
        return function

    def has(self, name: str) -> bool:
        """Whether the library has a function that older versions lack."""
        try:
            return bool(getattr(self, name))
        except HypervisorUnavailableError as error:
            if error.operation != name:
                raise
            return False


def _checked(operation: str) -> Callable[[int, Any, Any], int]:
    def check(result: int, function: Any, arguments: Any) -> int:
        if result < 0:
            raise refused(operation, result)
        return result

    return check


def refused(operation: str, result: int) -> HypervisorError:
    """The error for a call that was refused: the function, its HRESULT, the usual cause."""
    code = CODES.get(result & 0xFFFFFFFF, f"{result & 0xFFFFFFFF:#010x}")
    cause = CAUSES.get((operation, code)) or _ANY_CAUSE.get(code) or _sentence(result)
    return HypervisorError(operation, code, cause)


def exit_name(reason: int, names: Mapping[str, object]) -> str:
    """The header's name for a vCPU's exit reason; ``names`` are the names of the raw ABI."""
    exits = (name for name in names if name.startswith("WHvRunVpExitReason"))
    return next((name for name in exits if names[name] == reason), f"{reason:#x}")


def _sentence(result: int) -> str:
    """Windows' own message for an HRESULT, if there is one."""
    if sys.platform == "win32":
        text = ctypes.FormatError(result).strip()
        if text and text != "<no description>":  # ctypes' own words
            return text
    return "see winerror.h"


def _open(name: str) -> ctypes.CDLL:
    if VARIABLE in os.environ and name not in _chosen:
        load(os.environ[VARIABLE])
    path = _chosen.get(name)
    try:
        if sys.platform == "win32":
            # Never from the current folder, where an attacker may have put one.
            return ctypes.WinDLL(path or name, winmode=0 if path else 0x800)
        if path is not None:
            return ctypes.CDLL(path)
    except OSError as error:
        cause = f"cannot be loaded ({error})" + ("" if path else f": {ENABLE}")
        raise HypervisorUnavailableError(f"load {path or name}", "ENOENT", cause) from None
    cause = f"the Windows Hypervisor Platform is part of Windows; this is {sys.platform}"
    raise HypervisorUnavailableError(f"load {name}", "ENOSYS", cause)


__all__ = ["EMULATION", "ENABLE", "PLATFORM", "VARIABLE", "Library", "exit_name", "load", "refused"]
