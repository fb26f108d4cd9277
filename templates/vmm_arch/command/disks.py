"""``vmm-arch run --disk FILE``: virtio block devices."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vmm_arch.devices.virtio.block import VirtioBlock

READ_ONLY: Final = ",ro"


@dataclass(frozen=True)
class Disk:
    """A disk, as the user has named it."""

    path: Path
    read_only: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the argument about disks."""
    parser.add_argument(
        "--disk",
        type=disk,
        action="append",
        default=[],
        metavar=f"FILE[{READ_ONLY}]",
        help="a virtio disk (vda, vdb …) with this file's content, which the guest writes, or not with"
        f" {READ_ONLY}; to boot from it, --append root=/dev/vda. Needed again with --restore",
    )


def disk(text: str) -> Disk:
    """Parse a disk."""
    path = text.removesuffix(READ_ONLY)
    if not path:
        raise argparse.ArgumentTypeError(f"{text!r} names no file")
    return Disk(Path(path), text.endswith(READ_ONLY))


def opened(options: argparse.Namespace, stack: ExitStack) -> list[VirtioBlock]:
    """Open the disks, which the stack closes. Raises OSError or ValueError."""
    return [
        stack.enter_context(VirtioBlock(wanted.path, read_only=wanted.read_only))
        for wanted in options.disk
    ]
