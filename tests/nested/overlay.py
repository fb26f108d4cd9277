"""What one run adds to the machine's first file system: the first process, the command, its files."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from nested import cpio
from nested.bytecode import compile_tree

INIT = Path(__file__).with_name("init.sh")


def overlay(files: Mapping[str, bytes | Path], command: list[str], python: str) -> bytes:
    """An archive to append to the machine's own; the files' names are relative to /job."""
    with tempfile.TemporaryDirectory(prefix="vmm-arch-") as temporary:
        root = Path(temporary)
        (root / "init").write_bytes(INIT.read_bytes())
        (root / "init").chmod(0o755)
        (root / "command").write_text(f"exec {shlex.join(command)}\n")
        for name, content in files.items():
            path = root / "job" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            match content:
                case bytes():
                    path.write_bytes(content)
                case Path() if content.is_dir():
                    shutil.copytree(content, path, ignore=shutil.ignore_patterns("__pycache__"))
                case Path():
                    shutil.copy(content, path)
        compile_tree(root, python)
        return cpio.archive(cpio.tree(root))
