"""Debian's stock kernel boots to its own userspace, under KVM as it comes with Debian.

In the nested machine: this host's own KVM may be one that cannot run an operating system.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from debian import Unavailable
from requirements import require

from nested.machine import Result, provision
from nested.scenarios import PRODUCT
from nested.stock import stock_kernel, stock_vmlinux, tiny_initrd

INIT = """
/bin/busybox mount -t proc proc /proc
echo "userspace of $(uname -s) with $(nproc) CPUs"
cat /proc/cmdline
poweroff -f
"""
RUN = "python3 -m vmm_arch run {kernel} --initrd initrd --memory 256M --timeout 300 {options}"
KERNELS = {"bzImage": "--append quiet", "vmlinux": "--append quiet --memory 192M"}


@pytest.fixture(scope="session")
def booted() -> Result:
    """Boot both images in one machine, one after the other."""
    try:
        machine = provision()
    except Unavailable as reason:
        require(False, str(reason))
    commands = [
        f"{RUN.format(kernel=kernel, options=options)} >results/{kernel}"
        f" 2>results/{kernel}.errors; echo $? >results/{kernel}.status"
        for kernel, options in KERNELS.items()
    ]
    files: dict[str, bytes | Path] = {
        "vmm_arch": PRODUCT,
        "bzImage": stock_kernel(),
        "vmlinux": stock_vmlinux(),
        "initrd": tiny_initrd(INIT),
    }
    return machine.run(files, ["sh", "-c", "; ".join(commands)], timeout=900)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_stock_kernel_boots_to_its_own_userspace(booted: Result, kernel: str) -> None:
    shown = booted.files[kernel].decode(errors="replace")
    errors = booted.files[f"{kernel}.errors"].decode()
    assert "userspace of Linux with 1 CPUs" in shown, shown + errors
    assert "console=ttyS0" in shown
    assert "vmm-arch: power off by vCPU" in errors
    assert booted.files[f"{kernel}.status"] == b"0\n"
