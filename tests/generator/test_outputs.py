"""Writing is all or nothing."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest
from vmm_arch_gen import outputs
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.outputs import apply, compare, unified_diff


def snapshot(root: Path) -> dict[str, bytes | None]:
    """Every path below a folder, and what the files hold."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a file that stays, one that changes and one that nothing makes any more."""
    root = tmp_path / "out"
    root.mkdir()
    (root / "same").write_bytes(b"same\n")
    (root / "changed").write_bytes(b"old\n")
    (root / "orphan").write_bytes(b"gone\n")
    return root


WANTED = {
    PurePosixPath("same"): b"same\n",
    PurePosixPath("changed"): b"new\n",
    PurePosixPath("deep/er/fresh"): b"fresh\n",
}


def changes(root: Path) -> list[outputs.Change]:
    return compare(root, WANTED, orphans=[root / "orphan"])


def test_only_what_differs_is_written(root: Path) -> None:
    before = (root / "same").stat()
    apply(changes(root))
    assert snapshot(root) == {
        "same": b"same\n",
        "changed": b"new\n",
        "deep": None,
        "deep/er": None,
        "deep/er/fresh": b"fresh\n",
    }
    after = (root / "same").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert compare(root, WANTED) == []


def test_permissions_stay_and_new_files_follow_the_umask(root: Path) -> None:
    (root / "changed").chmod(0o640)
    apply(changes(root))
    umask = os.umask(0)
    os.umask(umask)
    assert (root / "changed").stat().st_mode & 0o777 == 0o640
    assert (root / "deep/er/fresh").stat().st_mode & 0o777 == 0o666 & ~umask


def test_the_diff_names_new_changed_and_orphaned_files(root: Path) -> None:
    assert list(unified_diff(changes(root), root)) == [
        "--- a/out/changed",
        "+++ b/out/changed",
        "@@ -1 +1 @@",
        "-old",
        "+new",
        "--- /dev/null",
        "+++ b/out/deep/er/fresh",
        "@@ -0,0 +1 @@",
        "+fresh",
        "--- a/out/orphan",
        "+++ /dev/null",
        "@@ -1 +0,0 @@",
        "-gone",
    ]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", [1, 2])
def test_a_failure_while_staging_leaves_the_tree_as_it_was(
    error: BaseException, call: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(root)
    calls = []
    fdopen = os.fdopen

    def fail(handle: int, mode: str) -> object:
        calls.append(handle)
        if len(calls) == call:
            os.close(handle)
            raise error
        return fdopen(handle, mode)

    monkeypatch.setattr(os, "fdopen", fail)
    with pytest.raises((InputError, KeyboardInterrupt)) as caught:
        apply(changes(root))
    monkeypatch.undo()
    assert snapshot(root) == before
    if isinstance(error, OSError):
        assert "No space left on device; nothing was changed; free space" in str(caught.value)


@pytest.mark.parametrize("call", [1, 2])
def test_a_failure_while_moving_puts_everything_back(
    call: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(root)
    calls = []
    replace = os.replace

    def fail(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == call:
            raise OSError(5, "Input/output error", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError, match="Input/output error"):
        apply(changes(root))
    monkeypatch.undo()
    assert snapshot(root) == before


def test_a_folder_in_the_place_of_a_file(root: Path) -> None:
    (root / "deep").write_bytes(b"in the way")
    before = snapshot(root)
    with pytest.raises(InputError, match="cannot be used"):
        apply(changes(root))
    assert snapshot(root) == before
