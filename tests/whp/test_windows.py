"""What Windows' own Python does with the stand-in's DLLs in its system folder: the tests of the
platform, and the self-test as a user of Windows runs it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from images import flat_kernel
from requirements import require
from vmm_arch.selftest.play import Outcome, Suite
from vmm_arch_gen.fetch.debian import Unavailable

from whp.wine import run, windows_path

TESTS = Path(__file__).parent
MODULES = [path for path in sorted(TESTS.glob("test_*.py")) if path != Path(__file__)]
SLOWER = 5
"""How much longer a scenario may take there: each exit takes several calls of KVM's."""


def windows(arguments: Sequence[str], paths: Sequence[Path], folder: Path) -> CompletedProcess[str]:
    """Run Windows' Python, where it can be had."""
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    try:
        return run(arguments, paths=paths, folder=folder)
    except Unavailable as reason:
        require(False, str(reason))
        raise


def test_the_platform(checkout: Path, tmp_path: Path) -> None:
    modules = [windows_path(module) for module in MODULES]
    # Without conftest.py, whose libraries are not all plain Python.
    options = ["-q", "--noconftest", "-p", "no:cacheprovider", "--rootdir", windows_path(TESTS)]
    paths = [checkout / "generated", checkout / "tests", checkout / "tests/support"]
    done = windows(["-m", "pytest", *options, *modules], paths, tmp_path)
    assert done.returncode == 0, done.stdout
    assert " passed in " in done.stdout
    assert "skipped" not in done.stdout


def test_a_kernel_is_run_and_typed_to(checkout: Path, tmp_path: Path) -> None:
    """Without signals, terminals or select: what is piped in comes back, and the guest ends."""
    # mov dx, 0x3fd; 1: in al, dx; test al, 1; jz 1b; mov dx, 0x3f8; in al, dx; out dx, al;
    # cmp al, '\n'; jne 0; power off
    code = "66 ba fd 03 ec a8 01 74 fb 66 ba f8 03 ec ee 3c 0a 75 ed 66 ba 00 06 b0 34 ee eb fe"
    kernel = flat_kernel(tmp_path / "kernel", bytes.fromhex(code))
    (tmp_path / "typed").write_bytes(b"typed\n")
    program = (
        "import subprocess, sys;"
        " typed = open('typed', 'rb');"
        " sys.exit(subprocess.run([sys.executable, '-m', 'vmm_arch', 'run', sys.argv[1],"
        " '--quiet', '--timeout', '60'], stdin=typed).returncode)"
    )
    arguments = ["-c", program, windows_path(kernel)]
    done = windows(arguments, [checkout / "generated"], tmp_path)
    assert done.returncode == 0, done.stdout
    assert "typed" in done.stdout


def test_doctor_speaks_of_windows_own_hypervisor_first(checkout: Path, tmp_path: Path) -> None:
    done = windows(["-m", "vmm_arch", "doctor"], [checkout / "generated"], tmp_path)
    assert done.returncode == 0, done.stdout
    system, report, *_ = done.stdout.splitlines()
    assert "Windows" in system
    assert report == "WHP: works on this host"
    assert "yes  a guest: created, ran and halted" in done.stdout


MEMORY_OF_A_FILE = """
import os
from vmm_arch import whp_x86_64 as arch
from vmm_arch.backing import BackingError, HugePagesUnavailableError

def refused(error, **arguments):
    try:
        arch.GuestMemory(0x20000, **arguments)
    except error as problem:
        return str(problem)
    raise AssertionError(arguments)

with arch.GuestMemory(0x20000) as memory:
    memory.write(0x1000, bytes.fromhex("fe 06 00 20 f4"))  # inc byte [0x2000]; hlt
    memory.save("saved")
    memory.save("saved")
    descriptor = os.open("with header", os.O_RDWR | os.O_CREAT | os.O_BINARY)
    memory.save(descriptor, 0x10000)
    os.close(descriptor)
for file, offset, shared, counts in [
    ("saved", 0, False, (0, 1)),
    ("with header", 0x10000, False, (0, 1)),
    ("saved", 0, True, (0, 1)),
    ("saved", 0, False, (1, 2)),
]:
    with arch.GuestMemory(0x20000, file=file, offset=offset, shared=shared) as memory:
        before = memory.read(0x2000, 1)[0]
        with arch.Vm(memory) as vm:
            arch.configure_vcpu(vm.vcpus[0], arch.RealMode(0x1000))
            assert isinstance(vm.vcpus[0].run(), arch.Halt)
        assert (before, memory.read(0x2000, 1)[0]) == counts, (file, shared)
assert "not a multiple of 0x10000" in refused(BackingError, file="with header", offset=0x1000)
assert "ends at 0x20000" in refused(BackingError, file="saved", offset=0x10000)
reader = os.open("saved", os.O_RDONLY | os.O_BINARY)
assert "cannot be written" in refused(BackingError, file=reader, shared=True)
os.close(reader)
assert "is not open" in refused(BackingError, file=reader)
for huge_pages in (2 << 20, "transparent"):
    assert "only Linux" in refused(HugePagesUnavailableError, huge_pages=huge_pages)
assert sorted(os.listdir()) == ["saved", "with header"]
print("all as it should be")
"""


