"""The declarations of a translation unit: which are facts, which are left out, which are refused.

What a fact needs and cannot be read is refused; what none needs is left out, with the reason. A
record or an enum is a fact. A typedef that cannot be read is left out, and what depends on it is
refused where it does. The compiler's own headers are read for what others need of them, which no
function is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pycparser import c_ast, c_parser

from vmm_arch_gen.abi.layout import LayoutError, UndefinedType
from vmm_arch_gen.abi.model import DataModel, FunctionPrototype, Omission, Typedef
from vmm_arch_gen.abi.types import Function, Named
from vmm_arch_gen.diagnostics import Problem, refuse
from vmm_arch_gen.extract import tree
from vmm_arch_gen.extract.declarations import Declarations, UnreadableType
from vmm_arch_gen.extract.expressions import NotConstant, UndefinedName
from vmm_arch_gen.extract.missing import MissingName
from vmm_arch_gen.extract.parse import Unparsed

_Missing = UndefinedType | UndefinedName | UnreadableType
_REMEDY = "give the target a shim for what cannot be read, or correct the header"
_WITH_A_BODY = "a function with a body: no part of a binary interface"
_VARIABLE = "a variable: no hypervisor's interface has any"
_INTRINSIC = "a function of the compiler's own headers: no library has it"


class _AlignsUnnamed(ValueError):
    """A typedef aligns the unnamed type that it defines, whose size stays as it is: no record does."""


def read_declarations(nodes: Iterable[c_ast.Node | Unparsed], model: DataModel) -> Declarations:
    """Read what a translation unit declares; InputError has all that is refused."""
    declarations = Declarations(model)
    problems: list[Problem] = []
    for node in nodes:
        if isinstance(node, Unparsed):
            problems += _unparsed(declarations, node)
            continue
        read_before = declarations.mark()
        try:
            _external(declarations, node)
        except (LayoutError, NotConstant, ValueError, c_parser.ParseError) as error:
            declarations.forget_since(read_before)
            problems += _unreadable(declarations, node, error)
        except RecursionError:
            declarations.forget_since(read_before)
            problems += _unreadable(declarations, node, ValueError("is nested too deeply"))
    refuse(_first_uses(problems))
    declarations.omissions += [
        Omission("record", key.replace(" ", ":"), header, "declared, but defined nowhere")
        for key, header in declarations.incomplete.items()
        if key not in declarations.records and key not in declarations.enums
    ]
    return declarations


def _first_uses(problems: Iterable[Problem]) -> Iterator[Problem]:
    """The problems, of those that one name is missing in one header the first."""
    seen = set()
    for problem in problems:
        if isinstance(problem, MissingName):
            use = problem.where.rpartition(":")[0], problem.name
            if use in seen:
                continue
            seen.add(use)
        yield problem


def _external(declarations: Declarations, node: c_ast.Node) -> None:
    header = tree.header(node)
    match node:
        case c_ast.Typedef(name=name):
            c_type, attributes = declarations.type(node.type, name)
            attributes |= declarations.attributes(node)
            if attributes.packed:
                raise ValueError(f"the attribute packed on the typedef {name} has no meaning")
            if c_type == Named(name):  # it names an unnamed type, and that is all it does
                if attributes.aligned is not None:
                    raise _AlignsUnnamed(f"the typedef {name} aligns the unnamed type it defines")
            else:
                c_type = declarations.in_mode(c_type, attributes.mode)
                declarations.typedefs[name] = Typedef(name, c_type, attributes.aligned, header)
        case c_ast.FuncDef():
            declarations.omissions.append(
                Omission("function", node.decl.name, header, _WITH_A_BODY)
            )
        case c_ast.Decl(name=None):
            declarations.type(node.type, None)
        case c_ast.Decl(name=name, type=c_ast.FuncDecl()) if _of_compiler(header):
            declarations.omissions.append(Omission("function", name, header, _INTRINSIC))
        case c_ast.Decl(name=name, type=c_ast.FuncDecl(args=arguments)):
            if arguments is None:  # before C23 that says nothing of them
                raise ValueError("is declared without its parameters")
            c_type, _ = declarations.type(node.type, None)
            declarations.attributes(node)
            assert isinstance(c_type, Function)
            declarations.functions[name] = FunctionPrototype(name, c_type, header)
        case c_ast.Decl(name=name):
            declarations.omissions.append(Omission("variable", name, header, _VARIABLE))
            if not tree.unnamed_record(tree.definition(node.type)):
                declarations.type(node.type, None)  # for what it may define
        case c_ast.StaticAssert():
            declarations.check(node)
        case c_ast.AttributeDeclaration():
            declarations.attributes(node)
        case _:
            raise ValueError(f"a {type(node).__name__} is not expected here")


def _unreadable(declarations: Declarations, node: c_ast.Node, error: Exception) -> list[Problem]:
    """Take note of a declaration that cannot be read; a problem if it is a fact."""
    why = str(error)
    missing = error.name if isinstance(error, _Missing) else None
    where, header = tree.where(node), tree.header(node)
    match node:
        case c_ast.Typedef(name=name) if isinstance(error, _AlignsUnnamed):
            _left_out(declarations, "typedef", name, header, f"{why} ({where})")
        case c_ast.Typedef() | c_ast.Decl() if (defined := tree.definition(node.type)) is not None:
            names = [node.name] if isinstance(node, c_ast.Typedef) else []
            if defined.name:
                names.append(f"{type(defined).__name__.lower()} {defined.name}")
            return _definition(declarations, names, header, where, why, missing)
        case c_ast.Typedef(name=name):
            _left_out(declarations, "typedef", name, header, f"{why} ({where})")
        case c_ast.Decl(name=name, type=c_ast.FuncDecl()):
            _left_out(declarations, "function", name, header, why)
        case c_ast.Decl(name=name) if name:
            pass  # a variable, which is left out already
        case _:
            return [Problem(where, why, _REMEDY)]
    return []


def _unparsed(declarations: Declarations, node: Unparsed) -> list[Problem]:
    why = node.reason
    if node.unknown:
        why = f"{node.unknown} is used as a type, but nothing before declares it"
    match node.kind:
        case "typedef" | "function" | "variable" if node.names:
            for name in node.names:
                reason = f"{why} ({node.where})" if node.kind == "typedef" else why
                _left_out(declarations, node.kind, name, node.header, reason)
            return []
        case "assertion":
            return []  # the compiler evaluates it, too, when it proves the facts
        case "record":
            return _definition(declarations, node.names, node.header, node.where, why, node.unknown)
    return [Problem(node.where, why, _REMEDY)]


def _definition(
    declarations: Declarations,
    names: Iterable[str],
    header: str,
    where: str,
    why: str,
    missing: str | None,
) -> list[Problem]:
    """A record or enum that cannot be read: refused, but for those of the compiler's headers."""
    if not _of_compiler(header):
        said_already = missing in declarations.refused
        declarations.refused.update(name.rpartition(" ")[2] for name in names)
        declarations.unreadable |= dict.fromkeys(names, f"{why} ({where})")
        if said_already:
            return []
        return [
            MissingName(where, why, _REMEDY, missing) if missing else Problem(where, why, _REMEDY)
        ]
    for name in names:
        _left_out(declarations, "record", name.replace(" ", ":"), header, why)
        declarations.unreadable[name] = f"{why} ({where})"
    return []


def _of_compiler(header: str) -> bool:
    return header.startswith("cc:")


def _left_out(declarations: Declarations, kind: str, name: str, header: str, why: str) -> None:
    declarations.omissions.append(Omission(kind, name, header, why))
    if kind == "typedef":
        declarations.unreadable[name] = why
