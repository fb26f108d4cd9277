#!/usr/bin/env python3
"""Coverage-guided fuzzing of kernel loading; what must hold is in images.py.

    pip install atheris                                       (Linux, Python 3.11 to 3.13)
    python3 tests/product/fuzz_kernel_loading.py -max_total_time=300 CORPUS

The arguments are libFuzzer's. An empty folder CORPUS is filled with seeds first. What is found is
written to a file crash-…, which is tried again by giving it as the only argument.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
INITRD = 64
"""Of the bytes behind the first, so many may be the initrd."""


def sample(machine: int, initrd: int | None, line: bytes, image: bytes) -> bytes:
    """An input: how to load in two bytes, the command line, the image, of which some is initrd."""
    how = machine | (0x80 if initrd is None else initrd << 2)
    return bytes([how, len(line)]) + line + image


def attempt(images: Any, multiboot: Any, data: bytes) -> None:
    """Load what an input says, as Linux and as a Multiboot kernel."""
    if len(data) < 2:
        return
    how, size = data[:2]
    line, image = data[2 : 2 + size], data[2 + size :]
    machine = images.MACHINES[how % len(images.MACHINES)]
    initrd = None if how & 0x80 else image[: (how >> 2) % INITRD]
    images.attempt(machine, image, line, initrd)
    modules = [] if initrd is None else [(initrd, line)]
    multiboot.attempt(machine, image, line, modules)


def seed(images: Any, multiboot: Any, corpus: Path) -> None:
    """Fill a folder with images, most of which can be loaded, in all ways."""
    corpus.mkdir(exist_ok=True)
    if any(corpus.iterdir()):
        return
    text = images.CODE[:0x210]
    kernels = [
        images.bzimage(text),
        images.bzimage(text, relocatable_kernel=0, xloadflags=1),
        images.elf([images.Part(0x200000, b"text" * 4, 0x2000), images.Part(0x208000, b"data")]),
        images.elf(
            [
                images.Part(0x200000, images.multiboot(0x200004) + images.multiboot2(0x200004)),
                images.notes(images.note(b"Xen\0", 18, b"\x04\0\x20\0")),
            ]
        ),
        images.old_bzimage(b"1.0.0+git", 0x207),
        multiboot.elf32([images.Part(0x200000, multiboot.header() + b"text" * 4, 0x2000)]),
        multiboot.header(multiboot.ADDRESSES, 0x100000, 0x100000, 0, 0, 0x100020) + b"text" * 4,
    ]
    for number, kernel in enumerate(kernels):
        for machine in range(len(images.MACHINES)):
            for initrd in (None, 5):
                data = sample(machine, initrd, b"quiet", kernel)
                (corpus / f"seed-{number}-{machine}-{initrd}").write_bytes(data)


def main() -> None:
    try:
        atheris = import_module("atheris")
    except ImportError:
        sys.exit("fuzz_kernel_loading.py: atheris is not installed; pip install atheris")
    sys.path[:0] = [str(ROOT / "generated"), str(ROOT / "tests"), str(ROOT / "tests/support")]
    with atheris.instrument_imports(
        include=["vmm_arch.x86_64", "vmm_arch.boot", "vmm_arch.memory"]
    ):
        images = import_module("images")
        multiboot = import_module("multiboot.images")
    for argument in sys.argv[1:]:
        if not argument.startswith("-") and not Path(argument).is_file():
            seed(images, multiboot, Path(argument))
    atheris.Setup(sys.argv, lambda data: attempt(images, multiboot, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
