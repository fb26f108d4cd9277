"""Preprocessed C to pycparser's tree, declaration by declaration where some cannot be parsed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pycparser import c_ast, c_parser

_LITERAL = r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\''
_MARKER = re.compile(r'^# (?P<line>\d+) "(?P<file>.*)".*$', re.M)
_TOKEN = re.compile(rf"{_LITERAL}|{_MARKER.pattern}|[{{}};]", re.M)
_ATTRIBUTES = re.compile(rf"\[\[(?:{_LITERAL}|(?!\]\]).)*\]\]", re.S)
_DIRECTIVE = re.compile(r"^#.*$", re.M)
_WORD = re.compile(r"[A-Za-z_$][\w$]*")
_TYPE_NAME = re.compile(
    r"(?:^|[;{(,])\s*(?:(?:const|volatile|extern|static|typedef|inline)\s+)*"
    r"(?P<name>[A-Za-z_]\w*)\b(?=\s+\**\s*[A-Za-z_]|\s*\*)"
)

BUILT_IN = (
    *("__builtin_va_list", "__builtin_ms_va_list", "_Float16", "_Float32", "_Float64", "_Float128"),
    *("_Float32x", "_Float64x", "__bf16", "__float128", "__fp16", "__ibm128"),
)
"""Types that compilers have and C has not."""

_INT128 = ("__int128_t", "__uint128_t")  # which the facts can say

_NO_TYPES = {
    *("alignas", "auto", "case", "const", "constexpr", "do", "else", "enum", "extern", "for", "goto", "if"),
    *("inline", "register", "restrict", "return", "sizeof", "static", "struct", "switch", "typedef", "union"),
    *("volatile", "while", "void", "char", "short", "int", "long", "float", "double", "signed", "unsigned"),
    *("bool", "typeof", "typeof_unqual", "_Alignas", "_Atomic", "_BitInt", "_Bool", "_Complex", "_Noreturn"),
    *("_Static_assert", "_Thread_local", "static_assert", "thread_local", "__int128"),
}  # fmt: skip


Kind = Literal["record", "enum", "typedef", "function", "variable", "assertion"]


@dataclass(frozen=True)
class Unparsed:
    """A declaration that pycparser cannot parse."""

    kind: Kind
    names: tuple[str, ...]
    """What it declares; no names if that is not plain."""
    header: str
    where: str
    reason: str
    unknown: str | None
    """What it may use as a type although nothing before declares it."""


def parse(text: str) -> list[c_ast.Node | Unparsed]:
    """Parse preprocessed and respelled C: the declarations, in their order."""
    prelude = "".join(f"typedef int {name}; " for name in (*BUILT_IN, *_INT128))
    parser = c_parser.CParser(dialect="c23")
    try:
        tree = parser.parse(f'{prelude}\n# 1 ""\n{text}')
    except (c_parser.ParseError, RecursionError):
        return list(_one_by_one(text))
    return list(tree.ext[len(BUILT_IN) + len(_INT128) :])


@dataclass(frozen=True)
class _Piece:
    """The text of a declaration."""

    text: str
    file: str
    line: int
    """Of the text's beginning."""


def _pieces(text: str) -> Iterator[_Piece]:
    """Cut C at the ends of its declarations."""
    depth = begin = 0
    file, line, counted = "", 1, 0
    start = (file, line)
    for match in _TOKEN.finditer(text):
        end = match.end()
        match match[0]:
            case "{":
                depth += 1
            case "}":
                depth -= 1
        cut = depth <= 0 and (match[0] == ";" or (match[0] == "}" and _is_body(text[begin:end])))
        if match["line"]:
            file, line, counted = match["file"], int(match["line"]) - 1, match.start()
        if cut:
            yield _Piece(text[begin:end], *start)
            line, counted = line + text.count("\n", counted, end), end
            begin, start, depth = end, (file, line), 0
    yield _Piece(text[begin:], *start)


