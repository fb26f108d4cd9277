"""The same tests in Windows' own Python, whose system folder has the platform's DLLs."""

from __future__ import annotations

import os
from pathlib import Path

from debian import Unavailable
from requirements import require

from whp.wine import run_tests

TESTS = Path(__file__).parent
MODULES = sorted(TESTS.glob("test_*.py"))


def test_the_platform_in_windows() -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    try:
        done = run_tests([module for module in MODULES if module != Path(__file__)])
    except Unavailable as reason:
        require(False, str(reason))
    assert done.returncode == 0, done.stdout
    assert " passed in " in done.stdout
    assert "skipped" not in done.stdout
