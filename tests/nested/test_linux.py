"""Debian's stock kernel boots to its own userspace, under KVM as it comes with Debian.

In nested machines: this host's own KVM may be one that cannot run an operating system. Through WHP
it boots there as well, on the stand-in for Microsoft's platform.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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
/bin/busybox mount -t sysfs sysfs /sys
echo "userspace of $(uname -s) with $(nproc) CPUs"
cat /proc/cmdline
for cpu in /sys/devices/system/cpu/cpu[0-9]*/topology; do
    echo "place $(cat $cpu/physical_package_id) $(cat $cpu/core_cpus_list) $(cat $cpu/package_cpus_list)"
done
poweroff -f
"""
CORES = {1: "1", 2: "2", 4: "4,sockets=2"}
"""What --cpus is given for so many CPUs. QEMU's AMD has no leaf that tells threads from cores."""
THREADS = CORES | {4: "4,sockets=2,threads=2"}
PLACES = {
    "1": ["0 0 0"],
    "2": ["0 0 0-1", "0 1 0-1"],
    "4,sockets=2": ["0 0 0-1", "0 1 0-1", "1 2 2-3", "1 3 2-3"],
    "4,sockets=2,threads=2": ["0 0-1 0-1", "0 0-1 0-1", "1 2-3 2-3", "1 2-3 2-3"],
}
"""By that: the socket of each CPU, the CPUs of its core, and those of its socket."""
README = "readme"
MOST = 30
"""Seconds of the guest's that saving and restoring may take at most: none passes between them."""
LATER = 40
"""Seconds after which it is restored again, with clocks that catch up."""
SAVED = "saved"
TELLS_THE_TIME = """
tell() {
    sed -n 's/^now at \\([0-9]*\\) nsecs/monotonic \\1/p' /proc/timer_list
    echo "real $(date +%s)"
}
/bin/busybox mount -t proc proc /proc
echo "userspace of $(uname -s) with $(nproc) CPUs"
cat /proc/cmdline
i=0
while [ $i -lt 5 ]; do i=$((i + 1)); tell; done
echo "what now?"
read line
echo "now $line"
while [ $i -lt 10 ]; do i=$((i + 1)); tell; sleep 0.1; done
cpu=0
while [ $cpu -lt $(nproc) ]; do taskset $((1 << cpu)) echo "CPU $cpu goes on"; cpu=$((cpu + 1)); done
poweroff -f
"""
"""Like INIT, but it tells the time again and again, and asks for a line in between."""


def run(options: str) -> str:
    """A command that boots the kernel."""
    return f"python3 -m vmm_arch run {options} --initrd initrd.img --timeout 300"


def with_cpus(cpus: Mapping[int, str] = CORES, options: str = "") -> dict[str, str]:
    """Commands by the names of their tests."""
    return {
        f"{number}-cpus": run(f"vmlinuz --memory 256M --cpus {wanted} --append quiet {options}")
        for number, wanted in cpus.items()
    }


def saved(cpus: int, *, catches_up: bool = False) -> dict[str, str]:
    """A command that saves the guest when it asks for a line, and goes on in another process.

    The file is small, since its checksum takes long there: Linux clears the memory that it frees.
    """
    run = "python3 -m vmm_arch run --timeout 300"
    boot = f"vmlinuz --initrd asks.img --memory 80M --cpus {cpus} --append 'quiet init_on_free=1'"
    commands = [
        f"{run} {boot} --save-on 'text:what now?' --save machine",
        'echo "the first process ended with $?"',
        "ls -s machine",
        f"echo go on | {run} --restore machine",
    ]
    if catches_up:
        commands += [
            'echo "the second process ended with $?"',
            f"sleep {LATER}; echo go on | {run} --restore machine --catch-up",
        ]
    return {SAVED: "(" + "; ".join(commands) + ")"}


@dataclass(frozen=True)
class Boots:
    """Boots of one hypervisor's, one after the other in one machine."""

    processor: str
    commands: dict[str, str]


BOOTS = {
    "kvm-amd": Boots(
        AMD,
        with_cpus()
        | {
            "vmlinux": run("vmlinux --memory 192M --append quiet"),
            "vmlinux-pvh": run("vmlinux --memory 192M --append quiet --protocol pvh"),
            README: "python3 readme_kvm.py",
        }
        | saved(cpus=2, catches_up=True),
    ),
    "whp": Boots(
        AMD,
        with_cpus(options="--hypervisor whp") | {README: "python3 readme_whp.py"},
    ),
    "kvm-intel": Boots("haswell", with_cpus(THREADS) | saved(cpus=1)),
}


CPUS = {("kvm-amd", SAVED): 2} | {
    (name, boot): int(boot.partition("-")[0])
    for name, boots in BOOTS.items()
    for boot in boots.commands
    if boot.endswith("-cpus")
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
        "asks.img": tiny_initrd(TELLS_THE_TIME),
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
    cpus = CPUS.get((name, boot), 1)
    assert f"userspace of Linux with {cpus} CPUs" in shown, shown + errors
    assert "console=ttyS0" in shown
    assert "power off by vCPU" in (shown if boot == README else errors)
    assert result.files[f"{boot}.status"] == b"0\n"
    if boot.endswith("-cpus"):
        wanted = (THREADS if name == "kvm-intel" else CORES)[cpus]
        assert re.findall(r"^place (.*?)\r?$", shown, re.MULTILINE) == PLACES[wanted]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xdist_group(f"linux-{name}"))
        for name, boots in BOOTS.items()
        if SAVED in boots.commands
    ],
)
def test_a_saved_linux_goes_on_in_a_new_process(name: str, checkout: Path) -> None:
    """Saved when its console is there, it takes what is typed at the new process's."""
    result = booted(name, checkout)
    shown = result.files[SAVED].decode(errors="replace").replace("\r\n", "\n")
    errors = result.files[f"{SAVED}.errors"].decode()
    before, ended, after = shown.partition("the first process ended with 0\n")
    after, _, caught_up = after.partition("the second process ended with ")
    assert ended, shown + errors
    assert before.rstrip("\n").endswith("what now?")
    assert "saved to machine on text:what now?: stopped after " in errors
    assert "now go on\n" in after
    for cpu in range(CPUS.get((name, SAVED), 1)):
        assert f"CPU {cpu} goes on\n" in after
    for clock in ("monotonic", "real"):
        told = [
            [int(time) for time in re.findall(rf"^{clock} (\d+)$", part, re.MULTILINE)]
            for part in (before, after)
        ]
        assert [len(times) for times in told] == [5, 5], shown
        times = [*told[0], *told[1]]
        assert times == sorted(times)
        gap = told[1][0] - told[0][-1]
        second = 10**9 if clock == "monotonic" else 1
        assert gap < MOST * second, "the clock has jumped"
        if caught_up:
            at = [int(t) for t in re.findall(rf"^{clock} (\d+)$", caught_up, re.MULTILINE)]
            assert len(at) == 5, shown
            assert at == sorted(at)
            assert at[0] - told[0][-1] >= LATER * second, "the clock has not caught up"
