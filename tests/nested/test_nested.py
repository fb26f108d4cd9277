"""Stock Debian kernels' own KVM, run by emulators: the guests' scenarios, and the machine itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from requirements import require
from vmm_arch.kvm_x86_64 import UNSUPPORTED
from vmm_arch.selftest.play import Suite
from vmm_arch_gen.fetch.debian import Unavailable

from nested.architecture import AMD, KERNELS, PROCESSORS
from nested.emulator import CONSOLE, PORTS
from nested.machine import Machine, Result, provision
from nested.scenarios import Played, play_all
from nested.stock import stock_kernel, tiny_initrd

SUITE = Suite("x86_64")
NAMES = SUITE.names


@dataclass(frozen=True)
class Difference:
    """A scenario that goes otherwise in one KVM, and has to for as long as it is listed."""

    says: str
    """What the failure's message matches."""
    reason: str


DIFFERENCES: Mapping[tuple[str, str], Difference] = {
    (AMD, "software_breakpoints"): Difference(
        "expected a breakpoint", "QEMU 7.2 intercepts INT3 as another software interrupt"
    ),
    (AMD, "hardware_breakpoints"): Difference(
        "the breakpoint for", "QEMU 7.2 does not look at debug registers that VMRUN loads"
    ),
    (AMD, "avx"): Difference(
        # The first if an interrupt comes between XSETBV and XGETBV: KVM then loads the XCR0 that it knows.
        r"OUT of 4 to port (0x10 with 0x7|0x11 with 0x340),",
        "QEMU 7.2 does not intercept XSETBV, so that KVM does not know the guest's XCR0",
    ),
}
"""By the processor and the scenario's name."""

LACKING = {("lynnfield", "avx"), ("penryn", "avx")}
"""Scenarios for which a processor is too old."""

# Every kernel on AMD's, since one boot takes a third of one in Bochs; every processor of Intel's.
KVMS = [
    *((AMD, suite) for suite in KERNELS),
    *((processor, KERNELS[0]) for processor in PROCESSORS if processor != AMD),
]


def machine_of(processor: str, suite: str) -> Machine:
    try:
        return provision(PROCESSORS[processor], suite)
    except Unavailable as reason:
        require(False, str(reason))
        raise


def each_its_own_group(kvms: list[tuple[str, str]]) -> list[object]:
    """Parameters of tests that may run at the same time as those of the next ones."""
    return [
        pytest.param(
            kvm, id="-".join(kvm), marks=pytest.mark.xdist_group(f"nested-{'-'.join(kvm)}")
        )
        for kvm in kvms
    ]


@pytest.fixture(scope="module", params=each_its_own_group(KVMS))
def kvm(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A processor and the suite of a kernel, in turn."""
    processor, suite = request.param
    return processor, suite


@pytest.fixture(scope="module")
def played(kvm: tuple[str, str]) -> Played:
    """What came of all scenarios; the machine is booted once for them."""
    return play_all(machine_of(*kvm), NAMES)


@pytest.mark.parametrize("name", NAMES, ids="nested-{}".format)
def test_guest(name: str, kvm: tuple[str, str], played: Played) -> None:
    outcome = played.outcomes[name]
    failure = outcome.failure
    unsupported = UNSUPPORTED.keys() & SUITE.scenario(name).MACHINE.operations
    assert not outcome.lacking or (kvm[0], name) in LACKING or unsupported, outcome.lacking
    if (difference := DIFFERENCES.get((kvm[0], name))) is None:
        assert not failure, failure
    else:
        assert re.search(difference.says, failure), f"not as listed: {failure or 'it passed'}"


def test_the_kvm_is_the_one_that_is_meant(kvm: tuple[str, str], played: Played) -> None:
    expected = PROCESSORS[kvm[0]].parameters
    assert {name: played.parameters.get(name) for name in expected} == expected


def test_every_difference_is_a_scenarios() -> None:
    assert {name for _, name in DIFFERENCES} <= set(NAMES)
    assert {processor for processor, _ in DIFFERENCES} <= set(PROCESSORS)


EMULATORS = each_its_own_group([(AMD, KERNELS[0]), ("haswell", KERNELS[0])])


@pytest.fixture(scope="module", params=EMULATORS)
def machine(request: pytest.FixtureRequest) -> Machine:
    """A machine of each emulator."""
    return machine_of(*request.param)


@pytest.fixture(scope="module")
def result(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """What came of a command that does a little of everything."""
    folder = tmp_path_factory.mktemp("folder")
    (folder / "module.py").write_text("SAID = 'imported'\n")
    (folder / "script.sh").write_text("#!/bin/sh\necho ran\n")
    (folder / "script.sh").chmod(0o755)
    script = r"""
        echo out; printf 'not UTF-8: \377\n' >&2
        python3 -c 'import package.module; print(package.module.SAID, package.module.__cached__)'
        ./script.sh
        cat some/bytes > results/bytes
        mkdir results/folder; uname -r > results/folder/release
        ls /dev/kvm
        exit 7
    """
    files: dict[str, bytes | Path] = {
        "package": folder,
        "script.sh": folder / "script.sh",
        "some/bytes": bytes(range(256)),
    }
    return machine.run(files, ["sh", "-c", script])


def test_output_and_status_come_out(result: Result) -> None:
    out, imported, *rest = result.stdout.splitlines()
    assert (out, rest) == ("out", ["ran", "/dev/kvm"])
    # It was compiled before: inside that takes too long.
    assert imported == "imported /job/package/__pycache__/module.cpython-311.pyc"
    assert result.stderr == "not UTF-8: \\xff\n"
    assert result.status == 7


def test_files_come_out(result: Result) -> None:
    assert result.files.keys() == {"bytes", "folder/release"}
    assert result.files["bytes"] == bytes(range(256))
    release = result.files["folder/release"].strip()
    assert release in stock_kernel().read_bytes()


def test_the_kernels_messages_are_kept_apart(result: Result) -> None:
    assert "reboot: Power down" in result.console
    assert "imported" not in result.console


def test_a_tiny_initrd_runs_its_script_and_a_panic_ends_the_machine(
    machine: Machine, tmp_path: Path
) -> None:
    initrd = tmp_path / "initrd"
    initrd.write_bytes(
        tiny_initrd("echo I am process $$; /bin/busybox mount -t proc proc /proc; uname -s")
    )
    ended = machine.boot(stock_kernel(), initrd, tmp_path, 300)
    assert ended is None
    console = (tmp_path / CONSOLE).read_text().replace("\r\n", "\n")
    assert "I am process 1\nLinux\n" in console
    assert "Kernel panic - not syncing: Attempted to kill init!" in console
    assert not any((tmp_path / port).exists() and (tmp_path / port).read_bytes() for port in PORTS)
