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

# The project's own style; pyproject.toml says the same to black, and a test compares.
LINE_LENGTH = 100
TARGET_VERSION = "py311"

_KEEP_SECONDS = 30 * 24 * 3600


class NotPython(ValueError):
    """The text is no Python module; the message says what is wrong with which line."""


def format_source(text: str) -> str:
    """Format a module with black, or recall what black made of the same text before."""
    key = f"{_black_version()}\n{LINE_LENGTH}\n{TARGET_VERSION}\n{text}"
    cached = user_cache_path("vmm-arch") / "formatted" / hashlib.sha256(key.encode()).hexdigest()
    try:
        return cached.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        formatted = _format(text)
    _remember(cached, formatted)
    return formatted


def _black_version() -> str:
    """Which black is installed, without importing it, which takes longer than all the rest."""
    spec = importlib.util.find_spec("black")
    assert spec is not None and spec.origin is not None  # noqa: PT018 - one fact
    installed = Path(spec.origin).parent.parent.glob("black-*.dist-info")
    return " ".join(sorted(path.name for path in installed))


def _format(text: str) -> str:
    import black
    import black.mode

    try:
        ast.parse(text)
    except SyntaxError as error:
        line = text.splitlines()[(error.lineno or 1) - 1].strip()
        raise NotPython(f"{error.msg}: {line}") from None
    versions = {black.mode.TargetVersion[TARGET_VERSION.upper()]}
    mode = black.mode.Mode(target_versions=versions, line_length=LINE_LENGTH)
    return black.format_str(text, mode=mode)


def _remember(cached: Path, formatted: str) -> None:
    """Keep a formatted text; a cache that cannot be written is only slower."""
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=cached.parent, delete=False) as file:
            file.write(formatted)
        os.replace(file.name, cached)
        for old in cached.parent.iterdir():
            if old.stat().st_mtime < time.time() - _KEEP_SECONDS:
                old.unlink(missing_ok=True)
    except OSError:
        return
