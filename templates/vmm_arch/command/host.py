"""Identifies the host in a report: what may affect a guest."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from pathlib import Path

_UNKNOWN = "unknown"
_CPUINFO = Path("/proc/cpuinfo")
_DMI = Path("/sys/class/dmi/id")
_WINDOWS_PROCESSOR = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
_WINDOWS_MACHINE = r"HARDWARE\DESCRIPTION\System\BIOS"


def about_host(processor: str, is_virtual: Callable[[], bool]) -> dict[str, str]:
    """Processor, machine and system. The CPU's own part says which processor guests are shown, and
    whether it is a virtual machine's."""
    system = [platform.system(), platform.release(), platform.version()]
    if sys.platform == "win32":
        system.append(platform.win32_edition() or "")
    return {
        "processor": f"{processor}, {_processor()}",
        "machine": _machine(is_virtual),
        "system": " ".join(filter(None, system)),
    }


def _processor() -> str:
    """The processor's own brand string."""
    if sys.platform == "win32":
        return _registry(_WINDOWS_PROCESSOR, "ProcessorNameString") or _UNKNOWN
    return cpuinfo("model name") or _UNKNOWN


def _machine(is_virtual: Callable[[], bool]) -> str:
    """Vendor and product, and whether the processor says that the host is a virtual machine."""
    if sys.platform == "win32":  # with Hyper-V on, CPUID says so on bare metal too
        names = ("SystemManufacturer", "SystemProductName")
        return (
            " ".join(filter(None, (_registry(_WINDOWS_MACHINE, one) for one in names))) or _UNKNOWN
        )
    parts = [_text(_DMI / name) for name in ("sys_vendor", "product_name")]
    name = " ".join(filter(None, parts)) or _UNKNOWN
    return f"{name}, {'a virtual machine' if is_virtual() else 'not a virtual machine'}"


def cpuinfo(field: str) -> str:
    """A field of /proc/cpuinfo for the first processor."""
    for line in _text(_CPUINFO).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""


def _text(path: Path) -> str:
    """The content of a file in /proc or /sys; empty if it is missing or readable by root only."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


if sys.platform == "win32":
    import winreg

    def _registry(key: str, name: str) -> str:
        """A registry value under HKEY_LOCAL_MACHINE; empty if it is missing."""
        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as opened:
                return str(winreg.QueryValueEx(opened, name)[0]).strip()
        except OSError:
            return ""
