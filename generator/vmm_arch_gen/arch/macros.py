"""The macros of a hypervisor's folder: which there are, where, and what is declared unsupported instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2
from jinja2 import nodes

from vmm_arch_gen.arch.sources import read_text
from vmm_arch_gen.diagnostics import InputError, Problem, collecting, refuse

_ALONE = re.compile(r"\{\{-?\s*on_cpu\(.*\)\s*(\|\s*indent\(\d+\)\s*)?-?\}\}")
_TAG = re.compile(r"\{%-?\s*(?:macro\s+(\w+)|endmacro)\b")


@dataclass(frozen=True)
class Macro:
    """One macro, whose text becomes part of a module."""

    name: str
    parameters: tuple[str, ...]
    file: str
    """Relative to the templates."""
    line: int
    source: tuple[str, ...]
    """The lines between its first and its last."""

    @property
    def where(self) -> str:
        return f"templates/{self.file}:{self.line}"

    def where_of(self, text: str) -> str:
        """Where a line of the macro's output is written; the macro itself if that is unknown."""
        best, where = 0, self.where
        for number, line in enumerate(self.source, self.line + 1):
            literal = re.split(r"\{\{.*?\}\}", line.strip())
            same = sum(map(len, literal))
            if same > best and re.fullmatch(".*".join(map(re.escape, literal)), text.strip()):
                best, where = same, f"templates/{self.file}:{number}"
        return where


@dataclass(frozen=True)
class Request:
    """A macro that a hypervisor's folder asks of its folder for a CPU: ``on_cpu("name", …)``."""

    name: str
    arguments: tuple[str, ...]
    """The names of its arguments, for the remedy if it is missing; "value" for expressions."""
    where: str

    @property
    def file(self) -> str:
        """The name of the file that asks."""
        return self.where.rpartition(":")[0].rpartition("/")[2]


@dataclass(frozen=True)
class Macros:
    """What the files of a folder have."""

    there: Mapping[str, Macro]
    requests: tuple[Request, ...]
    unsupported: Mapping[str, tuple[str, str]]
    """What is declared unsupported: the reason, and the file and line of the declaration."""
    problems: tuple[Problem, ...]


def read_macros(templates: Path, folder: str, homes: Mapping[str, str], otherwise: str) -> Macros:
    """Read a folder's macros; ``homes`` says which belong in a file other than ``otherwise``.

    A file may be missing, if all of its macros are in the hypervisor's other folder.
    """
    there: dict[str, Macro] = {}
    unsupported: dict[str, tuple[str, str]] = {}
    requests: list[Request] = []
    problems: list[Problem] = []
    for file in dict.fromkeys([otherwise, *homes.values()]):
        if not (templates / folder / file).exists():
            continue
        found: list[Macro] = []
        lacking: list[tuple[str, str, str]] = []
        with collecting(problems):
            found, lacking = _read(templates, f"{folder}/{file}")
            requests += _requests(templates, f"{folder}/{file}")
        for macro in found:
            home = homes.get(macro.name, otherwise)
            if macro.name in there:
                what = f"{macro.name} is written twice"
                remedy = f"remove one of the two; the first is in {there[macro.name].where}"
                problems.append(Problem(macro.where, what, remedy))
            elif home != file:
                what = f"{macro.name} belongs in {home}"
                problems.append(Problem(macro.where, what, f"move it to templates/{folder}/{home}"))
            there.setdefault(macro.name, macro)
        for name, reason, where in lacking:
            if name in unsupported:
                what = f"{name} is declared unsupported twice"
                remedy = f"remove one of the two; the first is in {unsupported[name][1]}"
                problems.append(Problem(where, what, remedy))
            elif file != otherwise:
                what = f"what is unsupported belongs in {otherwise}"
                problems.append(Problem(where, what, f"move it to templates/{folder}/{otherwise}"))
            unsupported.setdefault(name, (reason, where))
    return Macros(there, tuple(requests), unsupported, tuple(problems))


