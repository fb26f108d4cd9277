"""The table of machines: what is unpacked, loaded and run for each CPU architecture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """What a machine of one CPU architecture is made of."""

    name: str
    suite: str
    debian: str
    """The architecture's name in Debian."""
    kernel: str
    """The metapackage that depends on the newest kernel."""
    python: str
    """The version of the suite's Python."""
    libraries: tuple[str, ...]
    """The packages of what Python is linked to."""
    modules: tuple[str, ...]
    """The kernel's modules to load, beside those that they depend on."""
    qemu: str
    """The program, and Debian's package of it."""
    qemu_package: str
    hardware: tuple[str, ...]
    """Which hardware QEMU is to be."""
    console: str

    @property
    def userland(self) -> tuple[str, ...]:
        """The packages of everything that is not the kernel."""
        python = ("python{0}-minimal", "libpython{0}-minimal", "libpython{0}-stdlib")
        return ("busybox-static", *(name.format(self.python) for name in python), *self.libraries)


# AMD's extensions are those that QEMU interprets on x86. With its own CPU models, qemu64 or max, a
# Linux that is a guest of the machine hangs or complains.
X86_64 = Architecture(
    name="x86_64",
    suite="bookworm",
    debian="amd64",
    kernel="linux-image-cloud-amd64",
    python="3.11",
    libraries=("libc6", "libexpat1", "libffi8", "libgcc-s1", "zlib1g"),
    modules=("virtio_pci", "virtio_console", "kvm_amd"),
    qemu="qemu-system-x86_64",
    qemu_package="qemu-system-x86",
    # With two processors a nested Linux hangs, on a lock of its scheduler's.
    hardware=("-accel", "tcg,thread=single", "-cpu", "EPYC,+svm", "-smp", "1", "-m", "1G"),
    console="ttyS0",
)
