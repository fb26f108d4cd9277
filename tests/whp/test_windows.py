"""The same tests in Windows' own Python, whose system folder has the platform's DLLs."""

from __future__ import annotations

import os
from pathlib import Path

from debian import Unavailable
from requirements import require

from whp.wine import run, windows_path

TESTS = Path(__file__).parent
MODULES = sorted(TESTS.glob("test_*.py"))


def test_the_platform_in_windows(checkout: Path, tmp_path: Path) -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    modules = [windows_path(module) for module in MODULES if module != Path(__file__)]
    # Without conftest.py, whose libraries are not all plain Python.
    options = ["-q", "--noconftest", "-p", "no:cacheprovider", "--rootdir", windows_path(TESTS)]
    try:
        done = run(
            ["-m", "pytest", *options, *modules],
            paths=[checkout / "generated", checkout / "tests"],
            folder=tmp_path,
        )
    except Unavailable as reason:
        require(False, str(reason))
    assert done.returncode == 0, done.stdout
    assert " passed in " in done.stdout
    assert "skipped" not in done.stdout
