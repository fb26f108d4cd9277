"""The tables of machines: what is unpacked, loaded and interpreted for each CPU architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, eq=False)
class Architecture:
    """What the machines of one CPU architecture have in common."""

    name: str
    debian: str
    """The architecture's name in Debian."""
    suite: str
    """The suite that the userland is from."""
    python: str
    """The version of that suite's Python."""
    libraries: tuple[str, ...]
    """The packages of what Python is linked to."""
    kernel: str
    """The metapackage that depends on a suite's newest kernel."""
    modules: Mapping[str, tuple[str, ...]]
    """The kernel's modules to load for each KVM, and by a guest, beside those that they depend on."""

    @property
    def userland(self) -> tuple[str, ...]:
        """The packages of everything that is not the kernel."""
        python = ("python{0}-minimal", "libpython{0}-minimal", "libpython{0}-stdlib")
        return ("busybox-static", *(name.format(self.python) for name in python), *self.libraries)


GUEST = "guest"
"""The name of the modules for a guest with virtio devices."""

X86_64 = Architecture(
    name="x86_64",
    debian="amd64",
    suite="bookworm",
    python="3.11",
    libraries=("libc6", "libexpat1", "libffi8", "libgcc-s1", "zlib1g"),
    kernel="linux-image-cloud-amd64",
    modules={
        "kvm_amd": ("virtio_pci", "virtio_console", "kvm_amd"),
        "kvm_intel": ("kvm_intel",),
        GUEST: ("virtio_mmio", "virtio_blk", "virtio_console", "ext4"),
    },
)

KERNELS = ("bookworm", "trixie", "sid")
"""The suites whose kernels there are tests with, the oldest first."""


@dataclass(frozen=True, eq=False)
class Processor:
    """A model of a CPU, and the emulator that interprets it with its virtualization extensions."""

    architecture: Architecture
    emulator: Literal["QEMU", "Bochs"]
    model: str
    """What the emulator calls it."""
    kvm: str
    """The module that drives its extensions."""
    parameters: Mapping[str, str]
    """What makes this one differ: by the names of that module's parameters, its own words."""


AMD = "epyc"
PROCESSORS = {
    # QEMU interprets AMD's extensions and not Intel's. With other models of its own, qemu64 or
    # max, a Linux that is a guest of the machine hangs or complains.
    AMD: Processor(X86_64, "QEMU", "EPYC,+svm", "kvm_amd", {"npt": "Y"}),
    # Bochs interprets Intel's. These three make KVM take three different ways:
    # everything that there was in 2013;
    "haswell": Processor(
        X86_64, "Bochs", "corei7_haswell_4770", "kvm_intel", {"ept": "Y", "unrestricted_guest": "Y"}
    ),
    # nested paging, but real mode is not run by the CPU: KVM emulates it; no XSAVE either;
    "lynnfield": Processor(
        X86_64,
        "Bochs",
        "corei5_lynnfield_750",
        "kvm_intel",
        {"ept": "Y", "unrestricted_guest": "N"},
    ),
    # no nested paging: KVM keeps shadows of the guest's page tables.
    "penryn": Processor(
        X86_64, "Bochs", "core2_penryn_t9600", "kvm_intel", {"ept": "N", "unrestricted_guest": "N"}
    ),
}
