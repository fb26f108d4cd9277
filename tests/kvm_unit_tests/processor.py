"""What QEMU's parameters say of a machine, as far as ours can have it.

The processor is always the host's, as the hypervisor shows it to guests: QEMU's model ``max``.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from vmm_arch.x86_64.cpuid import CpuidEntry

FEATURES = {
    "svm": (0x80000001, "ecx", 2),
    "skinit": (0x80000001, "ecx", 12),
    "rdtscp": (0x80000001, "edx", 27),
    "npt": (0x8000000A, "edx", 0),
    "vmx": (0x1, "ecx", 5),
    "pcid": (0x1, "ecx", 17),
    "x2apic": (0x1, "ecx", 21),
    "tsc-deadline": (0x1, "ecx", 24),
    "xsave": (0x1, "ecx", 26),
    "invpcid": (0x7, "ebx", 10),
    "umip": (0x7, "ecx", 2),
    "pku": (0x7, "ecx", 3),
    "la57": (0x7, "ecx", 16),
    "arch-capabilities": (0x7, "edx", 29),
}
"""By QEMU's name: leaf, register and bit of CPUID (Intel SDM volume 2, AMD APM volume 3)."""
MODEL = "max"
_AS_IT_IS = {"host-phys-bits", "host-phys-bits=on", "migratable=no", "migratable=off"}
"""Properties of QEMU's models that say what is so anyway."""


class Unsupported(Exception):
    """A parameter asks for something that our machine does not have."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a test's parameters ask for."""

    memory: int = 128
    """In MiB; QEMU's default."""
    vendor: str = ""
    features: dict[str, bool] = field(default_factory=lambda: {"arch-capabilities": False})
    """Which of its flaws a processor has is left out: QEMU does not start where KVM refuses them."""
    others: tuple[str, ...] = ()
    """Parameters for QEMU that change nothing that a guest of ours could tell."""

    @property
    def processor(self) -> str:
        """For QEMU's -cpu, and for our machine's."""
        signs = (f"{'+' if on else '-'}{name}" for name, on in self.features.items())
        vendor = (f"vendor={self.vendor}",) if self.vendor else ()
        return ",".join([MODEL, *vendor, *signs])


def read(parameters: Sequence[str]) -> Wish:
    """Read QEMU's parameters; raise Unsupported for what nobody but QEMU has."""
    wish = Wish()
    words = iter(parameters)
    for word in words:
        if word == "-enable-kvm":
            continue
        value = next(words, "")
        match word, value:
            case "-cpu", _:
                vendor, features = read_processor(value)
                wish = replace(wish, vendor=vendor, features=wish.features | features)
            case "-m", _ if size := re.fullmatch(r"(\d+)([mMgG]?)", value):
                mib = int(size[1]) << (10 if size[2] in ("g", "G") else 0)
                wish = replace(wish, memory=mib)
            case ("-machine" | "-M"), "pit=off":  # so that interrupts are not slowed down
                wish = replace(wish, others=(*wish.others, word, value))
            case _:
                raise Unsupported(f"{word} {value}".rstrip())
    return wish


def read_processor(text: str) -> tuple[str, dict[str, bool]]:
    """Vendor and features of an argument to -cpu, whose model is not looked at."""
    vendor, features = "", {}
    for part in text.split(",")[1:]:
        if part.startswith("vendor="):
            vendor = part.removeprefix("vendor=")
        elif part[:1] in ("+", "-") and part[1:] in FEATURES:
            features[part[1:]] = part[0] == "+"
        elif part not in _AS_IT_IS:
            raise Unsupported(f"-cpu …,{part}")
    if vendor and len(vendor) != 12:
        raise Unsupported(f"vendor={vendor}, which has no 12 characters")
    return vendor, features


def cpuid(
    supported: Iterable[CpuidEntry], vendor: str, features: dict[str, bool]
) -> list[CpuidEntry]:
    """What the hypervisor can show, with another vendor and without features.

    A feature that the hypervisor does not have is not shown either; QEMU warns then, and goes on.
    """
    entries = []
    for entry in supported:
        for name, on in features.items():
            leaf, register, bit = FEATURES[name]
            if not on and entry.function == leaf and entry.index in (None, 0):
                value = getattr(entry, register) & ~(1 << bit)
                entry = replace(entry, **{register: value})
        if vendor and entry.function in (0, 0x80000000):
            ebx, edx, ecx = struct.unpack("<3I", vendor.encode())
            entry = replace(entry, ebx=ebx, ecx=ecx, edx=edx)
        entries.append(entry)
    return entries
