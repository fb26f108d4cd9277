"""Templates in, formatted text out. Knows nothing of hypervisors."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import jinja2

from vmm_arch_gen.diagnostics import InputError, Problem
from vmm_arch_gen.generate.formatting import NotPython, format_source


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
    except jinja2.TemplateNotFound as error:
        raise InputError(
            Problem(f"templates/{error.name}", "there is no such template", "restore it")
        ) from None
    except Exception as error:  # whatever an expression in a template can raise
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if name in f.filename]
        where = ":".join(["templates/" + name, *map(str, lines[-1:])])
        raise InputError(Problem(where, str(error), "mend the template")) from None
    try:
        return format_source(text)
    except NotPython as error:
        raise InputError(
            Problem(
                f"templates/{name}",
                f"renders to something that is not Python: {error}",
                "mend the template",
            )
        ) from None


def _number(value: int, radix: int) -> str:
    if radix == 10:
        return str(value)
    return f"{'-' if value < 0 else ''}0x{abs(value):X}"
