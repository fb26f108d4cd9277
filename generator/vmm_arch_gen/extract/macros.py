"""Macros: what each of them is, and why those are left out that are no facts.

This is about integers, ioctl numbers and texts; for macros with arguments see macro_functions.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pycparser import c_ast, c_parser

from vmm_arch_gen.abi.layout import LayoutError, UndefinedType
from vmm_arch_gen.abi.model import Constant, Ioctl, MacroFunction, Omission, String
from vmm_arch_gen.abi.types import SCALARS, Type
from vmm_arch_gen.diagnostics import Problem, refuse
from vmm_arch_gen.extract.declarations import Declarations, UnreadableType
from vmm_arch_gen.extract.expressions import NUMBER, NotConstant, UndefinedName
from vmm_arch_gen.extract.ioctls import IoctlCall, ioctl_call, lost
from vmm_arch_gen.extract.macro_functions import read_macros, use
from vmm_arch_gen.extract.preprocess import Expansions, Macro
from vmm_arch_gen.extract.respell import respell_builtins
from vmm_arch_gen.extract.strings import UNSTEADY, string_value, unsteady

_LITERAL = re.compile(r"\(*(0[xX][0-9a-fA-F]+|[1-9][0-9]*|0)[uUlL]*\)*")
_CHARACTER = re.compile(r"'(?:[^'\\]|\\.)+'")
_WORD = re.compile(r"(?<!\w)[A-Za-z_]\w*")
_MEMBERS = re.compile(r"(__builtin_offsetof\s*\([^,()]*),[^()]*\)|(?:\.|->)\s*[A-Za-z_]\w*")
_SIZED = re.compile(r"\bsizeof\s*\(\s*(?:(?:struct|union|enum)\s+)?(\w+)")
_SHAPED = re.compile(
    rf"(?P<character>{_CHARACTER.pattern})"
    r"|sizeof\s*\(\s*(?P<type>(?:struct |union )?\w+(?:\s*\*)?)\s*\)"
    r"|(?<!\w)\.?[0-9](?:[eEpP][+-]|[\w.])*"
)
_NO_EXPRESSION = re.compile(
    r"[\"{};]|\b(?:__attribute__|inline|extern|static)\b"
    r"|\b(?:const|volatile)\b(?![\w\s*]*\*\s*\))"  # but for sizeof(const char *)
)


@dataclass(frozen=True)
class Folded:
    constants: tuple[Constant, ...]
    ioctls: tuple[Ioctl, ...]
    strings: tuple[String, ...]
    macros: tuple[MacroFunction, ...]
    """Those that take arguments."""
    omissions: tuple[Omission, ...]


def candidates(macros: Mapping[str, Macro]) -> dict[str, str]:
    """C text that uses each of the macros that may be facts: those that have a body."""
    found = {
        name: name if macro.parameters is None else use(macro, macros)
        for name, macro in sorted(macros.items())
        if macro.body
    }
    return {name: text for name, text in found.items() if text}


def fold(macros: Mapping[str, Macro], expansions: Expansions, declarations: Declarations) -> Folded:
    """Evaluate every macro; InputError names the ioctl numbers that cannot be computed.

    An ioctl number is left out, as any macro may be, where its argument is a type that the headers
    do not define: it is another CPU's.
    """
    constants, ioctls, strings = [], [], []
    unreadable: list[Problem] = []
    lost_ioctls: dict[tuple[str, str], tuple[list[Macro], Exception]] = {}
    changing = unsteady(macros)
    with_arguments, omissions = read_macros(macros, expansions.texts, changing, declarations)
    plain = {name: macro for name, macro in macros.items() if macro.parameters is None}
    texts = {name: expansions.texts[name] for name in plain if name in expansions.texts}
    parsed = _parse_all(texts, declarations)
    for name, macro in sorted(plain.items()):
        expansion = expansions.texts.get(name, "")
        if expansion == name and name in declarations.enumerators:
            continue  # it tells #ifdef of the enumerator, which is a fact already
        call = ioctl_call(expansions.ioctls.get(name, ""))
        try:
            if name in changing:
                raise NotConstant(UNSTEADY)
            if (text := string_value(expansion)) is not None:
                strings.append(String(name, text, macro.header))
                continue
            value = _value(macro, expansion, parsed.get(name), declarations)
            if name in declarations.enumerators and declarations.enumerators[name].value == value:
                continue  # the enumerator is the fact
            argument = _argument(call, declarations)
        except UnreadableType as error:
            unreadable.append(_unevaluated(macro, error))
            continue
        except (NotConstant, LayoutError) as error:
            if name in expansions.ioctls and not isinstance(error, UndefinedType):
                lost_ioctls.setdefault((macro.header, str(error)), ([], error))[0].append(macro)
            omissions.append(Omission("macro", name, macro.header, str(error)))
            continue
        if call:
            ioctls.append(Ioctl(name, value, call.direction, argument, macro.header))
        else:
            bits = re.search(r"0[xX]|<<|[~|&]", expansion)
            radix: Literal[10, 16] = 16 if bits else 10
            constants.append(Constant(name, value, radix, macro.header))
    refuse([*unreadable, *(lost(of, why) for of, why in lost_ioctls.values())])
    return Folded(
        tuple(constants), tuple(ioctls), tuple(strings), tuple(with_arguments), tuple(omissions)
    )


def _unevaluated(macro: Macro, why: Exception) -> Problem:
    """What is said of a macro that may be a constant, were it not for what cannot be read."""
    remedy = "give the target a shim for what cannot be read, or correct the header"
    what = f"the macro {macro.name} cannot be evaluated: {why}"
    return Problem(f"{macro.header}:{macro.line}", what, remedy)


def _value(macro: Macro, expansion: str, parsed: _Parsed | None, declarations: Declarations) -> int:
    if not macro.body:
        raise NotConstant("is empty")
    if (literal := _literal(expansion)) is not None:
        return literal
    match parsed:
        case ValueError():
            raise parsed
        case None:
            raise NotConstant("is not an integer")
    try:
        return declarations.evaluator.value(parsed.tree, parsed.numbers)
    except RecursionError:
        raise NotConstant("is nested too deeply") from None


def _literal(text: str) -> int | None:
    """The value of a plain number that is an int in every data model, so that no type matters."""
    match = _LITERAL.fullmatch(text)
    value = int(match[1], 0) if match else 1 << 31
    return value if value < 1 << 31 else None


def _argument(call: IoctlCall | None, declarations: Declarations) -> Type | None:
    """The type that an ioctl number is made with, as it is written in the header."""
    return declarations.type_of(call.argument) if call and call.argument else None


_C_WORDS = {
    "sizeof",
    "const",
    "volatile",
    "_Alignof",
    "__builtin_offsetof",
    "struct",
    "union",
    "enum",
} | set(" ".join(SCALARS).split())


@dataclass(frozen=True)
class _Expression:
    """A parsed expression in which numbers are left out, for all expressions of one shape."""

    tree: c_ast.Node
    numbers: tuple[str, ...]
    """What the names stand for that :func:`_shape` gave."""


_Parsed = _Expression | NotConstant | UndefinedType | UnreadableType
"""A macro's expansion, parsed, or why it cannot be."""


