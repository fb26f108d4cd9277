"""Macros: those that are integers or ioctl numbers, with their values, and why others are not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pycparser import c_ast, c_parser

from vmm_arch_gen.abi.layout import LayoutError
from vmm_arch_gen.abi.model import Constant, Direction, Ioctl, Omission
from vmm_arch_gen.abi.types import SCALARS, Type, parse
from vmm_arch_gen.extract.declarations import Declarations
from vmm_arch_gen.extract.expressions import NotConstant
from vmm_arch_gen.extract.preprocess import Macro

_IOCTL = re.compile(
    r"_IO(?P<direction>|R|W|WR)\s*\(.*?,.*?(?:,\s*(?P<argument>[\w\s*\[\]]+?)\s*)?\)"
)
_DIRECTIONS: dict[str, Direction] = {
    "": "none",
    "R": "read",
    "W": "write",
    "WR": "readwrite",
}
_LITERAL = re.compile(r"\(*(0[xX][0-9a-fA-F]+|[1-9][0-9]*|0)[uUlL]*\)*")
_NO_EXPRESSION = re.compile(
    r"[\"{};\[\]]|\b(__attribute__|__declspec|inline|extern|static|const|volatile)\b"
)


@dataclass(frozen=True, slots=True)
class Folded:
    constants: tuple[Constant, ...]
    ioctls: tuple[Ioctl, ...]
    omissions: tuple[Omission, ...]


def candidates(macros: Mapping[str, Macro]) -> list[str]:
    """The macros that may be integers: those with a body and without parameters."""
    return sorted(name for name, macro in macros.items() if macro.body and not macro.parameters)


def fold(
    macros: Mapping[str, Macro], expansions: Mapping[str, str], declarations: Declarations
) -> Folded:
    """Evaluate every macro; ``expansions`` has the text that each candidate expands to."""
    constants, ioctls, omissions = [], [], []
    trees = _parse_all(expansions, declarations)
    for name in sorted(macros):
        macro = macros[name]
        try:
            value = _value(macro, expansions.get(name, ""), trees.get(name), declarations)
        except (NotConstant, LayoutError) as error:
            omissions.append(Omission("macro", name, macro.header, str(error)))
            continue
        if match := _IOCTL.fullmatch(macro.body):
            argument = _argument(match["argument"], declarations)
            direction = _DIRECTIONS[match["direction"]]
            ioctls.append(Ioctl(name, value, direction, argument, macro.header))
        else:
            bits = re.search(r"0[xX]|<<|[~|&]", expansions[name])
            radix: Literal[10, 16] = 16 if bits else 10
            constants.append(Constant(name, value, radix, macro.header))
    return Folded(tuple(constants), tuple(ioctls), tuple(omissions))


def _value(
    macro: Macro, expansion: str, tree: c_ast.Node | str | None, declarations: Declarations
) -> int:
    if macro.parameters:
        raise NotConstant("takes arguments")
    if not macro.body:
        raise NotConstant("is empty")
    if macro.name in declarations.enumerators:
        raise NotConstant("is the enumerator of the same name")
    if (literal := _literal(expansion)) is not None:
        return literal
    if tree is None or isinstance(tree, str):
        raise NotConstant(tree or "is no integer")
    return declarations.evaluator.value(tree)


def _literal(text: str) -> int | None:
    """The value of a plain number that is an int in every data model, so that no type matters."""
    match = _LITERAL.fullmatch(text)
    value = int(match[1], 0) if match else 1 << 31
    return value if value < 1 << 31 else None


def _argument(text: str | None, declarations: Declarations) -> Type | None:
    """The type that an ioctl number is made with, as it is written in the header."""
    if text is None:
        return None
    kind = parse(" ".join(text.split()).replace("[ ", "["))
    declarations.layouts.of(kind)
    return kind


_C_WORDS = {"sizeof", "struct", "union", "enum"} | set(" ".join(SCALARS).split())


def _parse_all(
    expansions: Mapping[str, str], declarations: Declarations
) -> dict[str, c_ast.Node | str]:
    """Parse the expansions, all of them at once; a str says why one cannot be parsed.

    Parsing is most of the work of reading a target, and what cannot be an expression over things
    that are declared is not worth trying.
    """
    types = (*declarations.typedefs, *declarations.records, *declarations.enums)
    known = {key.rpartition(" ")[2] for key in types} | {*declarations.enumerators, *_C_WORDS}
    trees: dict[str, c_ast.Node | str] = {}
    texts = {}
    for name, text in expansions.items():
        if _literal(text) is not None:
            continue
        words = re.findall(r"(?<![\w'])[A-Za-z_]\w*", text)
        unknown = [word for word in words if word not in known]
        if not text:
            trees[name] = "expands to nothing"
        elif _NO_EXPRESSION.search(text) or text in types:
            trees[name] = f"is no expression: {text}"
        elif unknown:
            trees[name] = f"names {unknown[0]}, which the headers do not define"
        else:
            texts[name] = text
    type_names = declarations.type_names()
    while texts:
        lines = (f"long {name} = ({text});" for name, text in texts.items())
        try:
            tree = c_parser.CParser(dialect="c23").parse("\n".join((type_names, *lines)))
        except c_parser.ParseError as error:
            position = re.match(r":(\d+):", str(error))
            wrong = list(texts)[int(position[1]) - 2 if position else -1]
            trees[wrong] = f"is no expression: {texts.pop(wrong)}"
        else:
            return trees | {d.name: d.init for d in tree.ext if isinstance(d, c_ast.Decl)}
    return trees