def test_memory_of_a_file(checkout: Path, tmp_path: Path) -> None:
    done = windows(["-c", MEMORY_OF_A_FILE], [checkout / "generated"], tmp_path)
    assert done.returncode == 0, done.stdout
    assert "all as it should be" in done.stdout


SNAPSHOTS = """
import os
from vmm_arch import whp_x86_64 as arch
from vmm_arch.__main__ import main

def count(vm):
    return vm.vcpus[0].run().value

with arch.GuestMemory(0x20000) as memory, arch.Vm(memory, track_dirty=True) as vm:
    memory.write(0x1000, bytes.fromhex("40 a3 00 80 e7 10 eb f8"))  # counts in AX and at 0x8000
    arch.configure_vcpu(vm.vcpus[0], arch.RealMode(0x1000))
    assert count(vm) == 1
    whole = vm.take_snapshot(devices={"serial": 1})
    assert count(vm) == 2
    memory.write(0x9000, b"host")
    part = vm.take_snapshot(base=whole)
    assert part.memory.top.extents == [(0x8000, 0xA000)]
for snapshot, next in ((whole, 2), (part, 3), (whole, 2)):
    with snapshot.fork() as vm:
        assert count(vm) == next
        assert vm.memory.read(0x9000, 4) == (b"host" if snapshot is part else bytes(4))
whole.save("whole")
whole.save("whole")
part.save("part")
whole.close()
part.close()
with arch.Snapshot.load("whole", verify=True) as whole:
    with arch.Snapshot.load("part", base=whole, verify=True) as part:
        for snapshot, next in ((whole, 2), (part, 3)):
            with snapshot.fork() as vm:
                assert count(vm) == next
        with open("part", "r+b") as file:
            file.truncate(0x8000)
            try:
                arch.Snapshot.load("part", base=whole)
            except arch.SnapshotError as error:
                assert "is cut short" in str(error)
            else:
                raise AssertionError
assert main(["state", "whole"]) == 0
assert sorted(os.listdir()) == ["part", "whole"]
print("all as it should be")
"""


def test_snapshots(checkout: Path, tmp_path: Path) -> None:
    done = windows(["-c", SNAPSHOTS], [checkout / "generated"], tmp_path)
    assert done.returncode == 0, done.stdout
    assert "all as it should be" in done.stdout


@pytest.fixture(scope="session")
def outcomes(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    """What came of all scenarios; one process plays them."""
    folder = tmp_path_factory.mktemp("windows")
    report = folder / "report.json"
    options = ["--patience", str(SLOWER), "--report", windows_path(report)]
    done = windows(["-m", "vmm_arch", "selftest", *options], [checkout / "generated"], folder)
    assert report.exists(), done.stdout
    told = json.loads(report.read_text())
    assert told["about"]["hypervisor"] == "whp"
    assert told["about"]["system"].startswith("Windows")
    return {name: Outcome(name, **outcome) for name, outcome in told["scenarios"].items()}


@pytest.mark.parametrize("name", Suite("x86_64").names, ids="windows-{}".format)
def test_guest(name: str, outcomes: Mapping[str, Outcome]) -> None:
    assert not outcomes[name].failure, outcomes[name].failure