def _parse_all(expansions: Mapping[str, str], declarations: Declarations) -> dict[str, _Parsed]:
    """Parse the expansions.

    Parsing would be most of the work of reading a target. What cannot be an expression over things
    that are declared is not tried, and of those that differ in numbers only one is parsed: most of
    a KVM header's macros are ioctl numbers.
    """
    types = (*declarations.typedefs, *declarations.records, *declarations.enums)
    tags = {key.rpartition(" ")[2]: key for key in types if " " in key}
    known = {*tags, *types, *declarations.enumerators, *_C_WORDS}
    parsed: dict[str, _Parsed] = {}
    shapes: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, text in expansions.items():
        if _literal(text) is not None:
            continue
        plain = _CHARACTER.sub("0", text)
        words = _WORD.findall(_MEMBERS.sub(r"\1 ", plain))
        unknown = [word for word in words if word not in known]
        if not text:
            parsed[name] = NotConstant("expands to nothing")
        elif _NO_EXPRESSION.search(plain) or text in types or text in declarations.unreadable:
            parsed[name] = NotConstant(f"is not an expression: {text}")
        elif text in tags and text not in declarations.enumerators:
            parsed[name] = NotConstant(f"is not an expression: {text}, the tag of {tags[text]}")
        elif types_unread := [word for word in unknown if word in declarations.unreadable]:
            word = types_unread[0]
            parsed[name] = UnreadableType(word, declarations.unreadable[word])
        elif unknown:
            what = f"names {unknown[0]}, which the headers do not define"
            of_types = set(unknown) <= set(_SIZED.findall(plain))
            first = unknown[0]
            parsed[name] = UndefinedType(first, what) if of_types else UndefinedName(first)
        else:
            shape, numbers = _shape(respell_builtins(text), declarations)
            shapes.setdefault(shape, {})[name] = numbers
    trees = _parse_shapes(list(shapes), declarations)
    for shape, names in shapes.items():
        tree = trees.get(shape)
        for name, numbers in names.items():
            parsed[name] = (
                _Expression(tree, numbers)
                if tree
                else NotConstant(f"is not an expression: {expansions[name]}")
            )
    return parsed


def _shape(text: str, declarations: Declarations) -> tuple[str, tuple[str, ...]]:
    """An expression with names in place of its numbers and of the sizes of types."""
    numbers: list[str] = []

    def name(match: re.Match[str]) -> str:
        if match["character"]:
            return match[0]
        if match["type"]:
            try:
                size, _ = declarations.layouts.of(declarations.type_of(match["type"]))
            except (NotConstant, LayoutError):
                return match[0]  # which the evaluator will say more about
            numbers.append(f"{size}{declarations.size_suffix}")
        else:
            numbers.append(match[0])
        return NUMBER.format(len(numbers) - 1)

    shape = _SHAPED.sub(name, text)
    return re.sub(rf"\(({NUMBER.format('[0-9]+')})\)", r"\1", shape), tuple(numbers)


def _parse_shapes(shapes: list[str], declarations: Declarations) -> dict[str, c_ast.Node]:
    """Parse those shapes that are expressions, all in one go if they all are."""
    type_names = declarations.type_names()
    while shapes:
        lines = (f"long shape_{number} = ({shape});" for number, shape in enumerate(shapes))
        try:
            tree = c_parser.CParser(dialect="c23").parse("\n".join((type_names, *lines)))
        except c_parser.ParseError as error:
            if position := re.match(r":(\d+):", str(error)):
                shapes.pop(int(position[1]) - 2)
            elif len(shapes) == 1:
                break
            else:  # the parser does not say which one it is
                half = len(shapes) // 2
                first, second = shapes[:half], shapes[half:]
                return _parse_shapes(first, declarations) | _parse_shapes(second, declarations)
        except RecursionError:  # the longest is the most deeply nested, near enough
            shapes.remove(max(shapes, key=len))
        else:
            found = (node.init for node in tree.ext if isinstance(node, c_ast.Decl))
            return dict(zip(shapes, found, strict=True))
    return {}
