"""Debian's stock kernel boots to its own userspace, under KVM as it comes with Debian.

In the nested machine: this host's own KVM may be one that cannot run an operating system. Through
WHP it boots there as well, on the stand-in for Microsoft's platform.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from debian import Unavailable
from requirements import require
from vmm_arch.whp import VARIABLE
from whp.build import PLATFORM, libraries

from nested.machine import Result, provision
from nested.scenarios import PRODUCT
from nested.stock import stock_kernel, stock_vmlinux, tiny_initrd

INIT = """
/bin/busybox mount -t proc proc /proc
echo "userspace of $(uname -s) with $(nproc) CPUs"
cat /proc/cmdline
/bin/busybox grep ACPI /proc/iomem
poweroff -f
"""
RUN = f"{VARIABLE}=whp/{PLATFORM} python3 -m vmm_arch run"
OPTIONS = "--initrd initrd --append quiet --timeout 300"
BOOTS = {
    "bzImage": "bzImage --memory 256M",
    "vmlinux": "vmlinux --memory 192M",
    "whp": "bzImage --memory 256M --hypervisor whp",
}


@pytest.fixture(scope="session")
def booted() -> Result:
    """Boot all of them in one machine, one after the other."""
    try:
        machine = provision()
    except Unavailable as reason:
        require(False, str(reason))
    commands = [
        f"{RUN} {boot} {OPTIONS} >results/{name} 2>results/{name}.errors;"
        f" echo $? >results/{name}.status"
        for name, boot in BOOTS.items()
    ]
    commands.append("python3 -m vmm_arch doctor >results/doctor")
    files: dict[str, bytes | Path] = {
        "vmm_arch": PRODUCT,
        "whp": libraries(),
        "bzImage": stock_kernel(),
        "vmlinux": stock_vmlinux(),
        "initrd": tiny_initrd(INIT),
    }
    return machine.run(files, ["sh", "-c", "\n".join(commands)], timeout=1000)


@pytest.mark.parametrize("boot", BOOTS)
def test_a_stock_kernel_boots_to_its_own_userspace(booted: Result, boot: str) -> None:
    shown = booted.files[boot].decode(errors="replace")
    errors = booted.files[f"{boot}.errors"].decode()
    assert "userspace of Linux with 1 CPUs" in shown, shown + errors
    assert "console=ttyS0" in shown
    assert "000e0000-000effff : ACPI Tables" in shown
    assert "vmm-arch: power off by vCPU" in errors
    assert booted.files[f"{boot}.status"] == b"0\n"


def test_doctor_knew_it(booted: Result) -> None:
    """It says the contrary of hosts whose hypervisor emulates instructions and lacks some."""
    said = booted.files["doctor"].decode()
    assert "yes  module: kvm_amd nested=" in said
    assert "yes  an operating system: " in said
