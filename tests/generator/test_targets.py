"""The table of targets, and a user's rows laid over it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.project import Project
from vmm_arch_gen.show.targets import families
from vmm_arch_gen.targets import TargetTable, load_targets

ROW = """
[origins.paper]
name = "Paper"
header = "paper.h"
macros = ["PAPER_VERSION"]

[families.paper]
system = "linux"
cpus = ["x86_64"]
headers = ["paper.h"]
origin = "paper"
shims = "SHIMS"
"""


def write_table(folder: Path, shims: str) -> Path:
    table = folder / "targets.toml"
    table.write_text(ROW.replace("SHIMS", shims))
    return table


def test_a_column_is_the_familys_or_its_cpus_or_the_systems(tmp_path: Path, paths: Project) -> None:
    text = ROW.replace('cpus = ["x86_64"]', 'cpus = ["aarch64", "slate"]').replace(
        '"SHIMS"', '"windows"'
    )
    (tmp_path / "targets.toml").write_text(f"""{text}
        [families.paper.slate]
        headers = ["slate.h", "paper.h"]
        prelude = "typedef int odd_t;"
        [cpus.slate.linux]
        triple = "arm-linux-gnueabihf"
        cpu_macro = "__arm__"
        folders = ["arm-linux-any"]
        data_model = {{ long = 4, pointer = 4, byte_order = "little", signed_char = false, bit_fields = "aapcs" }}
        prelude = "typedef int even_t;"
        [families.notes]
        system = "linux"
        cpus = ["slate"]
        headers = ["notes.h"]
        """)
    table = load_targets(paths.targets_file, tmp_path / "targets.toml")
    kvm, arm = table.targets["kvm_aarch64"], table.targets["paper_aarch64"]
    assert (arm.triple, arm.model, arm.folders) == (kvm.triple, kvm.model, kvm.folders)
    assert (arm.headers, arm.origin.name) == (("paper.h",), "Paper")
    slate, notes = table.targets["paper_slate"], table.targets["notes_slate"]
    assert slate.headers == ("slate.h", "paper.h")
    assert (slate.family, slate.cpu, slate.system, slate.model.long) == (
        "paper",
        "slate",
        "linux",
        4,
    )
    assert (slate.prelude, notes.prelude) == ("typedef int odd_t;", "typedef int even_t;")
    assert (slate.origin.name, notes.origin.name) == ("Paper", "Linux")
    assert {"kvm_x86_64", "whp_x86_64"} < set(table.targets)


@pytest.mark.parametrize(
    ("old", "new", "complaints"),
    [
        ('cpus = ["x86_64"]', 'cpus = ["vax"]', ["[families.paper.vax]: there is no CPU 'vax' of 'linux': the CPUs are x86_64, "]),
        ('system = "linux"', 'system = "vms"', ["[families.paper.x86_64]: there is no CPU 'x86_64' of 'vms': the systems are kernel, linux, "]),
        ('system = "linux"', "", ["[families.paper]: has no 'system'"]),
        ('headers = ["paper.h"]', "", ["[families.paper.x86_64]: has no headers"]),
        ("[families.paper]", "[families.kvm]", ["[families.kvm.x86_64]: there is one of this name already"]),
        ("[families.paper]", "[family.paper]", ["[family]: there is no such table; tables: package, packages, origins, "]),
        ("[families.paper]", "[families.pa_per]\nbackend = true", ["[families.pa_per.x86_64]: a family with a backend needs a name without '_'"]),
        ("[families.paper]", "[families.paper.arm]\n[families.paper]", ["[families.paper]: has an unknown column: arm"]),
        ("[families.paper]", "[systems.linux]\n[cpus.x86_64.linux]\n[families.paper]", ["[systems.linux]: there is one of this name already", "[cpus.x86_64.linux]: there is one of this name already"]),
        ("[families.paper]", "[families.a]\n[families.paper]\nbackend = 3", ["[families.a]: has no 'system'", "[families.paper]: backend is 3, not true or false"]),
        ('name = "Paper"', "", ["[origins.paper]: has no name"]),
        ("[families.paper]", "[families.paper]\nioctl_rules = \"vms\"", ["[families.paper]: ioctl_rules is 'vms', none of 'generic', 'bsd'"]),
        ('name = "Paper"', 'names = "Paper"', ["[origins.paper]: has an unknown entry: names"]),
        ("[families.paper]", "[families.paper]\ndata_model = { long = 8 }", ["[families.paper]: has no pointer, byte_order, signed_char, bit_fields"]),
    ],
)  # fmt: skip
def test_a_wrong_table_is_named(
    tmp_path: Path, paths: Project, old: str, new: str, complaints: list[str]
) -> None:
    """Every one that is wrong, where it is wrong."""
    table = tmp_path / "targets.toml"
    table.write_text(ROW.replace("SHIMS", "windows").replace(old, new, 1))
    with pytest.raises(InputError) as refused:
        load_targets(paths.targets_file, table)
    said = str(refused.value).splitlines()
    assert len(said) == len(complaints)
    for line, complaint in zip(said, complaints, strict=True):
        assert line.startswith(f"{table}: {complaint}")


def test_the_readme_lists_the_families(table: TargetTable, checkout: Path) -> None:
    rows = [
        f"| `{family}` | {', '.join(target.cpu for target in targets)} | {targets[0].about} |"
        for family, targets in families(table)
    ]
    head = "| family | CPUs | what it is |\n|---|---|---|\n"
    readme = (checkout / "README.md").read_text()
    assert readme.partition(head)[2].partition("\n\n")[0].splitlines() == rows


def test_targets_are_listed(table: TargetTable, tmp_path: Path) -> None:
    """By the command, a user's own included."""
    own = write_table(tmp_path, "windows")
    command = [sys.executable, "-m", "vmm_arch_gen", "targets", "--targets", str(own)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "kvm: Linux's hypervisor, " in text.splitlines()[0]
    assert "\n  kvm_x86_64 (backend), kvm_aarch64, " in text
    assert text.endswith("\n\npaper: linux\n  paper_x86_64\n  paper.h\n")
    assert all(target.about for target in table.targets.values())
    command += ["--format", "json"]
    listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert [entry["target"] for entry in listed] == [*table.targets, "paper_x86_64"]


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
        ("3", "shims is 3, not a string; "),
    ],
)
def test_shims_that_are_nowhere(tmp_path: Path, paths: Project, shims: str, complaint: str) -> None:
    table = tmp_path / "targets.toml"
    table.write_text(ROW.replace('"SHIMS"', shims))
    (tmp_path / "shims/libc").mkdir(parents=True)
    with pytest.raises(InputError) as refused:
        load_targets(paths.targets_file, table)
    assert str(refused.value).startswith(f"{table}: [families.paper]: ")
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
