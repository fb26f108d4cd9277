"""What kernels make of the tables that describe the machine, on a stock KVM."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import boots_with_platform
import pytest
from requirements import require
from vmm_arch_gen.fetch.debian import Unavailable

from nested.architecture import AMD, KERNELS
from nested.machine import Result
from nested.packaged import packaged
from nested.scenarios import PRODUCT
from nested.stock import stock_kernel, tiny_initrd
from nested.test_nested import machine_of

pytestmark = pytest.mark.xdist_group("platform")

INIT = """
/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
echo "userspace with $(nproc) CPUs"
for file in /sys/class/dmi/id/*; do
    [ -f $file ] && echo "${file##*/}: $(cat $file)"
done
for device in /sys/bus/pci/devices/0*; do
    [ -e $device ] && echo "PCI device ${device##*/} is $(cat $device/vendor):$(cat $device/device)"
done
echo "renew my id"
sleep 1
reboot -f
"""


SMBIOS = (
    'Smbios(manufacturer="ACME", product="Rocket", serial="0042", bios_version="1.2",'
    ' uuid=UUID("00112233-4455-6677-8899-aabbccddeeff"), asset_tag="tag-7")'
)


@dataclass(frozen=True)
class Boot:
    """A boot, and what it has to show."""

    platform: str
    shows: tuple[str, ...]
    cpus: int
    kernel: str
    cmdline: str
    until: str = ""
    """Ends the guest, if it does not end itself by a reset."""


BOOTS = {
    # Debian's cloud kernel does not read it; memtest86+ does, and starts the processors.
    "mp-table": Boot(
        "Platform(acpi=False, smbios=None, mp_table=True)", ("SMP: 3T (PAR)",), cpus=3,
        kernel="memtest", cmdline="console=ttyS0,115200 smp=on", until="Status: Testing",
    ),
    "nothing": Boot(
        "Platform(acpi=False, smbios=None)", ("SMP: Disabled",), cpus=3,
        kernel="memtest", cmdline="console=ttyS0,115200 smp=on", until="Status: Testing",
    ),
    # The first of Debian's kernels with a driver for generation ids.
    "devices": Boot(
        "Platform(pci=PciRoot(range(0xE0000000, 0xE0200000), [range(0xD1000000, 0xD2000000)]),"
        f" generation_id=UUID(int=5), smbios={SMBIOS})",
        ("SMBIOS 3.0.0 present.", "DMI: ACME Rocket, BIOS 1.2 01/01/2020", "sys_vendor: ACME",
         "product_name: Rocket", "product_serial: 0042", "chassis_asset_tag: tag-7",
         "product_uuid: 00112233-4455-6677-8899-aabbccddeeff", "bios_vendor: vmm-arch",
         "SPCR: console: uart,io,0x3f8,115200", "earlycon: uart0 at I/O port 0x3f8",
         "ECAM [mem 0xe0000000-0xe01fffff] (base 0xe0000000) for domain 0000 [bus 00-01]",
         "pci_bus 0000:00: root bus resource [mem 0xd1000000-0xd1ffffff window]",
         "PCI device 0000:00:00.0 is 0x1234:0x0001", "crng reseeded due to virtual machine fork"),
        cpus=2, kernel="vmlinuz-trixie", cmdline="pci=realloc earlycon",
    ),
}  # fmt: skip


@cache
def booted() -> Result:
    """What came of all boots, one after the other in one machine."""
    try:
        memtest = packaged("memtest86+", "boot/memtest86+x64.bin")
    except Unavailable as reason:
        require(False, str(reason))
    script = []
    for name, boot in BOOTS.items():
        arguments = ["kvm_x86_64", boot.platform, str(boot.cpus), boot.kernel, boot.cmdline]
        command = shlex.join(["python3", "boots.py", *arguments, boot.until])
        script.append(f"{command} >results/{name} 2>results/{name}.errors")
    files: dict[str, bytes | Path] = {
        "vmm_arch": PRODUCT,
        "boots.py": Path(boots_with_platform.__file__),
        "vmlinuz-trixie": stock_kernel("trixie"),
        "memtest": memtest,
        "initrd.img": tiny_initrd(INIT),
    }
    return machine_of(AMD, KERNELS[0]).run(files, ["sh", "-c", "\n".join(script)], timeout=1000)


@pytest.mark.parametrize("name", BOOTS)
def test_a_kernel_uses_the_tables(name: str) -> None:
    result = booted()
    shown = result.files[name].decode(errors="replace")
    errors = result.files[f"{name}.errors"].decode()
    assert ("stopped" if BOOTS[name].until else "reset by vCPU") in errors, shown + errors
    for text in BOOTS[name].shows:
        assert text in shown, shown
