"""What an ioctl number is made of, by the rules of the target's system."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vmm_arch_gen.abi.layout import Layouts
from vmm_arch_gen.abi.model import Abi, Direction, Ioctl, IoctlRules
from vmm_arch_gen.diagnostics import Problem


@dataclass(frozen=True)
class IoctlParts:
    direction: Direction
    """Seen from user space: what it does to the argument."""
    type: int
    """Whose ioctl it is: 0xAE for KVM."""
    number: int
    size: int
    """Of the argument, in bytes; 0 where the number carries none."""


@dataclass(frozen=True)
class _Rules:
    """Where the parts of a number of 32 bits lie; the number is in bits 0 to 7, the type in 8 to 15."""

    size_bits: int
    """The size begins at bit 16; the direction is above it."""
    directions: dict[int, Direction]


_RULES: dict[IoctlRules, _Rules] = {
    # asm-generic/ioctl.h
    "generic": _Rules(14, {0: "none", 1: "write", 2: "read", 3: "readwrite"}),
    # sys/ioccom.h of the BSDs, where 1 is IOC_VOID. POWER's, MIPS', SPARC's and Alpha's asm/ioctl.h
    # have the same bits.
    "bsd": _Rules(13, {1: "none", 2: "read", 4: "write", 6: "readwrite"}),
}


def ioctl_parts(abi: Abi, ioctl: Ioctl) -> IoctlParts:
    """Take an ioctl number apart."""
    rules = _RULES[abi.ioctl_rules]
    size = ioctl.value >> 16 & (1 << rules.size_bits) - 1
    return IoctlParts(ioctl.direction, ioctl.value >> 8 & 0xFF, ioctl.value & 0xFF, size)


def misread(abi: Abi) -> Iterator[Problem]:
    """The ioctl numbers whose bits do not say what their macros say: the rules are other ones."""
    rules = _RULES[abi.ioctl_rules]
    layouts = Layouts.of_abi(abi)
    for ioctl in abi.ioctls:
        direction = rules.directions.get(ioctl.value >> 16 + rules.size_bits)
        size = ioctl_parts(abi, ioctl).size
        stated = layouts.of(ioctl.argument)[0] if ioctl.argument else 0
        if direction != ioctl.direction or size != stated:
            yield Problem(
                f"{ioctl.header}: {ioctl.name}",
                f"is made for '{ioctl.direction}' with {stated} bytes, but by the rules"
                f" {abi.ioctl_rules!r} {ioctl.value:#x} says"
                f" '{direction or 'no direction'}' with {size} bytes",
                f"give the target other ioctl_rules: {' or '.join(_RULES)}",
            )
