"""The snapshot fuzzer finds the bugs of its parser, and keeps inputs with which they come again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from requirements import require

KINDS = ("did not end", "exception at 0x", "(left its code|touched 0x)")
"""A division by zero, a chunk that is never left, and a row that is written beyond its end."""


def test_it_finds_three_bugs(checkout: Path, tmp_path: Path) -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    process = subprocess.Popen(
        [sys.executable, checkout / "examples/snapshot_fuzzer.py", "240", "kept"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    said = ""
    assert process.stdout is not None
    try:
        for line in process.stdout:
            said += line
            if all(re.search(rf"(^|\r){kind}", said, re.M) for kind in KINDS):
                break
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
    assert all(re.search(rf"(^|\r){kind}", said, re.M) for kind in KINDS), said
    assert re.search(r"\d+ runs, \d+ a second, \d+ of \d+ blocks", said)
    kept = {file.name: file.read_bytes() for file in (tmp_path / "kept").iterdir()}
    assert all(data.startswith(b"IMG\1") and len(data) <= 64 for data in kept.values())
    assert "did-not-end" in kept


def test_it_is_a_page_or_two(checkout: Path) -> None:
    text = (checkout / "examples/snapshot_fuzzer.py").read_text()
    without_parser = re.sub(r'PARSER = r""".*?"""', "", text, flags=re.S)
    lines = [line for line in without_parser.splitlines() if line.strip()]
    assert len(lines) <= 110
