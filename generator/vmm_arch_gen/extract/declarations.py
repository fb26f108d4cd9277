"""From pycparser's tree to types, and the records and enums that they define."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal

from pycparser import c_ast, c_parser

from vmm_arch_gen.abi.layout import LayoutError, Layouts
from vmm_arch_gen.abi.members import members
from vmm_arch_gen.abi.model import (
    DataModel,
    Enum,
    FunctionPrototype,
    Member,
    Omission,
    Record,
    Typedef,
)
from vmm_arch_gen.abi.types import (
    NOT_INTEGERS,
    SCALARS,
    Array,
    Function,
    Named,
    Pointer,
    Scalar,
    Type,
    spell,
)
from vmm_arch_gen.extract import tree
from vmm_arch_gen.extract.attributes import Attributes, read_attributes
from vmm_arch_gen.extract.expressions import Evaluator, Integer, NotConstant, fits_int
from vmm_arch_gen.extract.parse import BUILT_IN

_INT128 = {"__int128_t": "__int128", "__uint128_t": "unsigned __int128"}


class UnreadableType(ValueError):
    """A type is named that cannot be read."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"the type {name} cannot be read: {reason}")
        self.name = name


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
        self.evaluator = Evaluator(model, self.enumerators, self)
        self.size_suffix = "ULL" if model.pointer == 8 else "U"  # of a number of type size_t
        self.model = model
        # pycparser shares one node between the declarators of a declaration.
        self._defined: dict[int, str] = {}
        self._keys: dict[str, None] = {}  # of records, in their order
        self.incomplete: dict[str, str] = {}
        """The records and enums that are named before they are defined, each with its header."""
        self.unreadable: dict[str, str] = dict.fromkeys(BUILT_IN, "it is the compiler's own")
        """The types that cannot be read, with the reason."""
        self.refused: set[str] = set()
        """Tags and names of those of them that are facts, so that they are refused already."""

    def mark(self) -> tuple[int, ...]:
        """How much was read so far."""
        return tuple(map(len, self._read_so_far))

    def forget_since(self, mark: tuple[int, ...]) -> None:
        """Forget what was read of a declaration that cannot be read whole."""
        for read, count in zip(self._read_so_far, mark, strict=True):
            for key in list(read)[count:]:
                del read[key]

    @property
    def _read_so_far(self) -> tuple[dict[Any, Any], ...]:
        return self.records, self.enums, self.enumerators, self._keys, self._defined

    def leave_out_functions(self, names: Iterable[str], reason: str) -> None:
        for name in names:
            if function := self.functions.pop(name, None):
                self.omissions.append(Omission("function", name, function.header, reason))

    def check(self, node: c_ast.StaticAssert) -> None:
        """Evaluate a static assertion; ValueError if it is false."""
        try:
            holds = self.evaluator.value(node.cond)
        except (LayoutError, ValueError):
            return  # the compiler evaluates it, too, when it proves the facts
        if not holds:
            message = node.message.value if node.message else "no message"
            raise ValueError(f"the header's own static assertion is false: {message}")

    def attributes(self, node: c_ast.Node) -> Attributes:
        return self._read(getattr(node, "attributes", None))

    def _read(self, specifiers: Iterable[c_ast.AttributeSpecifier] | None) -> Attributes:
        return read_attributes(specifiers, self._evaluate_text, self.model.int128_align)

    def _evaluate_text(self, text: str) -> int:
        return self.evaluator.value(self.parse_expression(text))

    def parse_expression(self, text: str) -> c_ast.Node:
        """Parse a C expression in which the typedefs read so far are types."""
        try:
            words = set(re.findall(r"\w+", text))
            names = self.type_names(words)  # not all of them: a target has hundreds
            parsed = c_parser.CParser(dialect="c23").parse(f"{names}long x = ({text});")
        except c_parser.ParseError:
            raise NotConstant(f"{text} is not an expression that can be read") from None
        value: c_ast.Node = parsed.ext[-1].init
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
        return self.type(node.expr.type, None)[0]

    def named_type(self, node: c_ast.Typename | c_ast.TypeDecl) -> Type:
        """The type that a cast or ``sizeof`` names, with typedefs resolved."""
        return self.layouts.resolve(self.type(node.type, None)[0])

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

    def sizeof(self, node: c_ast.Typename) -> int:
        return self.layouts.of(self.type(node.type, None)[0])[0]

    def alignof(self, node: c_ast.Typename) -> int:
        return self.layouts.of(self.type(node.type, None)[0])[1]

    def offsetof(self, node: c_ast.Typename, path: c_ast.Node) -> int:
        return self._place(self.type(node.type, None)[0], path)[1] // 8

    def sizeof_member(self, node: c_ast.Node) -> int:
        return self.layouts.of(self.expression_type(node))[0]

    def expression_type(self, node: c_ast.Node) -> Type:
        """The type of an expression that reaches a member from a cast, as macros do."""
        match node:
            case c_ast.Cast(to_type=wanted):
                return self.type(wanted.type, None)[0]
            case c_ast.UnaryOp(op="*", expr=inner) | c_ast.ArrayRef(name=inner):
                return self._pointee(self.expression_type(inner))
            case c_ast.StructRef(name=inner, type=operator, field=field):
                outer = self.expression_type(inner)
                return self._place(self._pointee(outer) if operator == "->" else outer, field)[0]
        raise NotConstant(f"the type of a {type(node).__name__} is not known")

    def _pointee(self, outer: Type) -> Type:
        match self.layouts.resolve(outer):
            case Pointer(inner) | Array(inner):
                return inner
        raise NotConstant(f"{spell(outer)} points to nothing")

    def _place(self, outer: Type, path: c_ast.Node) -> tuple[Type, int]:
        """The type of a record's member, and its offset in bits; ``path`` may go further in."""
        match path:
            case c_ast.ID(name=name):
                key = self.layouts.resolve(outer)
                record = self.records.get(key.name) if isinstance(key, Named) else None
                if record is None:
                    raise NotConstant(f"{spell(outer)} is not a record that is defined")
                for place in members(record, self.records, self.layouts):
                    if place.path == name and place.member.bits is None:
                        return place.member.type, place.offset
                raise NotConstant(f"{record.key} has no member {name} that has an address")
            case c_ast.StructRef(name=inner, field=field):
                middle, offset = self._place(outer, inner)
                found, further = self._place(middle, field)
                return found, offset + further
            case c_ast.ArrayRef(name=inner, subscript=subscript):
                middle, offset = self._place(outer, inner)
                element = self._pointee(middle)
                index = self.evaluator.value(subscript)
                return element, offset + index * self.layouts.of(element)[0] * 8
        raise NotConstant(f"a {type(path).__name__} is not a member")

    def cast(self, node: c_ast.Typename) -> tuple[int, bool]:
        c_type = self.named_type(node)
        match c_type:
            case Pointer():
                return self.model.pointer, False
            case Scalar(name) if name not in NOT_INTEGERS:
                return self.layouts.of(c_type)[0], self.layouts.signed(c_type)
        raise NotConstant("casts to a type that is not an integer")

    def type(self, node: c_ast.Node, name: str | None) -> tuple[Type, Attributes]:
        """A declarator's type, and what its attributes say about the thing declared.

        ``name`` is what an unnamed record or enum is called: a typedef's name or a member's path.
        """
        attributes = self.attributes(node) if not tree.defines(node) else Attributes()
        match node:
            case c_ast.TypeDecl():
                c_type, inner = self.type(node.type, name)
                return c_type, attributes | inner
            case c_ast.AttributedType(type=inner_node) if tree.defines(inner_node):
                return self._define(inner_node, name, node.attributes), Attributes()
            case c_ast.AttributedType():
                c_type, inner = self.type(node.type, name)
                return c_type, attributes | inner
            case c_ast.Struct() | c_ast.Union() | c_ast.Enum():
                if tree.defines(node):
                    return self._define(node, name, None), Attributes()
                key = f"{type(node).__name__.lower()} {node.name}"
                self.incomplete.setdefault(key, tree.header(node))
                return Named(key), attributes
            case c_ast.PtrDecl():
                c_type, _ = self.type(node.type, None)
                # Attributes behind the name belong to what is named; those before, to the pointee.
                attributes |= self.attributes(tree.declared(node))
                return _pointer(c_type, node.type), attributes
            case c_ast.ArrayDecl(dim=dimension):
                c_type, inner = self.type(node.type, name)
                count = None if dimension is None else self.evaluator.value(dimension)
                if count is not None and count < 0:
                    raise ValueError(f"an array of {count} elements")
                return Array(c_type, count), attributes | inner
            case c_ast.FuncDecl():
                result, _ = self.type(node.type, None)
                return Function(result, *self._parameters(node.args)), attributes
            case c_ast.IdentifierType(names=names):
                return self._identifier(names), attributes
            case c_ast.TypeOf(expr=c_ast.Typename() as named):
                return self.type(named.type, None)[0], attributes
            case c_ast.TypeOf(expr=expression):
                return self.expression_type(expression), attributes
        raise ValueError(f"a {type(node).__name__} is not a type that is known")

    def _is_type(self, name: str) -> bool:
        return name in self.typedefs or name in self.records or name in self.enums

    def _identifier(self, names: list[str]) -> Type:
        if len(names) == 1 and self._is_type(names[0]):
            return Named(names[0])
        if reason := self.unreadable.get(names[0]):
            raise UnreadableType(names[0], reason)
        if names[0] in _INT128:
            return Scalar(_INT128[names[0]])
        # The order of the words is free, "int" is redundant beside others, "signed" but for char.
        base = " ".join(w for w in names if w not in ("signed", "unsigned", "int")) or "int"
        base = "_Bool" if base == "bool" else base
        sign = "unsigned " if "unsigned" in names else ""
        if "signed" in names and base == "char":
            sign = "signed "
        if sign + base not in SCALARS:
            raise ValueError(f"the type {' '.join(names)} is not known")
        return Scalar(sign + base)

    def in_mode(self, c_type: Type, mode: str | None) -> Type:
        """A type, or the integer of another size that the attribute ``mode`` makes of it."""
        if mode is None:
            return c_type
        resolved = self.layouts.resolve(c_type)
        sizes = {"QI": 1, "byte": 1, "HI": 2, "SI": 4, "DI": 8, "TI": 16}
        size = sizes.get(mode, self.model.pointer if mode in ("word", "pointer") else 0)
        names = ["signed char", "short", "int", "long", "long long", "__int128"]
        if isinstance(resolved, Scalar) and resolved.name not in NOT_INTEGERS:
            for name in names:
                signed = Scalar(name)
                if self.layouts.of(signed)[0] == size:
                    if self.layouts.signed(resolved):
                        return signed
                    return Scalar(f"unsigned {name.removeprefix('signed ')}")
        raise ValueError(f"the attribute mode({mode}) is not known; it changes a type")

    def _parameters(
        self, arguments: c_ast.ParamList | None
    ) -> tuple[tuple[tuple[str, Type], ...], bool]:
        parameters: list[tuple[str, Type]] = []
        variadic = False
        for node in arguments.params if arguments else ():
            if isinstance(node, c_ast.EllipsisParam):
                variadic = True
                continue
            if isinstance(node, c_ast.ID):  # a name without a type, as before C89: not a typedef
                raise ValueError(f"{node.name} is used as a type, but nothing before declares it")
            if isinstance(node.type, c_ast.ArrayDecl):  # as C adjusts them
                element, _ = self.type(node.type.type, None)
                c_type: Type = _pointer(element, node.type)
            else:
                c_type, _ = self.type(node.type, None)
            match self.layouts.resolve(c_type):
                case Function():
                    c_type = Pointer(c_type)
            if c_type != Scalar("void"):
                parameters.append((node.name or "", c_type))
        return tuple(parameters), variadic

    # -- definitions -------------------------------------------------------------------------

    def _define(
        self,
        node: tree.Definition,
        name: str | None,
        trailing: Iterable[c_ast.AttributeSpecifier] | None,
    ) -> Named:
        """Define a record or enum; ``trailing`` are the attributes after its brace."""
        if id(node) not in self._defined:
            attributes = self.attributes(node) | self._read(trailing)
            if isinstance(node, c_ast.Enum):
                self._defined[id(node)] = self._define_enum(node, name, attributes)
            else:
                self._defined[id(node)] = self._define_record(node, name, attributes)
        return Named(self._defined[id(node)])

    def _define_enum(self, node: c_ast.Enum, name: str | None, attributes: Attributes) -> str:
        if replace(attributes, packed=False) != Attributes():
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
            underlying, _ = self.type(node.underlying_type.type, None)
            underlying = self.layouts.resolve(underlying)
        else:
            underlying = self._underlying([value for _, value in values], attributes.packed)
        if not isinstance(underlying, Scalar):
            raise ValueError(f"the type of {key} is not an integer")
        if not all(fits_int(value) for _, value in values):
            # C23, which gcc before 13 does not follow: then all of them have the enum's type.
            size, signed = self.layouts.of(underlying)[0], self.layouts.signed(underlying)
            for enumerator_name, value in values:
                self.enumerators[enumerator_name] = Integer(value, size, signed)
        self.enums[key] = Enum(key, underlying, tuple(values), tree.header(node))
        return key

    def _underlying(self, values: list[int], packed: bool) -> Scalar:
        """The integer type that gcc and clang give an enum."""
        wide = "long" if self.model.long == 8 else "long long"
        unsigned = min(values, default=0) >= 0
        small = ["unsigned char" if unsigned else "signed char", "short"] if packed else []
        for name in [*small, "int"]:
            scalar = Scalar(f"unsigned {name}" if unsigned and "char" not in name else name)
            bits = self.layouts.of(scalar)[0] * 8
            low, high = (0, 1 << bits) if unsigned else (-1 << bits - 1, 1 << bits - 1)
            if all(low <= value < high for value in values):
                return scalar
        return Scalar(f"unsigned {wide}" if unsigned else wide)

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
        self._keys[key] = None
        members = tuple(self._members(node, key))
        self.records[key] = Record(
            key,
            kind,
            members,
            attributes.packed,
            attributes.aligned,
            tree.header(node),
            attributes.pack,
        )
        self.layouts.record(key)  # complains here, where the header's line is known
        return key

    def _members(self, record: c_ast.Struct | c_ast.Union, key: str) -> Iterator[Member]:
        # Members of an unnamed member are reached, and so named, like those around it.
        path = re.sub(r"^(struct|union) |(\.<\w+>)+$", "", key)
        for node in record.decls:
            match node:
                case c_ast.StaticAssert():
                    self.check(node)
                case c_ast.Decl():
                    definition = tree.definition(node.type)
                    if (
                        node.name is None
                        and node.bitsize is None
                        and not tree.unnamed_record(definition)
                    ):
                        self.type(node.type, None)  # a definition inside, no member
                        continue
                    name = node.name or ""
                    own = name or f"<{type(definition).__name__.lower()}>"
                    c_type, attributes = self.type(node.type, f"{path}.{own}")
                    attributes |= self.attributes(node)
                    for alignment in node.align or ():
                        attributes |= Attributes(aligned=self.evaluator.value(alignment.alignment))
                    bits = None if node.bitsize is None else self.evaluator.value(node.bitsize)
                    c_type = self.in_mode(c_type, attributes.mode)
                    yield Member(name, c_type, bits, attributes.aligned, attributes.packed)
                case _:
                    raise ValueError(f"a {type(node).__name__} is not a member")


def _pointer(to: Type, pointee: c_ast.Node) -> Pointer:
    """A pointer to a type, with the qualifiers of what it points to."""
    qualifiers = tree.qualifiers(pointee)
    if "_Atomic" in qualifiers:
        raise ValueError("a pointer to atomic memory cannot be said in the facts")
    return Pointer(to, "const" in qualifiers, "volatile" in qualifiers)
