"""Macros that are texts: C's string literals as the bytes that a compiler makes of them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from vmm_arch_gen.extract.expressions import NotConstant
from vmm_arch_gen.extract.preprocess import Macro

_LITERAL = re.compile(r'\s*(\w*)"((?:[^"\\]|\\.)*)"\s*')
_ESCAPE = re.compile(
    r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]+)|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL
)
_SIMPLE = dict(zip("abefnrtv\\'\"?", b"\a\b\x1b\f\n\r\t\v\\'\"?", strict=True))
_WORD = re.compile(r"[A-Za-z_]\w*")
_UNSTEADY = {
    "__FILE__",
    "__BASE_FILE__",
    "__LINE__",
    "__DATE__",
    "__TIME__",
    "__TIMESTAMP__",
    "__COUNTER__",
    # What a compiler has to say of itself.
    "__has_attribute",
    "__has_builtin",
    "__has_c_attribute",
    "__has_constexpr_builtin",
    "__has_cpp_attribute",
    "__has_declspec_attribute",
    "__has_embed",
    "__has_extension",
    "__has_feature",
    "__has_include",
    "__has_include_next",
    "__has_warning",
    "__is_identifier",
}
UNSTEADY = "depends on where, when or by which compiler it is expanded"
"""Why such a macro is left out."""


def string_value(text: str) -> bytes | None:
    """The bytes of one string literal or several that C joins, without the zero at their end.

    None if the text is something else; NotConstant if the literals are not of chars.
    """
    while text.startswith("(") and text.endswith(")"):
        text = text[1:-1].strip()
    value, at = b"", 0
    while match := _LITERAL.match(text, at):
        prefix, body = match.groups()
        if prefix not in ("", "u8"):
            raise NotConstant(f"is a string of wide characters: {text}")
        value += _bytes(body)
        at = match.end()
    return value if at == len(text) > 0 else None


def _bytes(body: str) -> bytes:
    parts, at = [], 0
    for match in _ESCAPE.finditer(body):
        parts += [body[at : match.start()].encode(), _escaped(match)]
        at = match.end()
    return b"".join([*parts, body[at:].encode()])


def _escaped(match: re.Match[str]) -> bytes:
    octal, hexadecimal, short, long, simple = match.groups()
    if octal:
        return bytes([int(octal, 8) & 0xFF])
    if hexadecimal:
        if int(hexadecimal, 16) > 0xFF:  # a byte of the header's that is no UTF-8, and what follows
            return bytes([int(hexadecimal[:2], 16)]) + hexadecimal[2:].encode()
        return bytes([int(hexadecimal, 16)])
    if short or long:
        return chr(int(short or long, 16)).encode()
    if simple not in _SIMPLE:
        raise NotConstant(f"has an unknown escape sequence: {match[0]}")
    return bytes([_SIMPLE[simple]])


def unsteady(macros: Mapping[str, Macro]) -> set[str]:
    """The macros whose value depends on where, when or by which compiler they are expanded."""
    words = {name: set(_WORD.findall(macro.body)) for name, macro in macros.items()}
    found, new = set[str](), _UNSTEADY
    while new:
        new = {name for name in words.keys() - found if words[name] & new}
        found |= new
    return found
