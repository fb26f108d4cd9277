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
cd /tmp
while true; do printf '$ '; read -r command; (eval "$command"); done
"""
COMMANDS = (
    "cat /etc/motd; touch mine; ls",
    "ls; cat /sys/block/vda/size /sys/block/vda/ro; touch /mine",
)
ANSWERS = """\
$ cat /etc/motd; touch mine; ls
from the disk
mine
$ ls; cat /sys/block/vda/size /sys/block/vda/ro; touch /mine
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


RUN = "python3 -m vmm_arch run --timeout 300"
WRITES = f"""
{RUN} vmlinuz --initrd initrd.img --memory 80M --disk root.img --disk other.img,ro \\
    --append 'quiet init_on_free=1' --save-on 'text:$ ' --save machine 2>results/first
echo "first $?"
echo 'mount -o remount,rw /; cp /etc/motd /new; sync; cat /sys/block/vd?/ro; poweroff -f' |
    {RUN} --restore machine --disk root.img --disk other.img,ro 2>results/second
echo "second $?"
{RUN} --restore machine 2>results/third
echo "third $?"
grep -c 'from the disk' root.img
"""


def test_a_disk_is_written_and_a_saved_machine_goes_on_with_it(tmp_path: Path) -> None:
    """What a file from elsewhere names is not opened: the disks have to be given again."""
    files: dict[str, bytes | Path] = {"other.img": bytes(4096)}
    result = on_a_disk(AMD, tmp_path, files, ["sh", "-c", WRITES])
    said = {name: text.decode() for name, text in result.files.items()}
    lines = result.stdout.split()
    assert "first 0" in result.stdout, said
    assert "second 0" in result.stdout, said
    assert "third 2" in result.stdout, said
    assert lines[-1] == "2"
    third = said["third"]
    assert "VirtioMmio at addresses [0xd0000000, 0xd0001000): this bus has no such device" in third
    assert "give each --disk again" in third
