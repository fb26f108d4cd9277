"""Templates in, formatted text out. Knows nothing of hypervisors."""

from __future__ import annotations

import ast
import hashlib
import os
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import black
import black.mode
import jinja2
from platformdirs import user_cache_path

from vmm_arch_gen.diagnostics import InputError, Problem

# The project's own style; pyproject.toml says the same to black, and a test compares.
MODE = black.Mode(target_versions={black.mode.TargetVersion.PY311}, line_length=100)
_KEEP_SECONDS = 30 * 24 * 3600


def render(templates: Path, name: str, heading: str, **values: Any) -> str:
    """Render a template to a formatted Python module that begins with ``heading``."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["number"] = _number
    environment.filters["tuple"] = lambda items: f"({', '.join(items)}{',' * (len(items) == 1)})"
    environment.filters["quoted"] = lambda items: [f'"{item}"' for item in items]
    try:
        text = heading + environment.get_template(name).render(values)
    except jinja2.TemplateSyntaxError as error:
        where = f"templates/{error.name or name}:{error.lineno}"
        raise InputError(Problem(where, str(error.message), "mend the template")) from None
    except jinja2.UndefinedError as error:
        where = f"templates/{name}"
        raise InputError(Problem(where, str(error.message), "mend the template")) from None
    except jinja2.TemplateNotFound as error:
        raise InputError(
            Problem(f"templates/{error.name}", "there is no such template", "restore it")
        ) from None
    try:
        ast.parse(text)
    except SyntaxError as error:
        line = text.splitlines()[(error.lineno or 1) - 1].strip()
        raise InputError(
            Problem(
                f"templates/{name}",
                f"renders to something that is not Python: {error.msg}: {line}",
                "mend the template",
            )
        ) from None
    return format_source(text)


def _number(value: int, radix: int) -> str:
    if radix == 10:
        return str(value)
    return f"{'-' if value < 0 else ''}0x{abs(value):X}"


def format_source(text: str) -> str:
    """Format a module with black, or recall what black made of the same text before."""
    key = f"{version('black')}\n{MODE.get_cache_key()}\n{text}"
    cached = _cache() / f"{hashlib.sha256(key.encode()).hexdigest()}.py"
    try:
        return cached.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        formatted = black.format_str(text, mode=MODE)
    _remember(cached, formatted)
    return formatted


def _cache() -> Path:
    return user_cache_path("vmm-arch") / "formatted"


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
