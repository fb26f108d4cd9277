"""Stock Debian kernels and a userland for them, from Debian's packages."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from vmm_arch_gen.fetch import debian
from vmm_arch_gen.fetch.kept import cache_folder, kept

from nested import bzimage, cpio, modules
from nested.architecture import GUEST, X86_64, Architecture
from nested.bytecode import compile_tree

_log = logging.getLogger(__name__)

KERNEL, VMLINUX, INITRD, BUSYBOX = "vmlinuz", "vmlinux", "initrd.cpio", "busybox"

_USERLAND_MAKERS = ("architecture", "bytecode", "cpio", "stock")
_KERNEL_MAKERS = ("architecture", "cpio", "modules", "stock")
"""The modules beside this one that decide what is made."""
_LEFT_OUT = ("usr/share", "usr/lib/*/gconv")
_FOLDERS = ("dev", "proc", "sys", "tmp")
_CONSOLE = cpio.character_device("dev/console", 5, 1)
"""The kernel opens it as the first process's input and output, before anything is mounted."""


@cache
def userland(architecture: Architecture) -> Path:
    """The folder of INITRD and BUSYBOX, fetched and made on first use.

    INITRD is a userland with Python. It has no /init: that is for whoever boots it to add.
    """
    return _kept("userland", architecture.suite, architecture, _make_userland, _USERLAND_MAKERS)


@cache
def kernel(architecture: Architecture, suite: str) -> Path:
    """The folder of KERNEL and, for each KVM, an archive of its modules, fetched on first use."""
    return _kept("kernel", suite, architecture, _make_kernel, _KERNEL_MAKERS)


def modules_archive(kvm: str) -> str:
    """The file of a kernel's folder that has the modules to load, in /modules, named in order."""
    return f"{kvm}.cpio"


def stock_kernel(suite: str = X86_64.suite) -> Path:
    """The kernel as it is installed in /boot: a bzImage."""
    return kernel(X86_64, suite) / KERNEL


@cache
def stock_vmlinux() -> Path:
    """Bookworm's kernel as an ELF file, which is what is inside the bzImage.

    Behind what the ELF headers describe, the file has the addresses to change for KASLR.
    """
    image = stock_kernel().read_bytes()

    def make(folder: Path) -> None:
        (folder / VMLINUX).write_bytes(bzimage.vmlinux(image))

    key = hashlib.sha256(image).hexdigest()[:16]
    return kept("vmlinux", key, make, cache_folder("nested")) / VMLINUX


def tiny_initrd(script: str) -> bytes:
    """An archive in which a shell runs this script as the first process.

    The shell is busybox: with /proc mounted by ``/bin/busybox mount -t proc proc /proc`` it finds
    every command of its own without a path. If the script ends the kernel panics: it had better
    end in ``poweroff -f`` or ``reboot -f``.
    """
    return cpio.archive(
        [
            *(cpio.folder(name) for name in ("bin", *_FOLDERS)),
            _CONSOLE,
            cpio.file("bin/busybox", (userland(X86_64) / BUSYBOX).read_bytes(), 0o755),
            cpio.file("init", f"#!/bin/busybox sh\n{script}\n".encode(), 0o755),
        ]
    )


def disk_initrd() -> bytes:
    """An archive that loads the drivers of virtio's disk and goes on with /sbin/init from it."""
    drivers = kernel(X86_64, X86_64.suite) / modules_archive(GUEST)
    return tiny_initrd(_TO_THE_DISK) + cpio.archive([cpio.folder("modules")]) + drivers.read_bytes()


def disk_image(path: Path, init: str) -> None:
    """Make an image of a root file system, in which a shell runs this script as the first process."""
    with tempfile.TemporaryDirectory(prefix="vmm-arch-") as temporary:
        root = Path(temporary)
        for name in ("bin", "sbin", "etc", *_FOLDERS):
            (root / name).mkdir()
        shutil.copy(userland(X86_64) / BUSYBOX, root / "bin/busybox")
        (root / "bin/sh").symlink_to("busybox")
        (root / "etc/motd").write_text("from the disk\n")
        (root / "sbin/init").write_text(f"#!/bin/sh\n{init}\n")
        (root / "sbin/init").chmod(0o755)
        command = [
            shutil.which("mke2fs") or "/usr/sbin/mke2fs",
            "-q",
            "-t",
            "ext4",
            "-d",
            temporary,
        ]
        subprocess.run([*command, str(path), "8M"], check=True, capture_output=True)


_TO_THE_DISK = """
for module in /modules/*; do /bin/busybox insmod $module; done
/bin/busybox mount -t devtmpfs devtmpfs /dev
tries=0  # the disk is probed while this goes on
while [ ! -b /dev/vda ] && [ $((tries += 1)) -lt 100 ]; do /bin/busybox sleep 0.1; done
/bin/busybox mount -t ext4 -o ro /dev/vda /root && exec /bin/busybox switch_root /root /sbin/init
echo "the disk cannot be mounted"
/bin/busybox poweroff -f
"""


def _kept(
    what: str,
    suite: str,
    architecture: Architecture,
    make: Callable[[Architecture, str, Path], None],
    makers: Iterable[str],
) -> Path:
    recipe = [Path(__file__).with_name(f"{maker}.py").read_bytes() for maker in makers]
    key = hashlib.sha256(b"\0".join(recipe)).hexdigest()[:16]

    def fill(folder: Path) -> None:
        start = time.monotonic()
        _log.info("fetching a %s from Debian's %s", what, suite)
        make(architecture, suite, folder)
        _log.info("made it in %.0f s", time.monotonic() - start)

    return kept(f"{architecture.name}-{what}-{suite}", key, fill, cache_folder("nested"))


def _make_userland(architecture: Architecture, suite: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="vmm-arch-") as temporary:
        root = Path(temporary)
        with debian.suite(suite, architecture.debian) as packages:
            packages.unpack(architecture.userland, root)
        shutil.copy(root / "bin/busybox", folder / BUSYBOX)
        _furnish(root, architecture)
        (folder / INITRD).write_bytes(cpio.archive([*cpio.tree(root), _CONSOLE]))


def _furnish(root: Path, architecture: Architecture) -> None:
    """Make what the packages of a userland leave to scripts."""
    for pattern in _LEFT_OUT:
        for path in root.glob(pattern):
            shutil.rmtree(path)
    for name in (*_FOLDERS, "modules"):
        (root / name).mkdir(exist_ok=True)
    (root / "bin/sh").symlink_to("busybox")
    (root / "usr/bin/python3").symlink_to(f"python{architecture.python}")
    compile_tree(root, architecture.python)


def _make_kernel(architecture: Architecture, suite: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="vmm-arch-") as temporary:
        root = Path(temporary)
        with debian.suite(suite, architecture.debian) as packages:
            # One package in older suites, one for each part in newer ones; the others install it.
            everything = packages.closure(architecture.kernel)
            packages.unpack(filter(_KERNEL_PACKAGE.match, everything), root)
        (image,) = root.rglob("vmlinuz*")
        shutil.copy(image, folder / KERNEL)
        for kvm, names in architecture.modules.items():
            archive = [
                cpio.file(f"modules/{index:02}-{name}.ko", data)
                for index, (name, data) in enumerate(modules.load_order(root, names))
            ]
            (folder / modules_archive(kvm)).write_bytes(cpio.archive(archive))


_KERNEL_PACKAGE = re.compile(r"linux-(image|binary|modules|base)-\d")
