"""The table of targets, and a user's rows laid over it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.project import Project
from vmm_arch_gen.targets import load_targets

ROW = """
[origins.paper]
name = "Paper"
header = "paper.h"
macros = ["PAPER_VERSION"]

[paper_x86_64]
triple = "x86_64-linux-gnu"
cpu_macro = "__x86_64__"
headers = ["paper.h"]
folders = ["x86-linux-any", "any-linux-any"]
origin = "paper"
data_model = { long = 8, pointer = 8, byte_order = "little", signed_char = true, bit_fields = "sysv" }
shims = "SHIMS"
"""


def write_table(folder: Path, shims: str) -> Path:
    table = folder / "targets.toml"
    table.write_text(ROW.replace("SHIMS", shims))
    return table


def test_shims_lie_beside_the_table_or_in_the_package(tmp_path: Path, paths: Project) -> None:
    table = write_table(tmp_path, "windows")
    packages = paths.headers / "shims/windows"
    assert load_targets(paths.targets_file, table).targets["paper_x86_64"].shims == packages
    own = tmp_path / "shims/windows"
    own.mkdir(parents=True)
    targets = load_targets(paths.targets_file, table).targets
    assert targets["paper_x86_64"].shims == own
    assert targets["whp_x86_64"].shims == packages


@pytest.mark.parametrize(
    ("shims", "complaint"),
    [
        ('"libcc"', "there is no folder of shims {own}/shims/libcc or {package}/shims/libcc; "),
        ("3", "shims is 3, not the name of a folder; "),
    ],
)
def test_shims_that_are_nowhere(tmp_path: Path, paths: Project, shims: str, complaint: str) -> None:
    table = tmp_path / "targets.toml"
    table.write_text(ROW.replace('"SHIMS"', shims))
    (tmp_path / "shims/libc").mkdir(parents=True)
    with pytest.raises(InputError) as refused:
        load_targets(paths.targets_file, table)
    assert str(refused.value).startswith(f"{table}: [paper_x86_64]: ")
    assert complaint.format(own=tmp_path, package=paths.headers) in str(refused.value)


def test_headers_are_read_with_shims_of_ones_own(tmp_path: Path) -> None:
    """A header of a system's that the package does not have, needed to read and not to prove."""
    write_table(tmp_path, "libc")
    shims, include = tmp_path / "shims/libc/sys", tmp_path / "include"
    shims.mkdir(parents=True)
    include.mkdir()
    (shims / "odd.h").write_text("typedef unsigned int odd_t;\n")
    (include / "sys").mkdir()
    (include / "paper.h").write_text(
        "#include <sys/odd.h>\n#define PAPER_VERSION 1\nstruct paper { odd_t ink; };\n"
    )
    (include / "sys/odd.h").write_text("typedef unsigned int odd_t;\n")
    command = [sys.executable, "-m", "vmm_arch_gen", "extract", "--only", "paper_x86_64"]
    command += ["--targets", "targets.toml", "--include", "include", "--output", "abi"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "abi/paper_x86_64.abi").read_text()
    assert "shim:sys/odd.h" in text
    assert "struct paper" in text
