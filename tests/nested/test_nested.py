"""A stock Debian kernel's KVM, kvm-amd, run by QEMU: the guests' scenarios, and the machine itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from debian import Unavailable
from requirements import require
from vmm_arch.selftest.play import NAMES, Outcome

from nested.architecture import X86_64
from nested.machine import Machine, Result, provision
from nested.qemu import CONSOLE, run_qemu
from nested.scenarios import play_all
from nested.stock import stock_kernel, tiny_initrd


@dataclass(frozen=True)
class Difference:
    """A scenario that goes otherwise in this KVM, and has to for as long as it is listed."""

    says: str
    """What the failure's message matches."""
    reason: str


DIFFERENCES: Mapping[str, Difference] = {}
"""By the scenario's name."""


@pytest.fixture(scope="session")
def machine() -> Machine:
    try:
        return provision()
    except Unavailable as reason:
        require(False, str(reason))
        raise


@pytest.fixture(scope="session")
def outcomes(machine: Machine) -> dict[str, Outcome]:
    """What came of all scenarios; the machine is booted once for them."""
    return play_all(machine, NAMES)


@pytest.mark.parametrize("name", NAMES, ids="nested-{}".format)
def test_guest(name: str, outcomes: Mapping[str, Outcome]) -> None:
    failure = outcomes[name].failure
    if (difference := DIFFERENCES.get(name)) is None:
        assert not failure, failure
    else:
        assert re.search(difference.says, failure), f"not as listed: {failure or 'it passed'}"


def test_every_difference_is_a_scenarios() -> None:
    assert set(DIFFERENCES) <= set(NAMES)


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
    ended = run_qemu(machine.qemu, X86_64, stock_kernel(), initrd, (), tmp_path, 300)
    assert ended is None
    console = (tmp_path / CONSOLE).read_text()
    assert "I am process 1\nLinux\n" in console
    assert "Kernel panic - not syncing: Attempted to kill init!" in console
