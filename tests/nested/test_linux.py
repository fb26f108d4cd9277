"""Debian's stock kernel boots to its own userspace, under KVM as it comes with Debian.

In nested machines: this host's own KVM may be one that cannot run an operating system. Through WHP
it boots there as well, on the stand-in for Microsoft's platform.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from readme import boots_linux
from requirements import require
from vmm_arch.whp import VARIABLE
from vmm_arch_gen.fetch.debian import Unavailable
from whp.build import PLATFORM, libraries

from nested.architecture import AMD, PROCESSORS
from nested.machine import Result, provision
from nested.scenarios import PRODUCT
from nested.stock import stock_kernel, stock_vmlinux, tiny_initrd

INIT = """
/bin/busybox mount -t proc proc /proc
echo "userspace of $(uname -s) with $(nproc) CPUs"
cat /proc/cmdline
poweroff -f
"""
README = "readme"


def run(options: str) -> str:
    """A command that boots the kernel."""
    return f"python3 -m vmm_arch run {options} --initrd initrd.img --timeout 300"


def with_cpus(*numbers: int, options: str = "") -> dict[str, str]:
    """Commands by the names of their tests."""
    return {
        f"{number}-cpus": run(f"vmlinuz --memory 256M --cpus {number} --append quiet {options}")
        for number in numbers
    }


@dataclass(frozen=True)
class Boots:
    """Boots of one hypervisor's, one after the other in one machine."""

    processor: str
    commands: dict[str, str]


BOOTS = {
    "kvm-amd": Boots(
        AMD,
        with_cpus(1, 2, 4)
        | {
            "vmlinux": run("vmlinux --memory 192M --append quiet"),
            "vmlinux-pvh": run("vmlinux --memory 192M --append quiet --protocol pvh"),
            README: "python3 readme_kvm.py",
        },
    ),
    "whp": Boots(
        AMD,
        with_cpus(1, 2, 4, options="--hypervisor whp") | {README: "python3 readme_whp.py"},
    ),
    "kvm-intel": Boots("haswell", with_cpus(1, 2, 4)),
}


@cache
def booted(name: str, checkout: Path) -> Result:
    """What came of one machine's boots."""
    boots = BOOTS[name]
    try:
        machine = provision(PROCESSORS[boots.processor])
    except Unavailable as reason:
        require(False, str(reason))
    script = [f"export {VARIABLE}=whp/{PLATFORM}"]
    for boot, command in boots.commands.items():
        script.append(f"{command} >results/{boot} 2>results/{boot}.errors")
        script.append(f"echo $? >results/{boot}.status")
    files: dict[str, bytes | Path] = {
        "vmm_arch": PRODUCT,
        "whp": libraries(),
        "vmlinuz": stock_kernel(),
        "vmlinux": stock_vmlinux(),
        "initrd.img": tiny_initrd(INIT),
        "readme_kvm.py": boots_linux(checkout, "kvm_x86_64").encode(),
        "readme_whp.py": boots_linux(checkout, "whp_x86_64").encode(),
    }
    return machine.run(files, ["sh", "-c", "\n".join(script)], timeout=1000)


@pytest.mark.parametrize(
    ("name", "boot"),
    [
        pytest.param(name, boot, marks=pytest.mark.xdist_group(f"linux-{name}"))
        for name, boots in BOOTS.items()
        for boot in boots.commands
    ],
)
def test_a_stock_kernel_boots_to_its_own_userspace(name: str, boot: str, checkout: Path) -> None:
    result = booted(name, checkout)
    shown = result.files[boot].decode(errors="replace")
    errors = result.files[f"{boot}.errors"].decode()
    cpus = int(boot.partition("-")[0]) if boot.endswith("-cpus") else 1
    assert f"userspace of Linux with {cpus} CPUs" in shown, shown + errors
    assert "console=ttyS0" in shown
    assert "power off by vCPU" in (shown if boot == README else errors)
    assert result.files[f"{boot}.status"] == b"0\n"
