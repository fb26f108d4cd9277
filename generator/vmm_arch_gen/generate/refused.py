"""Keeps the text of a module that was refused, so that somebody can look at it."""

from __future__ import annotations

from platformdirs import user_cache_path


def kept(name: str, text: str, line: int) -> str:
    """Write a refused text to the user's cache, and say where a line of it is."""
    path = user_cache_path("vmm-arch") / "refused" / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        return f"the refused text could not be kept in {path}: {error.strerror}"
    return f"it is line {line} of the refused text, {path}"
