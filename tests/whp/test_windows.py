"""The self-test as a user of Windows runs it: by Windows' own Python, over the stand-in's DLLs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import vmm_arch
from debian import Unavailable
from requirements import require
from vmm_arch.selftest.play import NAMES, Outcome

from whp.wine import run, windows_path

SLOWER = 5
"""How much longer a scenario may take there: each exit takes several calls of KVM's."""


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What came of all scenarios; one process plays them."""
    report = tmp_path_factory.mktemp("windows") / "report.json"
    command = ["-m", "vmm_arch", "selftest", "--report", windows_path(report)]
    package = Path(vmm_arch.__path__[0]).parent
    try:
        done = run([*command, "--patience", str(SLOWER)], paths=[package])
    except Unavailable as reason:
        require(False, str(reason))
        raise
    assert report.exists(), done.stdout
    told = json.loads(report.read_text())
    assert told["about"]["hypervisor"] == "whp"
    assert told["about"]["system"].startswith("Windows")
    return {name: Outcome(name, **outcome) for name, outcome in told["scenarios"].items()}


@pytest.mark.parametrize("name", NAMES, ids="windows-{}".format)
def test_guest(name: str, outcomes: dict[str, Outcome]) -> None:
    assert not outcomes[name].failure, outcomes[name].failure
