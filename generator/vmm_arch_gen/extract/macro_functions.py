"""Macros with arguments: those whose value is an expression of them, and why others are not.

An argument that is a number has C's type ``unsigned long long``, whatever a caller would pass. So the
value has one type and one meaning; and it is what an ``int`` argument gives too, wherever C's arithmetic
with ints stays in their range.

Each macro is expanded by the compiler, with names of ours in the places of its arguments, and the
result is parsed. GNU's blocks in parentheses, ``({ … })``, are followed statement by statement.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from textwrap import shorten

from pycparser import c_ast, c_parser

from vmm_arch_gen.abi.expression_text import canonical
from vmm_arch_gen.abi.expressions import (
    Argument,
    Expression,
    Number,
    Offset,
    SizeOf,
    binary,
    cast,
    choice,
    unary,
    uses,
    walk,
)
from vmm_arch_gen.abi.integers import S32, IntType
from vmm_arch_gen.abi.layout import LayoutError
from vmm_arch_gen.abi.members import members
from vmm_arch_gen.abi.model import MacroFunction, Omission
from vmm_arch_gen.abi.samples import Sampler
from vmm_arch_gen.abi.types import Array, Named, Scalar, Type
from vmm_arch_gen.extract.declarations import Declarations
from vmm_arch_gen.extract.expressions import NotConstant
from vmm_arch_gen.extract.ioctls import balanced
from vmm_arch_gen.extract.preprocess import Macro, Unexpandable
from vmm_arch_gen.extract.strings import UNSTEADY

_ARGUMENT = "__vmm_arch_{}__"
"""The placeholder of an argument, by its number."""
_BLOCK = "__vmm_arch_block_{}__"
_MOST = 600
"""How many operators and operands an expression may have."""

_STATEMENTS = ("asm", "break", "continue", "do", "for", "goto", "if", "return", "switch", "while")
_DECLARES = (
    "__attribute__",
    "const",
    "extern",
    "inline",
    "register",
    "static",
    "typedef",
    "volatile",
)
_TYPE_OF_ARGUMENT = re.compile(
    r"\b(?:__typeof__|__typeof|typeof) ?\( ?(?:__vmm_arch_\d+__|\( ?__vmm_arch_\d+__ ?\)) ?\)"
)
_INNERMOST_BLOCK = re.compile(r"\( ?\{([^{}]*)\} ?\)")


def parameters(macro: Macro, macros: Mapping[str, Macro]) -> tuple[str, ...]:
    """The names of a macro's arguments; NotConstant if it takes any number of them.

    A macro that hands everything on, ``M(...)`` as ``N(__VA_ARGS__)``, has N's arguments.
    """
    seen = {macro.name}
    while macro.parameters == ("...",):
        passed = re.findall(r"(\w+)\s*\(\s*__VA_ARGS__\s*\)", macro.body)
        if macro.body.count("__VA_ARGS__") != 1 or len(passed) != 1 or passed[0] in seen:
            break
        if passed[0] not in macros:
            break
        macro = macros[passed[0]]
        seen.add(macro.name)
    names = macro.parameters or ()
    if any(name.endswith("...") for name in names):
        raise NotConstant("takes any number of arguments")
    return names


def use(macro: Macro, macros: Mapping[str, Macro]) -> str:
    """C text that uses a macro, with our names as arguments."""
    try:
        names = parameters(macro, macros)
    except NotConstant:
        return ""
    return f"{macro.name}({', '.join(_ARGUMENT.format(at) for at in range(len(names)))})"


def read_macros(
    macros: Mapping[str, Macro],
    expansions: Mapping[str, str],
    unsteady: Container[str],
    declarations: Declarations,
) -> tuple[list[MacroFunction], list[Omission]]:
    """Read every macro that takes arguments; ``expansions`` has what :func:`use` expands to."""
    found: list[MacroFunction] = []
    omissions: list[Omission] = []
    types = (*declarations.records, *declarations.enums, *declarations.typedefs)
    taken = {key.rpartition(" ")[2] for key in types} | declarations.functions.keys()
    sampler = Sampler(declarations.layouts)
    size_type = IntType(declarations.model.pointer, signed=False)
    for name, macro in sorted(macros.items()):
        if macro.parameters is None:
            continue
        try:
            names = parameters(macro, macros)
            if name in unsteady:
                raise NotConstant(UNSTEADY)
            if name in taken:
                raise NotConstant("has the name of a type or function, too")
            text = expansions.get(name, "")
            if isinstance(text, Unexpandable):
                raise NotConstant(f"is not expanded: {text}")
            reader = _Reader(name, names, macros, declarations)
            value = canonical(reader.read(text), names, size_type)
            uses(value)
            fact = MacroFunction(name, names, value, macro.header, bool(reader.blocks))
            if not sampler.samples(fact, 1)[0]:
                raise NotConstant("is defined for no arguments that were tried")
        except (NotConstant, LayoutError, ValueError) as error:
            omissions.append(Omission("macro", name, macro.header, str(error)))
        except RecursionError:
            omissions.append(Omission("macro", name, macro.header, "is nested too deeply"))
        else:
            found.append(fact)
    return found, omissions


@cache
def _parsed(source: str) -> c_ast.FileAST:
    """C text as a tree, which nobody changes: many targets have the same macros."""
    tree: c_ast.FileAST = c_parser.CParser(dialect="c23").parse(source)
    return tree


@dataclass
class _Local:
    """A variable of a block."""

    type: IntType
    value: Expression | None


@dataclass
class _Reader:
    """Reads the expansion of one macro."""

    name: str
    parameters: tuple[str, ...]
    macros: Mapping[str, Macro]
    declarations: Declarations
    blocks: dict[str, c_ast.Compound] = field(default_factory=dict)

    def read(self, text: str) -> Expression:
        """The value; NotConstant says why there is none."""
        self._refuse_text(text)
        return self._value(self._parse(text), {})

    # -- text ----------------------------------------------------------------------------------

    def _refuse_text(self, text: str) -> None:
        """Say of what is no expression what it is instead."""
        if not self.macros[self.name].body:
            raise NotConstant("is empty")
        if not text:
            raise NotConstant("expands to nothing")
        if text in map(_ARGUMENT.format, range(len(self.parameters))):
            raise NotConstant("is its argument, whatever that is")
        if '"' in text:
            what = (
                "makes a string" if re.search(r'"[^"]*__vmm_arch_', text) else "has a string in it"
            )
            raise NotConstant(what)
        for at, parameter in enumerate(self.parameters):
            ours = _ARGUMENT.format(at)
            for word in re.findall(rf"\w*{ours}\w*", text):
                if word != ours:
                    raise NotConstant(f"makes a name of its argument {parameter} (##)")
        words = re.findall(r"(?<![\w'])[A-Za-z_]\w*", text)
        for word in words:
            called = re.search(rf"\b{word} ?\(", text)
            if word == self.name and called:
                raise NotConstant("refers to itself")
            if word in self.macros and self.macros[word].parameters is not None and called:
                raise NotConstant(f"refers to itself through {word}")
            if word.strip("_") in _STATEMENTS:
                raise NotConstant(f"is made of statements: {word.strip('_')}")
            if word in _DECLARES:
                raise NotConstant(f"declares something: {word}")

    def _parse(self, text: str) -> c_ast.Node:
        shown = self._shown(text)
        if not balanced(text):
            raise NotConstant(f"is not an expression: {shown}")
        text = _TYPE_OF_ARGUMENT.sub("unsigned long long", text)
        text = text.replace("__builtin_offsetof", "offsetof")
        functions: list[str] = []
        while match := _INNERMOST_BLOCK.search(text):
            called = _BLOCK.format(len(functions))
            functions.append(f"long {called}(void) {{{match[1]}}}")
            text = f"{text[: match.start()]}{called}{text[match.end() :]}"
        source = "\n".join((*functions, f"long value = ({text});"))
        words = set(re.findall(r"\w+", source))
        types = (*self.declarations.typedefs, *self.declarations.records, *self.declarations.enums)
        names = "".join(f"typedef int {name};" for name in sorted(words.intersection(types)))
        try:
            tree = _parsed(names + source)
        except c_parser.ParseError:
            raise NotConstant(f"is not an expression: {shown}") from None
        for node in tree.ext:
            if isinstance(node, c_ast.FuncDef):
                self.blocks[node.decl.name] = node.body
        value = tree.ext[-1]
        if (
            not isinstance(value, c_ast.Decl)
            or len(tree.ext) != len(functions) + names.count(";") + 1
        ):
            raise NotConstant(f"is not an expression: {shown}")
        init: c_ast.Node = value.init
        return init

    def _shown(self, text: str) -> str:
        """An expansion with the macro's own names, and no longer than a line."""
        for at, name in enumerate(self.parameters):
            text = text.replace(_ARGUMENT.format(at), name)
        return shorten(text, 72, placeholder=" ...")

    # -- the tree --------------------------------------------------------------------------------

    def _value(self, node: c_ast.Node, local: dict[str, _Local]) -> Expression:
        match node:
            case c_ast.Constant(type=sort, value=text):
                number = self.declarations.evaluator.constant(sort, text)
                return Number(number.value, IntType(number.size, number.signed))
            case c_ast.ID(name=name):
                argument = self._argument(node)
                return Argument(argument) if argument else self._name(name, local)
            case c_ast.UnaryOp(op="sizeof", expr=operand):
                return self._size(operand, local)
            case c_ast.UnaryOp(op="++" | "--" | "p++" | "p--" as op):
                raise NotConstant(f"has a side effect: {op.strip('p')}")
            case c_ast.UnaryOp(op="*" | "&") | c_ast.StructRef() | c_ast.ArrayRef():
                raise NotConstant("depends on more than its arguments: it accesses memory")
            case c_ast.UnaryOp(op=op, expr=operand):
                return unary(op, self._value(operand, local))
            case c_ast.BinaryOp(op=op, left=left, right=right):
                return binary(op, self._value(left, local), self._value(right, local))
            case c_ast.TernaryOp(cond=condition, iftrue=yes, iffalse=no):
                return choice(*(self._value(part, local) for part in (condition, yes, no)))
            case c_ast.Cast(to_type=c_type, expr=operand):
                return self._cast(self.declarations.named_type(c_type), self._value(operand, local))
            case c_ast.ExprList(exprs=expressions):
                return [self._value(part, local) for part in expressions][-1]
            case c_ast.Assignment(op=op):
                raise NotConstant(f"has a side effect: {op}")
            case c_ast.FuncCall(name=called, args=arguments):
                return self._call(called, arguments)
        raise NotConstant(f"a {type(node).__name__} is not part of an integer expression")

    def _argument(self, node: c_ast.Node) -> str | None:
        """The argument that a node is the name of."""
        if not isinstance(node, c_ast.ID):
            return None
        match = re.fullmatch(r"__vmm_arch_(\d+)__", node.name)
        return self.parameters[int(match[1])] if match else None

    def _name(self, name: str, local: dict[str, _Local]) -> Expression:
        if name in self.blocks:
            return self._block(self.blocks[name], local)
        if name in local:
            value = local[name].value
            if value is None:
                raise NotConstant(f"reads {name} before it is set")
            return value
        if name in self.declarations.enumerators:
            number = self.declarations.enumerators[name]
            return Number(number.value, IntType(number.size, number.signed))
        if any(o.kind == "variable" and o.name == name for o in self.declarations.omissions):
            raise NotConstant(f"depends on more than its arguments: the variable {name}")
        raise NotConstant(f"names {name}, which the headers do not define")

    @property
    def _size_type(self) -> IntType:
        return IntType(self.declarations.model.pointer, signed=False)

    def _size(self, node: c_ast.Node, local: dict[str, _Local]) -> Expression:
        if isinstance(node, c_ast.Typename):
            size, _ = self.declarations.layouts.of(self.declarations.named_type(node))
            return Number(size, self._size_type)
        if argument := self._argument(node):
            return SizeOf(argument, self._size_type)
        return Number(self._value(node, local).type.size, self._size_type)

    def _integer(self, c_type: Type) -> IntType:
        if isinstance(c_type, Scalar) and c_type.name not in ("void", "float", "double"):
            layouts = self.declarations.layouts
            return IntType(layouts.of(c_type)[0], layouts.signed(c_type))
        raise NotConstant("has a type in it that is not an integer")

    def _cast(self, c_type: Type, value: Expression) -> Expression:
        if c_type == Scalar("_Bool"):
            return binary("!=", value, Number(0, S32))
        return cast(self._integer(c_type), value)

    def _call(self, called: c_ast.Node, arguments: c_ast.Node | None) -> Expression:
        if argument := self._argument(called):
            raise NotConstant(f"uses its argument {argument} as a type or function")
        name = getattr(called, "name", None)
        if name != "offsetof" or not isinstance(arguments, c_ast.ExprList):
            raise NotConstant(f"calls {name}" if name else "calls a function")
        c_type, member = arguments.exprs
        if not isinstance(c_type, c_ast.Typename):
            raise NotConstant("has an offset in a type that its arguments name")
        record = self.declarations.named_type(c_type)
        if argument := self._argument(member):
            if not isinstance(record, Named):
                raise NotConstant("has an offset in what is not a record")
            return Offset(record.name, argument, self._size_type)
        return Number(self._offset(record, member)[1], self._size_type)

    def _offset(self, record: Type, node: c_ast.Node) -> tuple[Type, int]:
        """The type and the offset in bytes of a member that the macro itself names."""
        layouts = self.declarations.layouts
        match node:
            case c_ast.ID(name=name):
                return self._member(record, name)
            case c_ast.StructRef(name=outer, type=".", field=c_ast.ID(name=name)):
                c_type, base = self._offset(record, outer)
                c_type, offset = self._member(c_type, name)
                return c_type, base + offset
            case c_ast.ArrayRef(name=array, subscript=index):
                c_type, base = self._offset(record, array)
                element = self._value(index, {})
                if isinstance(c_type, Array) and isinstance(element, Number):
                    c_type = layouts.resolve(c_type.of)
                    return c_type, base + element.value * layouts.of(c_type)[0]
        raise NotConstant("has an offset of a member that depends on its arguments")

    def _member(self, record: Type, name: str) -> tuple[Type, int]:
        layouts, records = self.declarations.layouts, self.declarations.records
        if isinstance(record, Named) and record.name in records:
            for place in members(records[record.name], records, layouts):
                if place.path == name and place.member.bits is None:
                    return layouts.resolve(place.member.type), place.offset // 8
        raise NotConstant(f"names {name}, which is not a member that has an offset")

    # -- blocks ----------------------------------------------------------------------------------

    def _block(self, body: c_ast.Compound, outer: dict[str, _Local]) -> Expression:
        """The value of ``({ … })``: that of its last statement."""
        own: dict[str, _Local] = {}
        value: Expression | None = None
        for statement in body.block_items or ():
            value = None
            seen = {**outer, **own}
            match statement:
                case c_ast.Decl(name=name, type=c_ast.TypeDecl() as c_type, storage=[]):
                    declared = self._integer(self.declarations.named_type(c_type))
                    first = self._value(statement.init, seen) if statement.init else None
                    own[name] = _Local(declared, first and cast(declared, first))
                case c_ast.Assignment(op=op, lvalue=c_ast.ID(name=name), rvalue=right):
                    if name not in own:
                        raise NotConstant(f"has a side effect: {op}")
                    new = self._value(right, seen)
                    if op != "=":
                        new = binary(op.removesuffix("="), self._name(name, seen), new)
                    own[name].value = cast(own[name].type, new)
                    self._limit(new)
                case c_ast.EmptyStatement():
                    pass
                case _ if type(statement).__name__ in _STATEMENT_NODES:
                    raise NotConstant("is made of statements")
                case _:
                    value = self._value(statement, seen)
        if value is None:
            raise NotConstant("is made of statements that have no value")
        return value

    def _limit(self, value: Expression) -> None:
        if next(islice(walk(value), _MOST, None), None) is not None:
            raise NotConstant("is too long when it is written out")


_STATEMENT_NODES = ("If", "For", "While", "DoWhile", "Switch", "Return", "Goto", "Label", "Break",
                    "Continue", "Compound", "Decl", "Pragma")  # fmt: skip
