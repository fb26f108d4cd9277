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
from vmm_arch_gen.targets import Origin, TargetTable, load_targets

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


def name_of(origin: Origin | None) -> str | None:
    return origin.name if origin else None


def test_a_column_is_the_familys_or_its_cpus_or_the_systems(tmp_path: Path, paths: Project) -> None:
    text = ROW.replace('cpus = ["x86_64"]', 'cpus = ["aarch64", "slate"]').replace(
        '"SHIMS"', '"windows"'
    )
    (tmp_path / "targets.toml").write_text(f"""{text}
        [families.paper.slate]
        headers = ["slate.h", "paper.h"]
        prelude = "typedef int odd_t;"
        [cpus.slate]
        cpu_macro = "__arm__"
        data_model = {{ long = 4, pointer = 4, byte_order = "little", signed_char = false, bit_fields = "aapcs" }}
        prelude = "typedef int odder_t;"
        [cpus.slate.linux]
        triple = "arm-linux-gnueabihf"
        folders = ["arm-linux-any"]
        prelude = "typedef int even_t;"
        [cpus.x86_64.odd]
        triple = "x86_64-odd"
        folders = ["odd"]
        [families.marks]
        system = "odd"
        cpus = ["x86_64"]
        headers = ["marks.h"]
        [families.notes]
        system = "linux"
        cpus = ["slate"]
        headers = ["notes.h"]
        """)
    table = load_targets(paths.targets_file, tmp_path / "targets.toml")
    kvm, arm = table.targets["kvm_aarch64"], table.targets["paper_aarch64"]
    assert (arm.triple, arm.model, arm.folders) == (kvm.triple, kvm.model, kvm.folders)
    assert (arm.headers, name_of(arm.origin)) == (("paper.h",), "Paper")
    slate, notes = table.targets["paper_slate"], table.targets["notes_slate"]
    assert slate.headers == ("slate.h", "paper.h")
    assert (slate.family, slate.cpu, slate.system, slate.model.long) == (
        "paper",
        "slate",
        "linux",
        4,
    )
    assert (slate.prelude, notes.prelude) == ("typedef int odd_t;", "typedef int even_t;")
    assert (name_of(slate.origin), name_of(notes.origin)) == ("Paper", "Linux")
    kvm, marks = table.targets["kvm_x86_64"], table.targets["marks_x86_64"]
    assert (marks.triple, marks.model, marks.origin) == ("x86_64-odd", kvm.model, None)
    assert {"kvm_x86_64", "whp_x86_64"} < set(table.targets)


@pytest.mark.parametrize(
    ("old", "new", "complaints"),
    [
        ('cpus = ["x86_64"]', 'cpus = ["vax"]', ["[families.paper.vax]: there is no CPU 'vax' of 'linux': the CPUs are x86_64, "]),
        ('system = "linux"', 'system = "vms"', ["[families.paper.x86_64]: there is no CPU 'x86_64' of 'vms': the systems are "]),
        ('system = "linux"', "", ["[families.paper]: has no 'system'"]),
        ('headers = ["paper.h"]', "", ["[families.paper.x86_64]: has no headers"]),
        ("[families.paper]", "[families.kvm]", ["[families.kvm.x86_64]: there is one of this name already"]),
        ("[families.paper]", "[family.paper]", ["[family]: there is no table family: did you mean families? the tables are package, packages, origins, "]),
        ("[families.paper]", "[families.pa_per]\nbackend = true", ["[families.pa_per.x86_64]: a family with a backend needs a name without '_'"]),
        ("[families.paper]", "[families.paper.arm]\n[families.paper]", ["[families.paper] cpus: lacks arm, which has columns of its own"]),
        ("[families.paper]", "[systems.linux]\n[cpus.x86_64.linux]\n[families.paper]", ["[systems.linux]: there is one of this name already", "[cpus.x86_64.linux]: there is one of this name already"]),
        ("[families.paper]", "[families.a]\n[families.paper]\nbackend = 3", ["[families.a]: has no 'system'", "[families.paper] backend: is 3, not true or false"]),
        ('headers = ["paper.h"]', 'headers = 3\nfolder = []\ninclude = ["no"]\ndefines = ["a-b", 1]\nx86_64 = { origin = "papers" }', ["[families.paper] headers: is 3, not a list", "[families.paper] folder: there is no column folder: did you mean folders? ", "[families.paper] include: there is no folder {folder}/no", "[families.paper] defines: is ['a-b', 1], not a list of strings", "[families.paper.x86_64] origin: there is no origin papers: did you mean paper? "]),
        ('headers = ["paper.h"]', 'headers = ["paper.h"]\ndefines = ["a-b"]', ["[families.paper] defines: 'a-b' does not define a macro: say NAME or NAME=VALUE"]),
        ('cpus = ["x86_64"]', 'cpus = "x86_64"', ["[families.paper] cpus: is 'x86_64', not a list of strings"]),
        ("[origins.paper]", "families.pen = 3\n[origins.paper]", ["[families.pen]: is 3, not a table"]),
        ('macros = ["PAPER_VERSION"]', "macros = 1", ["[origins.paper] macros: is 1, not a list of strings"]),
        ("[families.paper]", "[cpus.x86_64]\ntriple = \"vax\"\n[families.paper]", ["[cpus.x86_64]: there is one of this name already"]),
        ('name = "Paper"', "", ["[origins.paper]: has no name"]),
        ("[families.paper]", "[families.paper]\nioctl_rules = \"vms\"", ["[families.paper] ioctl_rules: is 'vms', none of 'generic', 'bsd'"]),
        ('name = "Paper"', 'names = "Paper"', ["[origins.paper]: has an unknown entry: names"]),
        ("[families.paper]", "[families.paper]\ndata_model = { long = 8 }", ["[families.paper] data_model: has no pointer, byte_order, signed_char, bit_fields"]),
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
        assert line.startswith(f"{table}: {complaint.format(folder=tmp_path)}")


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
        ("3", "is 3, not a string; "),
    ],
)
def test_shims_that_are_nowhere(tmp_path: Path, paths: Project, shims: str, complaint: str) -> None:
    table = tmp_path / "targets.toml"
    table.write_text(ROW.replace('"SHIMS"', shims))
    (tmp_path / "shims/libc").mkdir(parents=True)
    with pytest.raises(InputError) as refused:
        load_targets(paths.targets_file, table)
    assert str(refused.value).startswith(f"{table}: [families.paper] shims: ")
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