def _read(templates: Path, file: str) -> tuple[list[Macro], list[tuple[str, str, str]]]:
    text = read_text(templates, file)
    lines = text.splitlines()
    try:
        tree = parse_template(templates, file)
    except InputError as error:
        if "end of template" in str(error):  # Jinja names the last line, not the macro's
            dict(_extents(text, f"templates/{file}"))
        raise
    ends = dict(_extents(text, f"templates/{file}"))
    macros, unsupported = [], []
    for node in tree.body:
        match node:
            case nodes.Macro(name=name, args=arguments, lineno=line):
                parameters = tuple(argument.name for argument in arguments)
                source = tuple(lines[line : ends[line] - 1])
                macros.append(Macro(name, parameters, file, line, source))
            case nodes.Assign(
                target=nodes.Name(name=name),
                node=nodes.Call(
                    node=nodes.Name(name="unsupported"), args=[nodes.Const(value=str() as reason)]
                ),
            ):
                unsupported.append((name, reason, f"templates/{file}:{node.lineno}"))
    return macros, unsupported


def _requests(templates: Path, file: str) -> list[Request]:
    """The calls of on_cpu() in a file; InputError for malformed ones."""
    lines = read_text(templates, file).splitlines()
    requests = []
    problems = []
    for call in parse_template(templates, file).find_all(nodes.Call):
        match call:
            case nodes.Call(node=nodes.Name(name="on_cpu"), args=arguments, kwargs=keywords):
                where = f"templates/{file}:{call.lineno}"
                line = lines[call.lineno - 1].strip()
                match arguments:
                    case [nodes.Const(value=str() as name), *given] if not keywords:
                        names = (a.name if isinstance(a, nodes.Name) else "value" for a in given)
                        requests.append(Request(name, tuple(names), where))
                    case _:
                        what = f"expected the name of a macro and its arguments: {line}"
                        problems.append(Problem(where, what, 'write {{ on_cpu("macro", vcpu) }}'))
                        continue
                if not _ALONE.fullmatch(line):
                    what = f"on_cpu({name!r}) is not on a line of its own"
                    remedy = "let the macro make whole lines, and put nothing else on this one"
                    problems.append(Problem(where, what, remedy))
    refuse(problems)
    return requests


def _extents(text: str, where: str) -> Iterator[tuple[int, int]]:
    """The first and last line of each macro; InputError for one that is not closed."""
    opened: tuple[str, int] | None = None
    for number, name in [*_tags(text), (text.count("\n") + 1, "the end of the file")]:
        if opened is not None and name:
            what = f"the macro {opened[0]} is not closed before {name}"
            remedy = f"write {{% endmacro %}} above line {number}"
            raise InputError(Problem(f"{where}:{opened[1]}", what, remedy))
        if opened is not None:
            yield opened[1], number
        opened = (name, number) if name else None


def _tags(text: str) -> Iterable[tuple[int, str | None]]:
    """The lines at which a macro begins, with its name, or ends."""
    # A comment may show a macro without being one.
    for comment in re.findall(r"\{#.*?#\}", text, re.S):
        text = text.replace(comment, "\n" * comment.count("\n"))
    for tag in _TAG.finditer(text):
        yield text.count("\n", 0, tag.start()) + 1, tag[1]


def parse_template(templates: Path, name: str) -> nodes.Template:
    """Parse a Jinja template; InputError if it cannot be read."""
    text = read_text(templates, name)
    try:
        return jinja2.Environment().parse(text)
    except jinja2.TemplateSyntaxError as error:
        raise InputError(syntax_problem(error, name, text)) from None


def syntax_problem(error: jinja2.TemplateSyntaxError, name: str, text: str) -> Problem:
    """What Jinja does not accept, and in which line."""
    lines = text.splitlines()
    found = lines[error.lineno - 1].strip() if error.lineno <= len(lines) else ""
    remedy = f"correct the line: {found}" if found else "close what is open"
    return Problem(f"templates/{name}:{error.lineno}", f"not Jinja: {error.message}", remedy)
