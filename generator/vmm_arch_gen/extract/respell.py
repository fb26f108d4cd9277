"""Compilers' own C, respelled as the standard C23 that pycparser reads.

Attributes of GNU's and of Microsoft's form become C23's and move to where C23 has them, so that
the parser finds out what each one belongs to; assembler labels and the packing that a pragma asks
for become attributes too. Nothing that may matter is dropped here: who reads the tree decides.
Bodies of functions, which are no part of an ABI, are emptied. Every line keeps its number.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

from vmm_arch_gen.diagnostics import InputError, Problem, refuse
from vmm_arch_gen.extract.packing import Packing

_LITERAL = r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\''
_TOKEN = re.compile(
    rf"(?P<literal>{_LITERAL})|(?P<line>^[ \t]*#[^\n]*)|(?P<brace>[{{}}])"
    r"|\b(?P<word>__attribute(?:__)?|__declspec|_declspec|asm|__asm(?:__)?|__pragma)\b",
    re.M,
)
_ATTRIBUTE = re.compile(r"\s*\b(?P<word>__attribute(?:__)?|_?_declspec)\s*\(")
_ASSEMBLER = re.compile(r"\s*\b(?:__asm__|__asm|asm)\b(?:\s*(?:volatile|__volatile__))?\s*\(")
_PRAGMA_WORD = re.compile(r"__pragma\s*\(")
_BODY = re.compile(rf"{_LITERAL}|^[ \t]*#[^\n]*|[{{}}]", re.M)
_PARENTHESES = re.compile(rf"{_LITERAL}|[()]")
_MARKER = re.compile(r'^# (\d+) "(.*)"', re.M)
_PRAGMA = re.compile(r"[ \t]*#[ \t]*pragma\b[ \t]*(.*)")
_DECLSPEC = re.compile(r"(\w+)\s*(\((?:[^()]|\([^()]*\))*\))?")

_TYPES = [
    "char",
    "short",
    "int",
    "long",
    "signed",
    "unsigned",
    "float",
    "double",
    "void",
    "_Bool",
    "bool",
]
_STORAGE = [
    "static",
    "extern",
    "inline",
    "typedef",
    "register",
    "const",
    "volatile",
    "_Noreturn",
    "_Thread_local",
]
_SPECIFIER = re.compile(rf"\b(?:{'|'.join(_STORAGE + _TYPES)})$")
_MORE_OF_A_TYPE = re.compile(rf"\s*\b(?:{'|'.join(_STORAGE + _TYPES)})\b")
_DECLARATOR = re.compile(r"\s*(?:(?:\*\s*)+|\w+(?=\s*\)))")
_COLON = re.compile(r"(?<!:):(?!:)")
_TAG = re.compile(r"\b(?:struct|union)$")

_SAL = re.compile(
    r"\b_(?:Acquires|Always|Analysis|At|COM_Outptr|Check|Const|Deref|Enum|Field|Frees_ptr|Function_class|Group"
    r"|Guarded_by|IRQL|In|Inout|Interlocked|Kernel|Literal|Maybe|Maybenull|Must_inspect|Notnull"
    r"|Null_terminated|NullNull_terminated|On_failure|Out|Outptr|Points_to|Post|Pre|Prepost|Printf|Readable"
    r"|Releases|Requires|Reserved|Result|Ret|Scanf|Struct_size|Success|Translates|Use_decl|Valid|When|Writable)"
    r"(?:_\w+)?_\b"
)
"""Annotations of Microsoft's headers, which are macros of a header of its compiler's."""
_MICROSOFT_SUFFIX = re.compile(r"[0-9a-fA-F][uU]?[iI](?:8|16|32|64)\b")
_MICROSOFT_NUMBER = re.compile(rf"{_LITERAL}|\b(0[xX][0-9a-fA-F]+|\d+)([uU]?)[iI](8|16|32|64)\b")


def respell_numbers(text: str) -> str:
    """Give Microsoft's integer constants, as ``1ui32``, the suffixes that C has."""

    def suffix(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        unsigned = match[2] and match[3] in ("32", "64")  # the smaller ones promote to int
        return match[1] + "U" * bool(unsigned) + "LL" * (match[3] == "64")

    # Most headers have none, and to look for one is quicker than to go through all literals.
    return _MICROSOFT_NUMBER.sub(suffix, text) if _MICROSOFT_SUFFIX.search(text) else text


def _without_annotations(text: str) -> str:
    """Take out the annotations, with their arguments, that say nothing about the ABI."""
    done, at = [], 0
    while match := _SAL.search(text, at):
        end, depth = match.end(), 0
        following = re.compile(r"\s*\(").match(text, end)
        for parenthesis in _PARENTHESES.finditer(text, end) if following else ():
            depth += (parenthesis[0] == "(") - (parenthesis[0] == ")")
            if depth == 0 and parenthesis[0] == ")":
                end = parenthesis.end()
                break
        done += [text[at : match.start()], "\n" * text.count("\n", match.start(), end)]
        at = end
    return "".join([*done, text[at:]])


def respell_builtins(text: str) -> str:
    """Call what compilers have built in as C calls it."""
    return text.replace("__builtin_offsetof", "offsetof")


def respell(text: str) -> str:
    """Respell preprocessed C; InputError names what is cut short or packs in an unknown way."""
    text = respell_builtins(respell_numbers(_without_annotations(text)))
    respeller = _Respeller(text)
    respeller.run()
    return respeller.result()


class _Respeller:
    """Goes through the text once and collects what to replace, by position."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._edits: list[tuple[int, int, str]] = []
        self._transparent: dict[int, int] = {}
        """Where attributes and directives end, and where they began: they part no two tokens."""
        self._packing = Packing()
        self._problems: list[Problem] = []
        self._depth = 0
        self._markers: list[tuple[int, int, str]] | None = None

    def run(self) -> None:
        text, at = self._text, 0
        while match := _TOKEN.search(text, at):
            at = match.end()
            match match.lastgroup:
                case "brace":
                    at = self._brace(match.start())
                case "line":
                    self._directive(match.start(), match.end(), match[0])
                case "word":
                    at = self._word(match)
        refuse(self._problems)

    def result(self) -> str:
        done, at = [], 0
        for start, end, new in sorted(self._edits, key=lambda edit: edit[:2]):
            done += [self._text[at:start], new]
            at = end
        return "".join([*done, self._text[at:]])

    # -- structure ---------------------------------------------------------------------------

    def _brace(self, at: int) -> int:
        """Take a brace at a position; the position to go on from."""
        if self._text[at] == "}":
            self._depth -= 1
            return at + 1
        if self._depth == 0 and self._begins_body(at):
            end = self._end_of_body(at)
            inside = self._text[at + 1 : end - 1]
            # Line markers inside it say where the lines after it are.
            kept = (line if line.startswith("# ") else "" for line in inside.split("\n"))
            self._edits.append((at + 1, end - 1, "\n".join(kept)))
            return end
        self._depth += 1
        if self._packing.value is not None:
            self._pack(at)
        return at + 1

    def _begins_body(self, at: int) -> bool:
        """Whether a brace outside all others begins a function's body."""
        before = self._before(at)
        if before == 0 or self._text[before - 1] in ";}":  # as of old: int f(a) int a; {
            return before > 0
        begin = max(self._text.rfind(character, 0, before) for character in ";}")
        return self._text[before - 1] == ")" and "=" not in self._text[begin + 1 : before]

    def _end_of_body(self, at: int) -> int:
        depth = 0
        for match in _BODY.finditer(self._text, at):
            depth += (match[0] == "{") - (match[0] == "}")
            if depth == 0 and match[0] == "}":
                return match.end()
        raise self._unclosed(at, "a function's brace is not closed")

    def _before(self, at: int) -> int:
        """Where the last token before a position ends, attributes and directives apart."""
        text = self._text
        while True:
            while at and text[at - 1].isspace():
                at -= 1
            if at not in self._transparent:
                return at
            at = self._transparent[at]

    def _pack(self, at: int) -> None:
        """Tell the struct or union whose members a brace begins how it is packed."""
        before = self._before(at)
        while before and (self._text[before - 1].isalnum() or self._text[before - 1] in "_$"):
            before -= 1
        for place in (at, before):
            place = self._before(place)
            if _TAG.search(self._text, max(0, place - 7), place):
                attribute = f" [[vmm_arch::pack({self._packing.value})]]"
                self._edits.append((place, place, attribute))
                return

    # -- directives --------------------------------------------------------------------------

    def _directive(self, start: int, end: int, line: str) -> None:
        self._transparent[end] = start
        if pragma := _PRAGMA.fullmatch(line):
            self._pragma(start, pragma[1].strip())
            self._edits.append((start, end, ""))

    def _pragma(self, at: int, text: str) -> None:
        try:
            if self._packing.take(text) and self._depth:
                raise ValueError(f"#pragma {text} is inside braces")
        except ValueError as error:
            remedy = "give the target a shim for what cannot be read, or correct the header"
            self._problems.append(Problem(self._where(at), str(error), remedy))

    # -- attributes --------------------------------------------------------------------------

    def _word(self, match: re.Match[str]) -> int:
        text, start = self._text, match.start()
        if _PRAGMA_WORD.match(text, start):
            opening = text.index("(", start)
            end = self._closing(opening)
            self._pragma(start, text[opening + 1 : end - 1].strip())
            return self._replaced(start, end)
        if _ASSEMBLER.match(text, start):
            before = self._before(start)
            if self._depth == 0 and (before == 0 or text[before - 1] in ";}"):
                semicolon = text.find(";", self._closing(text.index("(", start)))
                return self._replaced(start, semicolon + 1 if semicolon >= 0 else len(text))
        attributes, end = self._attributes(start)
        if end == start:  # the word alone, as somebody's name
            return match.end()
        self._replaced(start, end)
        if attributes:
            place = self._place(start, end)
            self._edits.append((place, place, f" [[{', '.join(attributes)}]] "))
        return end

    def _attributes(self, at: int) -> tuple[list[str], int]:
        """The attributes of a run of them, as C23 spells them, and where the run ends."""
        found: list[str] = []
        while True:
            if match := _ATTRIBUTE.match(self._text, at):
                end = self._closing(match.end() - 1)
                inside = self._text[match.end() : end - 1].strip()
                if match["word"].startswith("__attribute"):
                    if not (inside.startswith("(") and inside.endswith(")")):
                        raise self._unclosed(at, "an attribute's parentheses are not closed")
                    parts = (part.strip() for part in split(inside[1:-1]))
                    found += [f"gnu::{part}" for part in parts if part]
                else:
                    found += [f"msvc::{part[0]}" for part in _DECLSPEC.finditer(inside)]
            elif match := _ASSEMBLER.match(self._text, at):
                end = self._closing(match.end() - 1)
                found.append(f"gnu::asm({self._text[match.end() : end - 1]})")
            else:
                return found, at
            at = end

    def _place(self, start: int, end: int) -> int:
        """Where C23 has the attributes that stand between two positions."""
        text = self._text
        begin = max(text.rfind(character, 0, start) for character in ";{},") + 1
        colon = _COLON.search(text, begin, start) if self._depth else None
        if colon and not re.search(r"[\[?]", text[begin : colon.start()]):
            return colon.start()  # after the width of a bit-field
        before = self._before(start)
        if text[before - 1 : before] == "(":
            declarator = _DECLARATOR.match(text, end)
            return declarator.end() if declarator else start  # (ATTRIBUTE *name)
        words, place = [], start
        while word := _SPECIFIER.search(text, max(0, before - 14), before):
            words.append(word[0])
            place = word.start()
            before = self._before(place)
        if words and (words[0] not in _TYPES or _MORE_OF_A_TYPE.match(text, end)):
            return place  # static ATTRIBUTE int name
        return start

    def _replaced(self, start: int, end: int) -> int:
        """Remove the text between two positions, except its newlines."""
        self._edits.append((start, end, "\n" * self._text.count("\n", start, end)))
        self._transparent[end] = start
        return end

    # -- places ------------------------------------------------------------------------------

    def _closing(self, at: int) -> int:
        """The position after the parenthesis that closes the one at a position."""
        depth = 0
        for match in _PARENTHESES.finditer(self._text, at):
            depth += (match[0] == "(") - (match[0] == ")")
            if depth == 0 and match[0] == ")":
                return match.end()
        raise self._unclosed(at, "an attribute's parentheses are not closed")

    def _unclosed(self, at: int, what: str) -> InputError:
        return InputError(*self._problems, Problem(self._where(at), what, "close it in the header"))

    def _where(self, at: int) -> str:
        """The header and line of a position."""
        if self._markers is None:
            markers = _MARKER.finditer(self._text)
            self._markers = [(m.start(), int(m[1]), m[2]) for m in markers]
        index = bisect_right(self._markers, (at,)) - 1
        if index < 0:
            return f"line {self._text.count(chr(10), 0, at) + 1} of the preprocessed headers"
        start, line, header = self._markers[index]
        return f"{header}:{line + self._text.count(chr(10), start, at) - 1}"


def split(text: str) -> list[str]:
    """Split C text at the commas outside its parentheses."""
    return list(_split(text))


def _split(text: str) -> Iterator[str]:
    depth, begin = 0, 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            yield text[begin:at]
            begin = at + 1
    yield text[begin:]
