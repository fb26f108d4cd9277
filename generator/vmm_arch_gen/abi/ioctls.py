"""What an ioctl number is made of, by the target's own rules: POWER's are not everybody's."""

from __future__ import annotations

from dataclasses import dataclass

from vmm_arch_gen.abi.model import Abi, Ioctl

# As asm-generic/ioctl.h has them, for headers that make their numbers without it.
_GENERIC = {
    "_IOC_NRSHIFT": 0,
    "_IOC_NRMASK": 0xFF,
    "_IOC_TYPESHIFT": 8,
    "_IOC_TYPEMASK": 0xFF,
    "_IOC_SIZESHIFT": 16,
    "_IOC_SIZEMASK": 0x3FFF,
}


@dataclass(frozen=True)
class IoctlParts:
    direction: str
    """Seen from user space: what it does to the argument."""
    type: int
    """Whose ioctl it is: 0xAE for KVM."""
    number: int
    size: int
    """Of the argument, in bytes; 0 where the number carries none."""


class IoctlRules:
    """Takes a target's ioctl numbers apart."""

    def __init__(self, abi: Abi) -> None:
        own = {c.name: c.value for c in abi.constants if c.name in _GENERIC}
        rules = _GENERIC | own
        self._rules = [
            (rules[f"_IOC_{part}SHIFT"], rules[f"_IOC_{part}MASK"])
            for part in ("TYPE", "NR", "SIZE")
        ]

    def parts(self, ioctl: Ioctl) -> IoctlParts:
        type, number, size = [ioctl.value >> shift & mask for shift, mask in self._rules]
        return IoctlParts(ioctl.direction, type, number, size)
