"""The backends on newer Pythons: their tests, run by those, without anything installed there."""

from __future__ import annotations

import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from interpreters import SUITES, Unavailable, interpreter
from requirements import require

# What the tests need besides vmm_arch; all of it is Python that any version runs.
PACKAGES = (
    *("_pytest", "iniconfig", "packaging", "platformdirs", "pluggy", "py", "pygments", "pytest"),
    "ziglang",
)
MODULES = (
    "test_kvm_x86_64.py",
    "test_backends.py",
    "test_backends_running.py",
    "test_guests.py",
    "test_memory_of_files.py",
)


@pytest.mark.parametrize("version", SUITES)
def test_guests_and_state_on_other_pythons(version: str, checkout: Path, tmp_path: Path) -> None:
    try:
        python = interpreter(version)
    except Unavailable as reason:
        require(False, str(reason))
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        found = origin.parent if origin.name == "__init__.py" else origin
        for path in (found, *found.parent.glob(f"{package}-*.dist-info")):
            (tmp_path / path.name).symlink_to(path)
    tests = [checkout / "tests/backends" / module for module in MODULES]
    folders = [checkout / folder for folder in ("generated", "generator", "tests", "tests/support")]
    # Without conftest.py, whose libraries are not all plain Python.
    temporary = ["--basetemp", str(tmp_path / "t")]
    options = ["-q", "--noconftest", "-p", "backends", "-p", "no:cacheprovider", *temporary]
    done = subprocess.run(
        [python, "-W", "error", "-m", "pytest", *options, *tests],
        cwd=tmp_path,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(map(str, [tmp_path, *folders])),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHON_OF_THE_TESTS": str(python),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed in " in done.stdout
    assert "skipped" not in done.stdout
