"""Debian's stock kernel on a virtio disk, in nested machines: the example of a micro-VM."""

from __future__ import annotations

from pathlib import Path

import pytest
from requirements import require
from vmm_arch.whp import VARIABLE
from vmm_arch_gen.fetch.debian import Unavailable
from whp.build import PLATFORM, libraries

from nested.architecture import AMD
from nested.machine import Result
from nested.scenarios import PRODUCT
from nested.stock import disk_image, disk_initrd, stock_kernel
from nested.test_nested import machine_of

SHELL = """
/bin/busybox mount -t tmpfs tmpfs /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
cat /etc/motd
while true; do printf '$ '; read -r command; (eval "$command"); done
"""
COMMANDS = (
    "cat /etc/motd; touch /tmp/mine; ls /tmp",
    "ls /tmp; cat /sys/block/vda/size /sys/block/vda/ro; touch /mine",
)
ANSWERS = """\
$ cat /etc/motd; touch /tmp/mine; ls /tmp
from the disk
mine
$ ls /tmp; cat /sys/block/vda/size /sys/block/vda/ro; touch /mine
16384
1
touch: /mine: Read-only file system
"""


def on_a_disk(
    processor: str, folder: Path, files: dict[str, bytes | Path], command: list[str]
) -> Result:
    """Run a command in a nested machine, beside the product, a kernel, and a disk for its guest."""
    image = folder / "root.img"
    try:
        files |= {
            "vmm_arch": PRODUCT,
            "vmlinuz": stock_kernel(),
            "initrd.img": disk_initrd(),
            "whp": libraries(),
        }
    except Unavailable as reason:
        require(False, str(reason))
    disk_image(image, SHELL)
    files["root.img"] = image
    return machine_of(processor, "bookworm").run(files, command, timeout=900)


@pytest.mark.parametrize(
    ("processor", "backend"),
    [(AMD, "kvm_x86_64"), (AMD, "whp_x86_64"), ("haswell", "kvm_x86_64")],
)
def test_a_micro_vm_runs_each_command_from_the_same_snapshot(
    processor: str, backend: str, checkout: Path, tmp_path: Path
) -> None:
    example = (checkout / "examples/microvm.py").read_text()
    assert "import kvm_x86_64 as arch" in example
    example = example.replace("import kvm_x86_64 as arch", f"import {backend} as arch")
    command = ["env", f"{VARIABLE}=whp/{PLATFORM}", "python3", "microvm.py"]
    command += ["vmlinuz", "initrd.img", "root.img", *COMMANDS]
    result = on_a_disk(processor, tmp_path, {"microvm.py": example.encode()}, command)
    assert result.status == 0, result.stdout + result.stderr
    # The terminal's echo is a line of its own.
    echoed = [line for line in result.stdout.splitlines() if line not in COMMANDS]
    assert echoed == ANSWERS.splitlines()
