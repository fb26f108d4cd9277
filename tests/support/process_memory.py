"""What the system says of this process's memory."""

from __future__ import annotations

from pathlib import Path


def smaps(address: int) -> dict[str, str]:
    """What Linux says of the mapping at an address of this process: KernelPageSize, VmFlags …"""
    found, inside = {}, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, value = line.partition(":")
        start, _, rest = line.partition("-")
        if rest and " " not in start:
            inside = int(start, 16) <= address < int(rest.split()[0], 16)
        elif inside:
            found[name] = value.strip()
    return found
