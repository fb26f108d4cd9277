"""Templates in, formatted text out. Knows nothing of hypervisors."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import indent
from typing import Any

import jinja2

from vmm_arch_gen.diagnostics import InputError, Problem
from vmm_arch_gen.generate.formatting import NotPython, format_source


class Templates:
    """The templates of a folder; what goes wrong in them is said with file and line."""

    def __init__(self, folder: Path) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folder),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,
        )
        self._environment.filters["number"] = _number
        self._environment.filters["tuple"] = _tuple
        self._environment.filters["docstring"] = _docstring
        self._environment.filters["quoted"] = lambda items: [f'"{item}"' for item in items]
        self._environment.globals["absent"] = lambda reason: reason

    def render(self, name: str, heading: str, **values: Any) -> str:
        """Render a template to a formatted Python module that begins with ``heading``."""
        with _located(name):
            text = heading + self._environment.get_template(name).render(values)
            return format_source(text)

    def macro(self, name: str, macro: str, *arguments: str) -> str:
        """What one macro of a template makes of its arguments."""
        with _located(name):
            module = self._environment.get_template(name).module
            return str(getattr(module, macro)(*arguments)).strip("\n")


@contextmanager
def _located(name: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except jinja2.TemplateSyntaxError as error:
        where = f"templates/{error.name or name}:{error.lineno}"
        raise InputError(Problem(where, str(error.message), "mend the template")) from None
    except jinja2.TemplateNotFound as error:
        where = f"templates/{error.name}"
        raise InputError(Problem(where, "there is no such template", "restore it")) from None
    except (NotPython, SyntaxError) as error:
        what = f"renders to something that is not Python: {error}"
        raise InputError(Problem(f"templates/{name}", what, "mend the template")) from None
    except Exception as error:  # whatever an expression in a template can raise
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if name in f.filename]
        where = ":".join(["templates/" + name, *map(str, lines[-1:])])
        raise InputError(Problem(where, str(error), "mend the template")) from None


def _docstring(text: str, width: int) -> str:
    """A docstring in a block that is indented by a width."""
    end = "\n" if "\n" in text else ""
    return indent(f'"""{text}{end}"""', " " * width, lambda line: line.strip() != "").lstrip()


def _tuple(items: Sequence[str]) -> str:
    return f"({', '.join(items)}{',' * (len(items) == 1)})"


def _number(value: int, radix: int) -> str:
    if radix == 10:
        return str(value)
    return f"{'-' if value < 0 else ''}0x{abs(value):X}"
