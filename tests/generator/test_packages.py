"""Headers from Debian packages: fetched, checked, and what is said where they cannot be had."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from requirements import require
from test_cli import Copy, copy, edit  # noqa: F401 - a fixture
from test_outputs import snapshot
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.fetch import debian
from vmm_arch_gen.fetch.packages import unpacked
from vmm_arch_gen.project import Project
from vmm_arch_gen.targets import DebianPackage, TargetTable, load_targets

PAPER = DebianPackage(
    name="paper-2.1+deb7-dev",
    suite="attic",
    version="2.1-3",
    sha256="",
    include="usr/include",
    unpack=("paper", "ink/black"),
)
FILES = {
    "usr/include/paper/paper.h": "#define PAPER 1\n",
    "usr/include/ink/black/ink.h": "#define INK 0\n",
    "usr/include/ink/red/ink.h": "#define INK 9\n",
    "usr/share/doc/paper/copyright": "nobody's\n",
}
NEXT = "Package: paper-2.2+deb7-dev\nVersion: 2.2-1\nSHA256: abc\n"


class Archive:
    """A Debian archive in a folder: programs with apt's names know what it has."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.calls = folder / "calls"
        self.bin.mkdir()
        tree = folder / "tree"
        for name, text in FILES.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(text)
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(
            f"Package: {PAPER.name}\nVersion: {PAPER.version}\nArchitecture: all\n"
            "Maintainer: nobody <nobody@example.org>\nDescription: paper\n"
        )
        self.file = folder / "paper.deb"
        build = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(self.file)]
        subprocess.run(build, check=True, capture_output=True)
        self.package = replace(PAPER, sha256=self.digest())
        for program in ("dpkg", "dpkg-deb", "tar", "xz", "sh"):
            if found := shutil.which(program):
                (self.bin / program).symlink_to(found)
        self.update, self.download = "true", f"cp {shlex.quote(str(self.file))} ."
        self.search, self.show = "true", "true"

    def digest(self) -> str:
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    def programs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have nothing but these programs be found."""
        cases = {"update": self.update, "download": self.download}
        cases |= {"search": self.search, "show": self.show}
        lines = "\n".join(f"*{word}*) {command};;" for word, command in cases.items())
        text = f'#!/bin/sh\necho "$@" >>{self.calls}\ncase "$*" in\n{lines}\nesac\n'
        for name in ("apt-get", "apt-cache"):
            (self.bin / name).write_text(text.replace("cp ", f"{shutil.which('cp')} "))
            (self.bin / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(self.bin))


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    require(shutil.which("dpkg-deb") is not None, "packages are made with dpkg-deb")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    unpacked.cache_clear()
    yield Archive(tmp_path)
    unpacked.cache_clear()


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_package_is_fetched_once_and_only_what_is_wanted_is_kept(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.programs(monkeypatch)
    folder = unpacked(archive.package)
    assert files(folder) == {"paper/paper.h", "ink/black/ink.h"}
    assert "download paper-2.1+deb7-dev=2.1-3" in archive.calls.read_text()
    archive.calls.unlink()
    unpacked.cache_clear()  # as in another process
    assert unpacked(archive.package) == folder
    assert not archive.calls.exists()


def test_another_pin_is_another_folder(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.programs(monkeypatch)
    one = unpacked(archive.package)
    other = unpacked(replace(archive.package, unpack=("ink",)))
    assert files(one) == {"paper/paper.h", "ink/black/ink.h"}
    assert files(other) == {"ink/black/ink.h", "ink/red/ink.h"}


def gone(archive: Archive) -> None:
    archive.download = "echo \"E: Version '2.1-3' was not found\" >&2; exit 100"
    archive.search = "echo 'paper-2.2+deb7-dev - newer paper'"
    archive.show = f"printf {shlex.quote(NEXT)}"


def nothing_else(archive: Archive) -> None:
    archive.download = "echo 'E: Unable to locate package' >&2; exit 100"


def offline(archive: Archive) -> None:
    archive.update = "echo 'E: Temporary failure resolving the archive' >&2; exit 100"


def another_file(archive: Archive) -> None:
    archive.package = replace(archive.package, sha256="ab" * 32)


def truncated(archive: Archive) -> None:
    archive.file.write_bytes(archive.file.read_bytes()[:-100])


def truncated_and_pinned(archive: Archive) -> None:
    truncated(archive)
    archive.package = replace(archive.package, sha256=archive.digest())


def other_folders(archive: Archive) -> None:
    archive.package = replace(archive.package, unpack=("pencil",))


def no_apt(archive: Archive) -> None:
    (archive.bin / "dpkg").unlink()


def no_room(archive: Archive) -> None:
    Path(os.environ["XDG_CACHE_HOME"]).write_text("no folder")


@pytest.mark.parametrize(
    ("trouble", "complaint"),
    [
        (gone, "Debian's attic does not have it any more; pin what it has now, paper-2.2+deb7-dev 2.2-1 with the SHA-256 abc, or name folders that have these headers with --include DIR"),
        (nothing_else, "E: Unable to locate package; pin a version that there is, or name folders"),
        (offline, "E: Temporary failure resolving the archive; "),
        (another_file, f"gives has the SHA-256 {{digest}}, but {'ab' * 32} is pinned; "),
        (truncated, "gives has the SHA-256 {digest}, but "),
        (truncated_and_pinned, "cannot be unpacked: "),
        (other_folders, "cannot be unpacked: tar: ./usr/include/pencil: Not found in archive; correct include and unpack"),
        (no_apt, "there is no dpkg; "),
        (no_room, "cannot be unpacked into "),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_said(
    trouble: Callable[[Archive], None],
    complaint: str,
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trouble(archive)
    archive.programs(monkeypatch)
    with pytest.raises(InputError) as refused:
        unpacked(archive.package)
    said = str(refused.value)
    assert said.startswith("paper-2.1+deb7-dev 2.1-3: ")
    assert complaint.format(digest=archive.digest()) in said
    cache = Path(os.environ["XDG_CACHE_HOME"])
    assert not cache.is_dir() or all(name.endswith(".lock") for name in files(cache))


def test_a_damaged_copy_is_fetched_anew(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.programs(monkeypatch)
    header = unpacked(archive.package) / "paper/paper.h"
    header.write_text("#define PAPER 2\n")
    unpacked.cache_clear()
    unpacked(archive.package)
    assert header.read_text() == FILES["usr/include/paper/paper.h"]


def test_debian_has_a_package_that_the_table_pins(
    table: TargetTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smallest, from the real archive, with the real apt."""
    package = next(p for p in table.targets["msr_x86_64"].packages if p.name.endswith("-amd64"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    unpacked.cache_clear()
    try:
        folder = unpacked(package)
    except InputError as error:
        require(False, str(error))
    finally:
        unpacked.cache_clear()
    assert (folder / "include/generated/autoconf.h").is_file()
    assert sorted(path.name for path in folder.iterdir()) == ["arch", "include"]


@pytest.mark.parametrize(
    ("text", "archive"),
    [
        ("deb http://example.org/debian bookworm main\n", "http://example.org/debian"),
        ("deb [arch=amd64] file:/srv/debian/ sid main\n", "file:/srv/debian/"),
        ("Types: deb\nURIs: https://example.org/debian\nSuites: sid\n", "https://example.org/debian"),
        ("URIs: mirror+file:///etc/apt/mirrors/debian.list\n", "mirror+file:///etc/apt/mirrors/debian.list"),
        ("# deb http://example.org/debian sid main\n", None),
        ("deb http://example.org/debian-security sid main\n", None),
        ("deb http://example.org/ubuntu noble main\n", None),
    ],
)  # fmt: skip
def test_the_archive_is_where_the_systems_apt_has_it(
    text: str, archive: str | None, tmp_path: Path
) -> None:
    unreadable, folder, file = (tmp_path / name for name in ("none.list", "folder", "a.sources"))
    folder.mkdir()
    file.write_text(text)
    assert debian.archive_of([unreadable, folder, file]) == archive


# -- The command --------------------------------------------------------------------------------

SMALL = """
[families.paper]
system = "paper"
cpus = ["x86_64"]
headers = ["paper/paper.h"]
[systems.paper]
origin = "linux"
[cpus.x86_64.paper]
triple = "x86_64-linux-gnu"
cpu_macro = "__x86_64__"
folders = ["paper:."]
data_model = { long = 8, pointer = 8, byte_order = "little", signed_char = true, bit_fields = "sysv" }
[packages.paper]
name = "paper-2.1+deb7-dev"
suite = "attic"
version = "2.1-3"
sha256 = "SHA256"
include = "usr/include"
unpack = ["paper"]
"""


@pytest.fixture
def project(archive: Archive, copy: Copy, monkeypatch: pytest.MonkeyPatch) -> Copy:  # noqa: F811
    """A project of two targets: one of the compiler's headers, one of a Debian package's."""
    table = (copy.root / "headers/targets.toml").read_text()
    sections = re.split(r"^(?=\[)", table, flags=re.M)
    rest = "".join(section for section in sections if not section.startswith("[families."))
    family = '[families.kvm]\nsystem = "linux"\ncpus = ["riscv64"]\nheaders = ["linux/kvm.h"]\n'
    text = "\n".join((rest, family, SMALL.replace("SHA256", archive.package.sha256)))
    (copy.root / "headers/targets.toml").write_text(text)
    for facts in (copy.root / "headers/abi").glob("*.abi"):
        facts.unlink()
    archive.programs(monkeypatch)
    assert copy.run("extract", "-q") == (0, "", "")
    assert len(list((copy.root / "headers/abi").iterdir())) == 2
    return copy


@pytest.fixture
def offline_project(project: Copy, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Copy:
    """The same project, on another machine that cannot fetch anything."""
    offline(archive)
    archive.programs(monkeypatch)
    shutil.rmtree(os.environ["XDG_CACHE_HOME"])
    return project


def test_targets_whose_packages_cannot_be_had_keep_their_facts(offline_project: Copy) -> None:
    before = snapshot(offline_project.root / "headers")
    for arguments in ([], ["--check"], ["-q"], ["--check", "-q"]):
        status, out, err = offline_project.run("extract", *arguments)
        assert (status, out) == (0, "")
        [warning] = [line for line in err.splitlines() if line.startswith("warning: ")]
        assert warning.startswith(
            "warning: paper_x86_64: left out, so that the facts stay as they are:"
            " paper-2.1+deb7-dev 2.1-3: "
        )
        assert warning.endswith("or name folders that have these headers with --include DIR")
        assert snapshot(offline_project.root / "headers") == before
    elsewhere = offline_project.root / "elsewhere"
    assert offline_project.run("extract", "--output", str(elsewhere))[0] == 0
    assert snapshot(elsewhere) == snapshot(offline_project.root / "headers/abi")


def test_what_is_fetched_is_said(project: Copy) -> None:
    assert "fetching" not in project.run("extract")[2]
    shutil.rmtree(os.environ["XDG_CACHE_HOME"])
    err = project.run("extract")[2].splitlines()
    assert err[0] == "fetching paper-2.1+deb7-dev 2.1-3 from Debian's attic"
    assert err[-1] == "nothing changed"


def test_a_target_that_is_asked_for_must_be_extracted(offline_project: Copy) -> None:
    before = snapshot(offline_project.root / "headers")
    status, _, err = offline_project.run("extract", "--only", "paper_x86_64")
    assert status == 2
    assert err.splitlines()[-1].startswith("error: paper-2.1+deb7-dev 2.1-3: ")
    assert snapshot(offline_project.root / "headers") == before
    assert offline_project.run("extract", "-q", "--only", "kvm_riscv64") == (0, "", "")


def test_facts_that_were_never_there_cannot_stay(offline_project: Copy) -> None:
    (offline_project.root / "headers/abi/paper_x86_64.abi").unlink()
    status, _, err = offline_project.run("extract")
    assert status == 2
    assert err.splitlines()[-1].startswith("error: paper-2.1+deb7-dev 2.1-3: ")


def test_headers_that_are_named_need_no_package(offline_project: Copy) -> None:
    folder = offline_project.root / "include/paper"
    folder.mkdir(parents=True)
    (folder / "paper.h").write_text("#define PAPER 7\n")
    include = ["--include", str(folder.parent), "--output", str(offline_project.root / "own")]
    assert offline_project.run("extract", "-q", "--only", "paper_x86_64", *include) == (0, "", "")
    text = (offline_project.root / "own/paper_x86_64.abi").read_text()
    assert "constant PAPER = 7 in paper/paper.h" in text


def test_the_facts_name_the_package(project: Copy) -> None:
    text = (project.root / "headers/abi/paper_x86_64.abi").read_text()
    assert "\norigin headers of unknown version, paper-2.1+deb7-dev 2.1-3, sha256 " in text


def test_versions_may_be_hexadecimal(paths: Project) -> None:
    """Xen's interface has a number in which the digits are the version's."""
    text = (paths.abi / "xen_x86_64.abi").read_text()
    origin = next(line for line in text.splitlines() if line.startswith("origin "))
    assert re.match(r"origin Xen interface 0x[0-9a-f]{8} headers, libxen-dev 4\.", origin)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"paper:."', '"papper:."', "[cpus.x86_64.paper] folders: there is no package papper: did you mean paper? the packages are "),
        ('"paper:."', '"paper:ink"', "[cpus.x86_64.paper] folders: paper:ink: of that package only paper is unpacked; "),
        ('suite = "attic"', "", "[packages.paper]: has no suite; "),
        ('suite = "attic"', 'suit = "attic"', "[packages.paper]: has an unknown entry: suit; "),
        ('unpack = ["paper"]', 'unpack = "paper"', "[packages.paper] unpack: is 'paper', not a list of strings; "),
    ],
)  # fmt: skip
def test_a_wrong_package_in_the_table_is_refused(
    old: str, new: str, complaint: str, tmp_path: Path, paths: Project
) -> None:
    own = tmp_path / "targets.toml"
    own.write_text(SMALL)
    assert load_targets(paths.targets_file, own).targets["paper_x86_64"].packages
    edit(own, old, new)
    with pytest.raises(InputError, match=r"^") as refused:
        load_targets(paths.targets_file, own)
    assert f"{own}: {complaint}" in str(refused.value)


def test_the_extractor_can_be_imported_where_there_is_no_lock() -> None:
    """Windows has no fcntl, and no apt either."""
    code = "import sys; sys.modules['fcntl'] = None; import vmm_arch_gen.extract.extract"
    subprocess.run([sys.executable, "-c", code], check=True)
