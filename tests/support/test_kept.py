"""Folders that are kept: made once, also by several processes at once, and checked."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import interpreters
import pytest
from requirements import PYTHON
from vmm_arch_gen.fetch import debian
from vmm_arch_gen.fetch.debian import Unavailable
from vmm_arch_gen.fetch.kept import DIGESTS, FORGOTTEN, LOCK, kept

TESTS = Path(__file__).resolve().parents[1]


class Maker:
    """Makes a folder of two files, and counts how often."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, folder: Path) -> None:
        self.made += 1
        (folder / "one").write_bytes(b"1")
        (folder / "folder").mkdir()
        (folder / "folder" / "two").write_bytes(b"2")


def test_a_folder_is_made_once_for_each_key(tmp_path: Path) -> None:
    maker = Maker()
    folder = kept("name", "key", maker, tmp_path)
    assert {path.name for path in folder.iterdir()} == {"one", "folder", DIGESTS}
    assert kept("name", "key", maker, tmp_path) == folder
    assert maker.made == 1
    assert kept("name", "another", maker, tmp_path) != folder
    assert maker.made == 2


@pytest.mark.parametrize("name", ["one", "folder/two", DIGESTS])
@pytest.mark.parametrize("how", ["changed", "missing", "a folder"])
def test_a_damaged_folder_is_made_anew(name: str, how: str, tmp_path: Path) -> None:
    maker = Maker()
    folder = kept("name", "key", maker, tmp_path)
    match how:
        case "changed":
            (folder / name).write_bytes(b"3")
        case "missing":
            (folder / name).unlink()
        case _:
            (folder / name).unlink()
            (folder / name).mkdir()
    kept("name", "key", maker, tmp_path)
    assert maker.made == 2
    assert ((folder / "one").read_bytes(), (folder / "folder/two").read_bytes()) == (b"1", b"2")
    assert folders(tmp_path) == {folder}


def test_what_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "one").write_bytes(b"1")
        raise Unavailable("no network")

    with pytest.raises(Unavailable, match="no network"):
        kept("name", "key", fail, tmp_path)
    assert folders(tmp_path) == set()


def test_of_two_processes_that_start_at_once_one_makes_the_folder(tmp_path: Path) -> None:
    script = f"""
import pathlib, time
from vmm_arch_gen.fetch import kept
def make(folder):
    with open({str(tmp_path / "made")!r}, "a") as made:
        made.write("once")
    time.sleep(0.5)
    (folder / "one").write_bytes(b"1")
print(kept.kept("name", "key", make, pathlib.Path({str(tmp_path / "cache")!r})))
"""
    assert at_once(script, {}) == {str(tmp_path / "cache" / "name-key")}
    assert (tmp_path / "made").read_text() == "once"


def test_of_two_processes_that_start_at_once_one_builds_the_stand_ins(tmp_path: Path) -> None:
    cached = {"XDG_CACHE_HOME": str(tmp_path)}
    (built,) = at_once("from whp import build; print(build.libraries())", cached)
    assert folders(tmp_path / "vmm-arch" / "whp") == {Path(built)}


def test_of_two_that_start_at_once_one_fetches_a_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    class Packages:
        def unpack(self, packages: list[str], root: Path) -> None:
            fetched.append(packages)
            time.sleep(0.5)
            (root / "lib64").mkdir()
            (root / "lib64/ld-linux-x86-64.so.2").write_text("#!/bin/sh\necho $3 $4\n")
            (root / "lib64/ld-linux-x86-64.so.2").chmod(0o755)

    monkeypatch.setattr(debian, "suite", lambda name: nullcontext(Packages()))
    monkeypatch.setattr(interpreters, "cache_folder", lambda name: tmp_path)
    fetch = interpreters.interpreter.__wrapped__
    with ThreadPoolExecutor() as pool:
        one, other = pool.map(fetch, ["3.13", "3.13"])
    assert one == other
    assert len(fetched) == 1
    said = subprocess.run([one, "argument"], capture_output=True, text=True, check=True).stdout
    assert said == f"{one.parent}/usr/bin/python3.13 argument\n"


def at_once(script: str, environment: Mapping[str, str]) -> set[str]:
    """What two Pythons print that run a script at the same time."""
    settings = os.environ | dict(environment)
    settings["PYTHONPATH"] = os.pathsep.join(
        [str(TESTS), str(TESTS / "support"), settings.get("PYTHONPATH", "")]
    )
    started = [
        subprocess.Popen([PYTHON, "-c", script], env=settings, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = {process.communicate()[0].strip() for process in started}
    assert [process.returncode for process in started] == [0, 0]
    return said


def folders(parent: Path) -> set[Path]:
    """What is kept there."""
    return {path for path in parent.iterdir() if path.suffix != LOCK}


def test_what_nobody_uses_is_forgotten(tmp_path: Path) -> None:
    used, unused = (kept("name", key, Maker(), tmp_path) for key in ("used", "unused"))
    long_ago = time.time() - FORGOTTEN - 1
    for folder in (used, unused):
        os.utime(folder, (long_ago, long_ago))
    kept("name", "used", Maker(), tmp_path)
    new = kept("name", "new", Maker(), tmp_path)
    assert folders(tmp_path) == {used, new}
