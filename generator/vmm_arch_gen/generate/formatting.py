"""Formats modules with black, and remembers what it made of them."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import tempfile
import time
from pathlib import Path

from platformdirs import user_cache_path

from vmm_arch_gen.diagnostics import InputError, Problem

# The project's own style; pyproject.toml says the same to black, and a test compares.
BLACK_VERSION = "26.10.1"
LINE_LENGTH = 100
TARGET_VERSION = "py311"

_KEEP_SECONDS = 30 * 24 * 3600


class NotPython(ValueError):
    """A text is not a Python module; the message says what is wrong with which line."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.line = line


def format_source(text: str) -> str:
    """Format a module with black, or recall what black made of the same text before."""
    key = f"{_black_version()}\n{LINE_LENGTH}\n{TARGET_VERSION}\n{text}"
    cached = user_cache_path("vmm-arch") / "formatted" / hashlib.sha256(key.encode()).hexdigest()
    try:
        digest, _, formatted = cached.read_bytes().partition(b"\n")
        if hashlib.sha256(formatted).hexdigest().encode() == digest:
            return formatted.decode()
    except OSError:
        pass  # it is not remembered
    done = _format(text)
    _remember(cached, done.encode())
    return done


def _black_version() -> str:
    """The pinned black's version, if that is installed: another gives other bytes."""
    spec = importlib.util.find_spec("black")
    origin = spec.origin if spec is not None and spec.origin is not None else ""
    # Importing black, or asking importlib.metadata, would take longer than all the rest.
    if not (Path(origin).parent.parent / f"black-{BLACK_VERSION}.dist-info").is_dir():
        what = f"version {BLACK_VERSION} is not installed, and others give other bytes"
        remedy = f"pip install black=={BLACK_VERSION}"
        raise InputError(Problem("black", what, remedy))
    return BLACK_VERSION


def _format(text: str) -> str:
    import black
    import black.mode

    try:
        ast.parse(text)
    except SyntaxError as error:
        number = error.lineno or 1
        found = text.splitlines()[number - 1].strip()
        raise NotPython(f"{error.msg}: {found}", number) from None
    versions = {black.mode.TargetVersion[TARGET_VERSION.upper()]}
    mode = black.mode.Mode(target_versions=versions, line_length=LINE_LENGTH)
    return black.format_str(text, mode=mode)


def _remember(cached: Path, formatted: bytes) -> None:
    """Keep a formatted text; a cache that cannot be written is only slower."""
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cached.parent, delete=False) as file:
            file.write(hashlib.sha256(formatted).hexdigest().encode() + b"\n" + formatted)
        os.replace(file.name, cached)
        for old in cached.parent.iterdir():
            if old.stat().st_mtime < time.time() - _KEEP_SECONDS:
                old.unlink(missing_ok=True)
    except OSError:
        return
