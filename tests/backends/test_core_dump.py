"""ELF core dumps, read by gdb, readelf and crash."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from debugged_kernel import enter, kernel_at, symbols
from requirements import require
from vmm_arch.exits import Kicked
from vmm_arch.memory import Region
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.x86_64.core_dump import _write_headers, find_vmcoreinfo, save_core
from vmm_arch.x86_64.entry import Long64
from vmm_arch.x86_64.platform.memory_map import GuestMemory

LATE = 60
HIGH = 0xFFFF_FFFF_8020_0000
TABLES = 0x10_0000


@pytest.fixture(autouse=True)
def tools() -> None:
    for tool in ("gcc", "gdb", "readelf"):
        require(shutil.which(tool) is not None, f"no {tool}")


def said_by(*command: object) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=LATE,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout + done.stderr


def gdb(kernel: Path, core: Path, *commands: str) -> str:
    arguments = [part for command in commands for part in ("-ex", command)]
    return said_by("gdb", "-batch", "-nx", kernel, "-core", core, *arguments)


@pytest.fixture
def vm(arch: AnyBackend) -> Iterator[Any]:
    with arch.GuestMemory(16 << 20) as memory, arch.Vm(memory, vcpus=2) as vm:
        yield vm


def run_for_a_while(vcpu: Any) -> None:
    timer = threading.Timer(0.3, vcpu.kick)
    timer.start()
    assert isinstance(vcpu.run(), Kicked)
    timer.join()


@pytest.mark.parametrize("by_virtual_address", [False, True])
def test_two_vcpus_in_a_kernel(
    arch: AnyBackend, vm: Any, tmp_path: Path, by_virtual_address: bool
) -> None:
    kernel, core = kernel_at(tmp_path), tmp_path / "core"
    enter(arch, vm, kernel)
    for vcpu in vm.vcpus:
        run_for_a_while(vcpu)
    regs = vm.vcpus[1].get_regs()
    fpu = vm.vcpus[1].get_fpu()
    fpu.xmm[5][0] = 0x77
    vm.vcpus[1].set_fpu(fpu)
    save_core(vm, core, by_virtual_address=by_virtual_address)
    said = gdb(
        kernel,
        core,
        "info threads",
        "backtrace",
        "thread 2",
        "backtrace",
        "print/x $pc",
        "print/x $sp",
        "print/x $xmm5.uint128",
        "print counters[0] > 0 && counters[1] > 0",
    )
    for expected in (
        r"\* 1 +LWP 1 ",
        r"  2 +LWP 2 ",
        r"in work \(number=0\)|work \(number=0\) at",
        r"in kernel \(\)",
        r"in work \(number=1\)|work \(number=1\) at",
        r"in second \(\)",
        rf"\$1 = {regs.rip:#x}\n",
        rf"\$2 = {regs.rsp:#x}\n",
        r"\$3 = 0x77\n",
        r"\$4 = 1\n",
    ):
        assert re.search(expected, said), (expected, said)
    assert os.stat(core).st_blocks * 512 < 1 << 20  # of 16 MiB


def test_a_kernel_that_is_elsewhere_physically(arch: AnyBackend, vm: Any, tmp_path: Path) -> None:
    """As Linux is: gdb finds it only by virtual address."""
    kernel, core = kernel_at(tmp_path, HIGH, "-mcmodel=kernel"), tmp_path / "core"
    image = tmp_path / "image"
    subprocess.run(
        ["objcopy", "-O", "binary", "-j", ".text", kernel, image], check=True, timeout=LATE
    )
    vm.memory.write(0x20_0000, image.read_bytes())
    pdpt, directory = TABLES + 0x1000, TABLES + 0x2000
    for at, value in (
        (TABLES + 8 * 511, pdpt | 3),
        (pdpt + 8 * 510, directory | 3),
        (directory + 8 * 1, 0x20_0083),
        (TABLES, pdpt | 3),  # the stacks
        (pdpt, directory | 3),
        (directory, 0x83),
    ):
        vm.memory.write(at, struct.pack("<Q", value))
    vcpu = vm.vcpus[0]
    entry = Long64(0x1000, rsp=0x8000)
    arch.configure_system(vm, entry)
    arch.configure_vcpu(vcpu, entry)
    sregs, regs = vcpu.get_sregs(), vcpu.get_regs()
    sregs.cr3, regs.rip = TABLES, symbols(kernel)["_start"]
    vcpu.set_sregs(sregs)
    vcpu.set_regs(regs)
    run_for_a_while(vcpu)
    save_core(vm, core, by_virtual_address=True)
    said = gdb(kernel, core, "backtrace", "print counters[0] > 0")
    assert "in kernel ()" in said
    assert "$1 = 1\n" in said
    assert "0xffffffff80000000 0x0000000000000000 0x400000 0x400000" in said_by(
        "readelf", "-lW", core
    )
    save_core(vm, core)
    # Then gdb takes what the kernel's file has.
    assert "$1 = 0\n" in gdb(kernel, core, "print counters[0]")


def test_every_region_is_there(arch: AnyBackend, tmp_path: Path) -> None:
    core = tmp_path / "core"
    regions = [Region(0, 0x10000), Region(1 << 32, 0x20000)]
    with arch.GuestMemory(regions) as memory, arch.Vm(memory) as vm:
        memory.write(0x100001000, b"up there")
        memory.write(0x1000, b"\xf4")
        save_core(vm, core)
    listed = said_by("readelf", "-hlW", core)
    assert re.search(r"LOAD +0x001000 0x0{16} 0x0{16} 0x010000 0x010000 RWE 0", listed)
    assert re.search(r"LOAD +0x011000 0x0000000100000000 0x0000000100000000 0x020000", listed)
    assert core.read_bytes()[0x12000:0x12008] == b"up there"
    assert "CORE (Core file)" in listed
    assert "Advanced Micro Devices X86-64" in listed


def test_more_segments_than_a_header_counts(tmp_path: Path) -> None:
    core = tmp_path / "core"
    loads = [(page << 13, page << 12, 0x1000, page << 12) for page in range(70_000)]
    with open(core, "wb") as file:
        _write_headers(file.fileno(), loads, b"")
    listed = said_by("readelf", "-lW", core)
    assert "There are 70001 program headers" in listed
    assert listed.count("LOAD ") == 70_000


VMCOREINFO = b"OSRELEASE=6.1.0-test\nPAGESIZE=4096\nKERNELOFFSET=0\n"


def note_of(content: bytes) -> bytes:
    return struct.pack("<3I", 11, len(content), 0) + b"VMCOREINFO\0\0" + content


def test_what_linux_says_about_itself(arch: AnyBackend, vm: Any, tmp_path: Path) -> None:
    core = tmp_path / "core"
    vm.memory.write(0x80_1234, note_of(b"OSRELEASE=not at a page's start"))
    vm.memory.write(0x80_2000, note_of(VMCOREINFO)[:24] + b"something else")
    assert find_vmcoreinfo(vm.memory) is None
    vm.memory.write(0x80_4000, note_of(VMCOREINFO))
    assert find_vmcoreinfo(vm.memory) == VMCOREINFO
    save_core(vm, core)
    assert "VMCOREINFO" in said_by("readelf", "-nW", core)
    if shutil.which("crash") is not None:
        assert said_by("crash", "--osrelease", core) == "6.1.0-test\n"


def test_a_note_whose_length_lies_is_none() -> None:
    with GuestMemory(0x4000) as memory:
        memory.write(0x1000, struct.pack("<3I", 11, 0xFFFF_FFFF, 0) + note_of(VMCOREINFO)[12:])
        assert find_vmcoreinfo(memory) is None


def test_page_tables_that_make_no_sense(arch: AnyBackend, vm: Any, tmp_path: Path) -> None:
    """Each entry of the one table is the table."""
    core = tmp_path / "core"
    core.write_bytes(b"as before")
    vm.memory.write(TABLES, struct.pack("<Q", TABLES | 3) * 512)
    entry = Long64(0x1000, rsp=0x8000)
    arch.configure_system(vm, entry)
    arch.configure_vcpu(vm.vcpus[0], entry)
    sregs = vm.vcpus[0].get_sregs()
    sregs.cr3 = TABLES
    vm.vcpus[0].set_sregs(sregs)
    with pytest.raises(ValueError, match="there are more than 16384 page tables at 0x100000"):
        save_core(vm, core, by_virtual_address=True)
    assert core.read_bytes() == b"as before"
    save_core(vm, core)


@pytest.mark.parametrize(("options", "there"), [(["--core", "core"], True), ([], False)])
def test_the_command(tmp_path: Path, options: list[str], there: bool) -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    kernel = kernel_at(tmp_path)
    command = [sys.executable, "-m", "vmm_arch", "run", kernel, "--memory", "16M", "--timeout", "1"]
    done = subprocess.run(
        [*map(str, command), *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=LATE,
    )
    assert done.returncode == 124
    assert ("vmm-arch: core dump in core\n" in done.stderr) == there, done.stderr
    assert (tmp_path / "core").exists() == there


def test_what_the_command_refuses(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vmm_arch", "run", str(tmp_path / "no"), "--core-paging"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LATE)
    assert done.returncode == 2
    assert "--core-paging: it is about a core dump; give --core FILE as well" in done.stderr
