"""The README's example works when it is copied literally, and prints what the README says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from requirements import require


def test_the_first_example(checkout: Path, tmp_path: Path) -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    text = (checkout / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S)
    shown = re.search(r"```console\n\$ python3 first.py\n(.*?)```", text, re.S)
    assert code is not None
    assert shown is not None
    (tmp_path / "first.py").write_text(code[1])
    done = subprocess.run(
        [sys.executable, "first.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (shown[1], "")


def test_the_functions_that_are_shown_are_the_generated_ones(checkout: Path) -> None:
    text = (checkout / "README.md").read_text()
    shown = re.findall(r"```python\n(def configure_long64.*?)```", text, re.S)
    for function, backend in zip(shown, ("kvm_x86_64", "whp_x86_64"), strict=True):
        assert function in (checkout / f"generated/vmm_arch/{backend}.py").read_text()
