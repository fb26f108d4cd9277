"""A stock Debian kernel and a userland for it, from Debian's packages."""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path

import debian
from cache import cache_folder, kept

from nested import bzimage, cpio, modules
from nested.architecture import X86_64, Architecture
from nested.bytecode import compile_tree

_log = logging.getLogger(__name__)

KERNEL, VMLINUX, INITRD, BUSYBOX = "vmlinuz", "vmlinux", "initrd.cpio", "busybox"

_MAKERS = ("architecture", "bytecode", "bzimage", "cpio", "lz4", "modules", "stock")
"""The modules beside this one that decide what is made."""
_LEFT_OUT = ("usr/share", "usr/lib/*/gconv")
_FOLDERS = ("dev", "proc", "sys", "tmp")
_CONSOLE = cpio.character_device("dev/console", 5, 1)
"""The kernel opens it as the first process's input and output, before anything is mounted."""


def stock_kernel() -> Path:
    """The kernel as it is installed in /boot: a bzImage."""
    return stock(X86_64) / KERNEL


def stock_vmlinux() -> Path:
    """The same kernel as an ELF file, which is what is inside the bzImage.

    Behind what the ELF headers describe, the file has the addresses to change for KASLR.
    """
    return stock(X86_64) / VMLINUX


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
            cpio.file("bin/busybox", (stock(X86_64) / BUSYBOX).read_bytes(), 0o755),
            cpio.file("init", f"#!/bin/busybox sh\n{script}\n".encode(), 0o755),
        ]
    )


@cache
def stock(architecture: Architecture) -> Path:
    """The folder of KERNEL, VMLINUX, BUSYBOX and INITRD, fetched and made on first use.

    INITRD is a userland with Python and, in /modules, the modules to load, named in their order. It
    has no /init: that is for whoever boots it to add.
    """
    recipe = [Path(__file__).with_name(f"{maker}.py").read_bytes() for maker in _MAKERS]
    key = hashlib.sha256(b"\0".join(recipe)).hexdigest()[:16]
    where = cache_folder("nested")
    return kept(architecture.name, key, lambda folder: _make(architecture, folder), where)


def _make(architecture: Architecture, folder: Path) -> None:
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vmm-arch-") as temporary:
        kernel, userland = Path(temporary, "kernel"), Path(temporary, "userland")
        _log.info("fetching a kernel and a userland from Debian's %s", architecture.suite)
        with debian.suite(architecture.suite, architecture.debian) as suite:
            suite.unpack(suite.dependencies(architecture.kernel), kernel)
            suite.unpack(architecture.userland, userland)
        _log.info("unpacking the kernel, and compiling Python's modules")
        (image,) = kernel.glob("boot/vmlinuz-*")
        shutil.copy(image, folder / KERNEL)
        (folder / VMLINUX).write_bytes(bzimage.vmlinux(image.read_bytes()))
        shutil.copy(userland / "bin/busybox", folder / BUSYBOX)
        _furnish(userland, architecture, kernel)
        (folder / INITRD).write_bytes(cpio.archive([*cpio.tree(userland), _CONSOLE]))
    _log.info("made the %s machine in %.0f s", architecture.name, time.monotonic() - start)


def _furnish(root: Path, architecture: Architecture, kernel: Path) -> None:
    """Make what the packages of a userland leave to scripts, and add the kernel's modules."""
    for pattern in _LEFT_OUT:
        for path in root.glob(pattern):
            shutil.rmtree(path)
    for name in (*_FOLDERS, "modules"):
        (root / name).mkdir(exist_ok=True)
    (root / "bin/sh").symlink_to("busybox")
    (root / "usr/bin/python3").symlink_to(f"python{architecture.python}")
    compile_tree(root, architecture.python)
    order = modules.load_order(kernel / "lib/modules", architecture.modules)
    for index, module in enumerate(order):
        shutil.copy(module, root / "modules" / f"{index:02}-{module.name}")
