"""Templates in, formatted text out. Knows nothing of hypervisors."""

from __future__ import annotations

import traceback
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import indent
from typing import Any

import jinja2

from vmm_arch_gen.arch.macros import syntax_problem
from vmm_arch_gen.arch.sources import read_text
from vmm_arch_gen.diagnostics import InputError, Problem
from vmm_arch_gen.generate.formatting import LINE_LENGTH, NotPython, format_source
from vmm_arch_gen.generate.names import python_name
from vmm_arch_gen.generate.refused import kept


class Templates:
    """The templates of a folder; errors in them have a file and line."""

    def __init__(self, folder: Path, facts: Container[str] = ()) -> None:
        """``facts`` is what templates may ask for what only newer headers have."""
        self._folder = folder
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folder),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,
        )
        self._environment.filters["number"] = _number
        self._environment.filters["python"] = python_name
        self._environment.filters["bytes"] = _bytes
        self._environment.filters["wrapped"] = _wrapped
        self._environment.filters["fitted"] = _fitted
        self._environment.filters["tuple"] = _tuple
        self._environment.filters["docstring"] = _docstring
        self._environment.filters["quoted"] = lambda items: [f'"{item}"' for item in items]
        self._environment.globals["facts"] = facts
        self._environment.globals["unsupported"] = lambda reason: reason

    def define(self, **names: Any) -> None:
        """Give names to all templates, macros included, before the first of them is rendered."""
        self._environment.globals.update(names)

    def text(self, name: str, heading: str, **values: Any) -> str:
        """What a template makes of some values, after a heading."""
        with self._located(name):
            return heading + self._environment.get_template(name).render(values)

    def render(self, name: str, heading: str, output: str, **values: Any) -> str:
        """Render a template to a formatted Python module, called ``output`` if it is refused."""
        text = self.text(name, heading, **values)
        try:
            return format_source(text)
        except NotPython as error:
            what = f"renders to something that is not Python: {error}"
            remedy = f"correct the template; {kept(output, text, error.line)}"
            raise InputError(Problem(f"templates/{name}", what, remedy)) from None

    def macro(self, name: str, macro: str, *arguments: str) -> str:
        """What one macro of a template makes of its arguments."""
        with self._located(name):
            template = self._environment.get_template(name)
            try:
                return str(getattr(template.module, macro)(*arguments)).strip("\n")
            except jinja2.UndefinedError:
                self._environment.handle_exception()  # gives the traceback the template's lines

    @contextmanager
    def _located(self, name: str) -> Iterator[None]:
        """Say of whatever goes wrong in a template in which of its lines that is."""
        try:
            yield
        except InputError:
            raise
        except jinja2.TemplateNotFound as error:
            what, remedy = "there is no such template", "write it, or name another one"
            raise InputError(Problem(f"templates/{error.name}", what, remedy)) from None
        except jinja2.TemplateSyntaxError as error:
            file = error.name or name
            text = read_text(self._folder, file)
            raise InputError(syntax_problem(error, file, text)) from None
        except Exception as error:  # whatever an expression in a template can raise
            # A template may import another one: the innermost of their lines is the one.
            places = [
                (Path(frame.filename).relative_to(self._folder).as_posix(), frame.lineno)
                for frame in traceback.extract_tb(error.__traceback__)
                if Path(frame.filename).is_relative_to(self._folder) and frame.lineno is not None
            ]
            file, *line = places[-1] if places else (name,)
            where = ":".join(["templates/" + file, *map(str, line)])
            text = "".join(
                read_text(self._folder, file).splitlines()[line[0] - 1 :][:1] if line else []
            )
            remedy = f"correct the line: {text.strip()}" if text else "correct the template"
            raise InputError(Problem(where, str(error), remedy)) from None


def _docstring(text: str, width: int) -> str:
    """A docstring in a block that is indented by a width."""
    end = "\n" if "\n" in text else ""
    return indent(f'"""{text}{end}"""', " " * width, lambda line: line.strip() != "").lstrip()


def _wrapped(statement: str, width: int) -> str:
    """A statement that ends with a call, in a block, with its arguments on a line of their own.

    As black has it where it is too long for a line: it takes half as long if it changes nothing.
    """
    if width + len(statement) <= LINE_LENGTH or not statement.endswith(")"):
        return statement
    head, _, arguments = statement.removesuffix(")").rpartition("(")
    return f"{head}(\n{' ' * (width + 4)}{arguments}\n{' ' * width})"


def _fitted(text: str) -> str:
    """Whole statements, in the form that black gives them if a line of theirs is too long."""
    if max(map(len, text.splitlines())) <= LINE_LENGTH:
        return text
    return format_source(text)


def _tuple(items: Sequence[str]) -> str:
    return f"({', '.join(items)}{',' * (len(items) == 1)})"


def _bytes(value: bytes) -> str:
    """A literal with the quotes that black prefers."""
    text = repr(value)
    return text if '"' in text else f'b"{text[2:-1]}"'


def _number(value: int, radix: int) -> str:
    if radix == 10:
        return str(value)
    return f"{'-' if value < 0 else ''}0x{abs(value):X}"