def extract(folder: Path) -> str:
    """What the user's one target is, as its facts say, with the user's own folder of headers."""
    command = [sys.executable, "-m", "vmm_arch_gen", "extract", "--only", "paper_x86_64"]
    command += ["--targets", "tables/targets.toml", "--output", "abi"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return (folder / "abi/paper_x86_64.abi").read_text()


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """A folder with a table, and headers beside it."""
    (tmp_path / "tables").mkdir()
    (tmp_path / "include").mkdir()
    (tmp_path / "include/paper.h").write_text(
        "#include <linux/types.h>\n#define PAPER_VERSION 0x0210UL\n"
        "struct paper { __u8 data[PAGE_SIZE]; };\n"
    )
    table = ROW.replace('shims = "SHIMS"', 'include = ["../include"]\ndefines = ["PAGE_SIZE=4096"]')
    (tmp_path / "tables/targets.toml").write_text(table)
    return tmp_path


def test_headers_and_macros_of_ones_own(paper: Path) -> None:
    """Folders are beside the table, and come before the package's, which are searched too."""
    text = extract(paper)
    assert "struct paper is 4096 bytes" in text
    assert "header linux/types.h\n" in text
    assert "origin own Paper 0x0210 headers, ziglang 0.17.1, with PAGE_SIZE=4096, sha256" in text


@pytest.mark.parametrize(
    ("old", "new", "origin"),
    [
        ("PAPER_VERSION", "PAPER_TEXT", 'own Paper 1.2-rc3 headers, ziglang'),
        ("PAPER_VERSION", "PAPER_COPY", "own Paper 7 headers, ziglang"),
        ("PAPER_VERSION", "PAPER_NONE", "own headers, ziglang"),
        ('header = "paper.h"', 'header = "gone.h"', "own headers, ziglang"),
        ('header = "paper.h"\nmacros = ["PAPER_VERSION"]', 'macros = ["__clang_major__"]', "own headers and Paper 2"),
        ('origin = "paper"', "", "own headers and Linux 7."),
    ],
)  # fmt: skip
def test_where_a_version_may_be(paper: Path, old: str, new: str, origin: str) -> None:
    with (paper / "include/paper.h").open("a") as header:
        header.write("#define PAPER_SEVEN (7)\n#define PAPER_COPY PAPER_SEVEN\n")
        header.write('#define PAPER_TEXT "1.2-rc3"\n')
    table = paper / "tables/targets.toml"
    table.write_text(table.read_text().replace(old, new))
    assert f"\norigin {origin}" in extract(paper)


def test_headers_of_a_system_without_a_version(paper: Path) -> None:
    table = paper / "tables/targets.toml"
    system = """
        [cpus.x86_64.slate]
        triple = "x86_64-linux-gnu"
        cpu_macro = "__x86_64__"
        folders = ["x86-linux-any", "any-linux-any"]
        data_model = { long = 8, pointer = 8, byte_order = "little", signed_char = true, bit_fields = "sysv" }
        """
    text = table.read_text().replace('origin = "paper"', "")
    table.write_text(text.replace('system = "linux"', 'system = "slate"') + system)
    assert "\norigin own headers, ziglang 0.17.1, with PAGE_SIZE=4096, sha256" in extract(paper)