def _is_body(text: str) -> bool:
    """Whether a declaration's text ends in a function's body, which was emptied before."""
    head, brace, inside = _plain(text).rpartition("{")
    return bool(brace) and inside.strip() == "}" and head.rstrip()[-1:] in (")", "")


def _plain(text: str) -> str:
    """A declaration's text without attributes and directives."""
    return _DIRECTIVE.sub("", _ATTRIBUTES.sub("", text))


def _one_by_one(text: str) -> Iterator[c_ast.Node | Unparsed]:
    parser = c_parser.CParser(dialect="c23")
    types = {*BUILT_IN, *_INT128}
    for piece in _pieces(text):
        plain = _plain(piece.text)
        if not plain.strip(" \t\n;{}"):
            continue
        used = sorted(types & set(_WORD.findall(plain)))
        known = "".join(f"typedef int {name}; " for name in used)
        try:
            tree = parser.parse(f'{known}\n# {piece.line} "{piece.file}"\n{piece.text}')
        except (c_parser.ParseError, RecursionError) as error:
            unparsed = _unparsed(piece, plain, types, error)
            types |= set(unparsed.names) if unparsed.kind in ("record", "typedef") else set()
            yield unparsed
        else:
            nodes = tree.ext[len(used) :]
            types |= {node.name for node in nodes if isinstance(node, c_ast.Typedef)}
            yield from nodes


def _unparsed(piece: _Piece, plain: str, types: set[str], error: Exception) -> Unparsed:
    begin = re.search(r"^(?!#).*\S", piece.text, re.M)
    file, where = _place(piece, begin.start() if begin else 0)
    reason = "is nested too deeply to be read"
    if isinstance(error, c_parser.ParseError):
        place, _, what = str(error).partition(": ")
        if exact := re.match(r"(.*:\d+)(?::\d+)?$", place):
            where = exact[1]
        reason = f"pycparser cannot read this: {what}"
    names = (match["name"] for match in _TYPE_NAME.finditer(plain))
    unknown = next((name for name in names if name not in types | _NO_TYPES), None)
    if unknown and (use := re.search(rf"\b{unknown}\b", piece.text)):
        _, where = _place(piece, use.start())
    kind, declared = _declared(plain.strip())
    return Unparsed(kind, declared, file, where, reason, unknown)


def _place(piece: _Piece, at: int) -> tuple[str, str]:
    """The header of a position in a piece, and header and line as errors give them."""
    file, line, begin = piece.file, piece.line, 0
    for marker in _MARKER.finditer(piece.text, 0, at):
        file, line, begin = marker["file"], int(marker["line"]) - 1, marker.start()
    return file, f"{file}:{line + piece.text.count(chr(10), begin, at)}"


def _declared(text: str) -> tuple[Kind, tuple[str, ...]]:
    """What sort of declaration a text is and which names it declares, as far as that is plain."""
    if re.match(r"(?:_S|s)tatic_assert\b", text):
        return "assertion", ()
    outside, tags, depth = "", [], 0
    for match in re.finditer(r"\b(struct|union|enum)\s+(\w+)\s*(?::[^{;]*)?\{|[{}]|[^{}]", text):
        if match[2] and depth == 0:
            tags.append(f"{match[1]} {match[2]}")
        depth += match[0].endswith("{") - (match[0] == "}")
        outside += match[0] if depth == 0 and match[0] not in "{}" else ""
    body = "{" in text
    declarators = re.sub(r"\[[^\]]*\]", "", outside.rstrip("; \n"))
    if text.startswith("typedef"):
        names = re.findall(r"\(\s*\*+\s*(\w+)\s*\)|(\w+)\s*(?=,|$)", declarators)
        found = tuple(name for pair in names for name in pair if name)
        return ("record" if body else "typedef"), (*tags, *found)
    if body and (tags or re.match(r"(struct|union|enum)\b", text)) and not text.endswith("}"):
        return ("enum" if text.startswith("enum") else "record"), tuple(tags)
    if called := re.search(r"(\w+)\s*\(", outside):
        return "function", (called[1],)
    return "variable", tuple(re.findall(r"(\w+)\s*(?=,|$)", declarators)[:1])
