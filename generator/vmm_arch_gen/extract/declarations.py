"""From pycparser's tree to declarations: records, typedefs, enums and functions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Literal

from pycparser import c_ast, c_parser

from vmm_arch_gen.abi.layout import LayoutError, Layouts
from vmm_arch_gen.abi.model import (
    DataModel,
    Enum,
    FunctionPrototype,
    Member,
    Omission,
    Record,
    Typedef,
)
from vmm_arch_gen.abi.types import SCALARS, Array, Function, Named, Pointer, Scalar, Type
from vmm_arch_gen.diagnostics import InputError, Problem
from vmm_arch_gen.extract.attributes import Attributes, read_attributes
from vmm_arch_gen.extract.expressions import Evaluator, Integer, NotConstant, fits_int

_Definition = c_ast.Struct | c_ast.Union | c_ast.Enum
_UNREADABLE = "give the target a shim for what cannot be read, or correct the header"


def parse(text: str) -> c_ast.FileAST:
    """Parse preprocessed C; InputError gives the header and line that does not parse."""
    parser = c_parser.CParser(dialect="c23")
    try:
        return parser.parse(text)
    except c_parser.ParseError as error:
        where, _, what = str(error).partition(": ")
        if re.search(r":\d", where) is None:  # it gives the file only; the lexer knows the line
            where = f"{parser.clex.filename}:{parser.clex._lineno}"
        raise InputError(
            Problem(where, f"pycparser cannot read this: {what}", _UNREADABLE)
        ) from None
    except RecursionError:
        where = f"{parser.clex.filename}:{parser.clex._lineno}"
        raise InputError(Problem(where, "is nested too deeply to be read", _UNREADABLE)) from None


class Declarations:
    """What a translation unit declares, collected declaration by declaration."""

    def __init__(self, model: DataModel) -> None:
        self.records: dict[str, Record] = {}
        self.typedefs: dict[str, Typedef] = {}
        self.enums: dict[str, Enum] = {}
        self.enumerators: dict[str, Integer] = {}
        self.functions: dict[str, FunctionPrototype] = {}
        self.omissions: list[Omission] = []
        self.layouts = Layouts(model, self.records, self.typedefs, self.enums)
        self.evaluator = Evaluator(model, self.enumerators, self._sizeof, self._cast)
        self.size_suffix = "ULL" if model.pointer == 8 else "U"  # of a number of type size_t
        self.model = model
        # pycparser shares one node between the declarators of a declaration.
        self._defined: dict[int, str] = {}
        self._keys: set[str] = set()
        self._incomplete: dict[str, str] = {}

    def read(self, tree: c_ast.FileAST) -> None:
        """Read a translation unit; InputError collects everything that cannot be read."""
        problems = []
        for node in tree.ext:
            try:
                self._external(node)
            except (LayoutError, NotConstant, ValueError, c_parser.ParseError) as error:
                problems.append(Problem(_where(node), str(error), _UNREADABLE))
            except RecursionError:
                problems.append(Problem(_where(node), "is nested too deeply", _UNREADABLE))
        if problems:
            raise InputError(*problems)
        self.omissions += [
            Omission("record", key.replace(" ", ":"), header, "declared, but defined nowhere")
            for key, header in self._incomplete.items()
            if key not in self.records and key not in self.enums
        ]

    # -- declarations ------------------------------------------------------------------------

    def _external(self, node: c_ast.Node) -> None:
        header = _header(node)
        match node:
            case c_ast.Typedef(name=name):
                c_type, attributes = self._type(node.type, name)
                attributes |= self._attributes(node)
                if attributes.packed:
                    raise ValueError(f"the attribute packed on the typedef {name} has no meaning")
                if c_type == Named(name):  # it names an unnamed type, and that is all it does
                    if attributes.aligned is not None:
                        raise ValueError(f"the typedef {name} aligns the unnamed type it defines")
                else:
                    self.typedefs[name] = Typedef(name, c_type, attributes.aligned, header)
            case c_ast.FuncDef():
                reason = "a function with a body: no part of a binary interface"
                self.omissions.append(Omission("function", node.decl.name, header, reason))
            case c_ast.Decl(name=None):
                self._type(node.type, None)
            case c_ast.Decl(name=name):
                c_type, _ = self._type(node.type, None)
                self._attributes(node)
                if isinstance(c_type, Function):
                    self.functions[name] = FunctionPrototype(name, c_type, header)
                else:
                    reason = "a variable: no hypervisor's interface has any"
                    self.omissions.append(Omission("variable", name, header, reason))
            case c_ast.StaticAssert():
                self._assert(node)
            case c_ast.Pragma():
                _pragma(node)
            case c_ast.AttributeDeclaration():
                self._attributes(node)
            case _:
                raise ValueError(f"a {type(node).__name__} is not expected here")

    def _assert(self, node: c_ast.StaticAssert) -> None:
        if not self.evaluator.value(node.cond):
            message = node.message.value if node.message else "no message"
            raise ValueError(f"the header's own static assertion is false: {message}")

    def _attributes(self, node: c_ast.Node) -> Attributes:
        return read_attributes(getattr(node, "attributes", None), self._evaluate_text)

    def _evaluate_text(self, text: str) -> int:
        return self.evaluator.value(self.parse_expression(text))

    def parse_expression(self, text: str) -> c_ast.Node:
        """Parse a C expression in which the typedefs read so far are types."""
        try:
            words = set(re.findall(r"\w+", text))
            names = self.type_names(words)  # not all of them: a target has hundreds
            tree = c_parser.CParser(dialect="c23").parse(f"{names}long x = ({text});")
        except c_parser.ParseError:
            raise NotConstant(f"{text} is not an expression that can be read") from None
        value: c_ast.Node = tree.ext[-1].init
        return value

    def type_of(self, text: str) -> Type:
        """The type that C text names."""
        text = " ".join(text.split())
        if self._is_type(text):
            return Named(text)
        if text in SCALARS:
            return Scalar(text)
        node = self.parse_expression(f"sizeof({text})")
        if not isinstance(node, c_ast.UnaryOp) or not isinstance(node.expr, c_ast.Typename):
            raise NotConstant(f"{text} is not a type")
        return self._type(node.expr.type, None)[0]

    def named_type(self, node: c_ast.Typename | c_ast.TypeDecl) -> Type:
        """The type that a cast or ``sizeof`` names, with typedefs resolved."""
        return self.layouts.resolve(self._type(node.type, None)[0])

    def type_names(self, words: Collection[str] | None = None) -> str:
        """C that tells a parser which names, or which of some words, are types."""
        names = (
            name for name in (*self.typedefs, *self.records, *self.enums) if name.isidentifier()
        )
        return "".join(
            f"typedef int {name};"
            for name in dict.fromkeys(names)
            if words is None or name in words
        )

    # -- types -------------------------------------------------------------------------------

    def _sizeof(self, node: c_ast.Typename) -> int:
        return self.layouts.of(self._type(node.type, None)[0])[0]

    def _cast(self, node: c_ast.Typename) -> tuple[int, bool]:
        c_type = self.named_type(node)
        match c_type:
            case Pointer():
                return self.model.pointer, False
            case Scalar(name) if name not in ("void", "float", "double"):
                return self.layouts.of(c_type)[0], self.layouts.signed(c_type)
        raise NotConstant("casts to a type that is not an integer")

    def _type(self, node: c_ast.Node, name: str | None) -> tuple[Type, Attributes]:
        """A declarator's type, and what its attributes say about the thing declared.

        ``name`` is what an unnamed record or enum is called: a typedef's name or a member's path.
        """
        attributes = self._attributes(node) if not _defines(node) else Attributes()
        match node:
            case c_ast.TypeDecl():
                c_type, inner = self._type(node.type, name)
                return c_type, attributes | inner
            case c_ast.AttributedType(type=inner_node) if _defines(inner_node):
                return self._define(inner_node, name, node.attributes), Attributes()
            case c_ast.AttributedType():
                c_type, inner = self._type(node.type, name)
                return c_type, attributes | inner
            case c_ast.Struct() | c_ast.Union() | c_ast.Enum():
                if _defines(node):
                    return self._define(node, name, None), Attributes()
                key = f"{type(node).__name__.lower()} {node.name}"
                self._incomplete.setdefault(key, _header(node))
                return Named(key), attributes
            case c_ast.PtrDecl():
                c_type, _ = self._type(node.type, None)
                if "volatile" in _qualifiers(node.type):
                    raise ValueError("a pointer to volatile memory cannot be said in the facts")
                # Attributes behind the name belong to what is named; those before, to the pointee.
                attributes |= self._attributes(_declared(node))
                return Pointer(c_type, "const" in _qualifiers(node.type)), attributes
            case c_ast.ArrayDecl(dim=dimension):
                c_type, inner = self._type(node.type, name)
                count = None if dimension is None else self.evaluator.value(dimension)
                if count is not None and count < 0:
                    raise ValueError(f"an array of {count} elements")
                return Array(c_type, count), attributes | inner
            case c_ast.FuncDecl():
                result, _ = self._type(node.type, None)
                return Function(result, *self._parameters(node.args)), attributes
            case c_ast.IdentifierType(names=names):
                return self._identifier(names), attributes
        raise ValueError(f"a {type(node).__name__} is not a type that is known")

    def _is_type(self, name: str) -> bool:
        return name in self.typedefs or name in self.records or name in self.enums

    def _identifier(self, names: list[str]) -> Type:
        if len(names) == 1 and self._is_type(names[0]):
            return Named(names[0])
        # The order of the words is free, "int" is redundant beside others, "signed" but for char.
        base = " ".join(w for w in names if w not in ("signed", "unsigned", "int")) or "int"
        base = "_Bool" if base == "bool" else base
        sign = "unsigned " if "unsigned" in names else ""
        if "signed" in names and base == "char":
            sign = "signed "
        if sign + base not in SCALARS:
            raise ValueError(f"the type {' '.join(names)} is not known")
        return Scalar(sign + base)

    def _parameters(
        self, arguments: c_ast.ParamList | None
    ) -> tuple[tuple[tuple[str, Type], ...], bool]:
        parameters: list[tuple[str, Type]] = []
        variadic = False
        for node in arguments.params if arguments else ():
            if isinstance(node, c_ast.EllipsisParam):
                variadic = True
                continue
            c_type, _ = self._type(node.type, None)
            match c_type:  # as C adjusts them
                case Array(of):
                    c_type = Pointer(of, "const" in _qualifiers(node.type))
                case Function():
                    c_type = Pointer(c_type)
            if c_type != Scalar("void"):
                parameters.append((node.name or "", c_type))
        return tuple(parameters), variadic

    # -- definitions -------------------------------------------------------------------------

    def _define(
        self,
        node: _Definition,
        name: str | None,
        trailing: Iterable[c_ast.AttributeSpecifier] | None,
    ) -> Named:
        """Define a record or enum; ``trailing`` are the attributes after its brace."""
        if id(node) not in self._defined:
            attributes = self._attributes(node) | read_attributes(trailing, self._evaluate_text)
            if isinstance(node, c_ast.Enum):
                self._defined[id(node)] = self._define_enum(node, name, attributes)
            else:
                self._defined[id(node)] = self._define_record(node, name, attributes)
        return Named(self._defined[id(node)])

    def _define_enum(self, node: c_ast.Enum, name: str | None, attributes: Attributes) -> str:
        if attributes != Attributes():
            raise ValueError(f"the attributes of enum {node.name or name} change its size")
        values: list[tuple[str, int]] = []
        previous = -1
        for enumerator in node.values.enumerators:
            value = self.evaluator.value(enumerator.value) if enumerator.value else previous + 1
            values.append((enumerator.name, value))
            # Inside its own definition an enumerator has a type that holds it.
            size = 4 if fits_int(value) else 8
            self.enumerators[enumerator.name] = Integer(value, size, value < 1 << 63)
            previous = value
        key = f"enum {node.name}" if node.name else name or f"enum <{values[0][0]}>"
        if "." in key:  # a member's own unnamed enum: its path is nothing that C can say
            key = f"enum <{values[0][0]}>"
        if node.underlying_type is not None:
            underlying, _ = self._type(node.underlying_type.type, None)
            underlying = self.layouts.resolve(underlying)
        else:
            underlying = self._underlying([value for _, value in values])
        if not isinstance(underlying, Scalar):
            raise ValueError(f"the type of {key} is not an integer")
        if not all(fits_int(value) for _, value in values):
            # C23, which gcc before 13 does not follow: then all of them have the enum's type.
            size, signed = self.layouts.of(underlying)[0], self.layouts.signed(underlying)
            for enumerator_name, value in values:
                self.enumerators[enumerator_name] = Integer(value, size, signed)
        self.enums[key] = Enum(key, underlying, tuple(values), _header(node))
        return key

    def _underlying(self, values: list[int]) -> Scalar:
        """The integer type that gcc and clang give an enum."""
        wide = "long" if self.model.long == 8 else "long long"
        if min(values, default=0) >= 0:
            return Scalar(f"unsigned {'int' if max(values, default=0) < 1 << 32 else wide}")
        return Scalar("int" if all(map(fits_int, values)) else wide)

    def _define_record(
        self, node: c_ast.Struct | c_ast.Union, name: str | None, attributes: Attributes
    ) -> str:
        kind: Literal["struct", "union"] = "union" if isinstance(node, c_ast.Union) else "struct"
        if node.name:
            key = f"{kind} {node.name}"
        elif name is None:
            raise ValueError(f"an unnamed {kind} that is neither a typedef nor a member")
        else:
            key = f"{kind} {name}" if "." in name else name
        count = 1
        while key in self._keys:
            if "<" not in key:
                raise ValueError(f"{key} is defined twice")
            count += 1
            key = re.sub(r"\d*>$", f"{count}>", key)
        self._keys.add(key)
        members = tuple(self._members(node, key))
        self.records[key] = Record(
            key, kind, members, attributes.packed, attributes.aligned, _header(node)
        )
        self.layouts.record(key)  # complains here, where the header's line is known
        return key

    def _members(self, record: c_ast.Struct | c_ast.Union, key: str) -> Iterator[Member]:
        # Members of an unnamed member are reached, and so named, like those around it.
        path = re.sub(r"^(struct|union) |(\.<\w+>)+$", "", key)
        for node in record.decls:
            match node:
                case c_ast.StaticAssert():
                    self._assert(node)
                case c_ast.Pragma():
                    _pragma(node)
                case c_ast.Decl():
                    definition = _definition(node.type)
                    if node.name is None and node.bitsize is None and not _unnamed(definition):
                        self._type(node.type, None)  # a definition inside, no member
                        continue
                    name = node.name or ""
                    own = name or f"<{type(definition).__name__.lower()}>"
                    c_type, attributes = self._type(node.type, f"{path}.{own}")
                    attributes |= self._attributes(node)
                    for alignment in node.align or ():
                        attributes |= Attributes(aligned=self.evaluator.value(alignment.alignment))
                    if attributes.packed:
                        raise ValueError(f"the attribute packed on one member, {name}")
                    bits = None if node.bitsize is None else self.evaluator.value(node.bitsize)
                    yield Member(name, c_type, bits, attributes.aligned)
                case _:
                    raise ValueError(f"a {type(node).__name__} is not a member")


def _defines(node: c_ast.Node) -> bool:
    """Whether a node defines a record or an enum."""
    match node:
        case c_ast.Struct() | c_ast.Union():
            return node.decls is not None
        case c_ast.Enum():
            return node.values is not None
    return False


def _declared(node: c_ast.Node) -> c_ast.Node:
    """The innermost part of a declarator: the one with the name."""
    while isinstance(node, c_ast.PtrDecl | c_ast.ArrayDecl | c_ast.FuncDecl):
        node = node.type
    return node


def _definition(node: c_ast.Node) -> c_ast.Node | None:
    """The record or enum that a declaration defines, if any."""
    while not _defines(node):
        if isinstance(node, c_ast.IdentifierType) or not hasattr(node, "type"):
            return None
        node = node.type
    return node


def _unnamed(definition: c_ast.Node | None) -> bool:
    """Whether it is a record without a tag, whose members become those of the record around it."""
    return isinstance(definition, c_ast.Struct | c_ast.Union) and definition.name is None


def _qualifiers(node: c_ast.Node) -> list[str]:
    while isinstance(node, c_ast.ArrayDecl):
        node = node.type
    return getattr(node, "quals", None) or []


def _pragma(node: c_ast.Pragma) -> None:
    text = node.string.strip('"')
    if text.split()[:1] not in (["once"], ["GCC"], ["clang"], ["warning"], ["region"], []):
        raise ValueError(f"#pragma {text} is not known; it may change a layout")


def _header(node: c_ast.Node) -> str:
    return str(node.coord.file) if node.coord else ""


def _where(node: c_ast.Node) -> str:
    return f"{node.coord.file}:{node.coord.line}" if node.coord else "preprocessed headers"
