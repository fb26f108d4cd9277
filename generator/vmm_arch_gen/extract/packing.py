"""``#pragma pack`` and the other pragmas, as every compiler of C understands them."""

from __future__ import annotations

import re

_HARMLESS = {
    "", "GCC", "STDC", "clang", "comment", "deprecated", "endregion", "function", "ident", "include_alias",
    "inline_depth", "intrinsic", "mark", "message", "once", "optimize", "poison", "pop_macro", "push_macro",
    "redefine_extname", "region", "section", "setlocale", "system_header", "unused", "warning", "weak",
}  # fmt: skip
"""What pragmas that change no layout begin with."""

_SIZES = (1, 2, 4, 8, 16)


class Packing:
    """What the pragmas read so far limit the alignment of members to."""

    def __init__(self) -> None:
        self.value: int | None = None
        """In bytes; None where nothing limits it."""
        self._pushed: list[tuple[str | None, int | None]] = []

    def take(self, pragma: str) -> bool:
        """Take the text of a pragma; whether it is about packing. ValueError if it is not known."""
        words = re.findall(r"\w+", pragma) or [""]
        if words[0] == "pack":
            self._pack(pragma)
            return True
        if words[0] not in _HARMLESS or words[:2] == ["clang", "attribute"]:
            raise ValueError(f"#pragma {pragma} is not known; it may change a layout")
        return False

    def _pack(self, pragma: str) -> None:
        """``pack(n)``, ``pack()``, ``pack(push[, name][, n])``, ``pack(pop[, name][, n])``."""
        match = re.fullmatch(r"pack\s*\(([^()]*)\)[\s;]*", pragma)
        if match is None:
            raise ValueError(f"#pragma {pragma} is not understood")
        words = [word.strip() for word in match[1].split(",")] if match[1].strip() else []
        action = words.pop(0) if words[:1] in (["push"], ["pop"], ["show"]) else ""
        name = words.pop(0) if action and words and not words[0].isdigit() else None
        value = self._size(pragma, words.pop(0)) if words else None
        if words or (name is not None and not name.isidentifier()):
            raise ValueError(f"#pragma {pragma} is not understood")
        match action:
            case "push":
                self._pushed.append((name, self.value))
            case "pop":
                self._pop(name)
            case "show":
                return
            case _:
                self.value = value
                return
        if value is not None:
            self.value = value

    def _size(self, pragma: str, text: str) -> int | None:
        if not text.isdigit() or int(text) not in (0, *_SIZES):
            raise ValueError(f"#pragma {pragma}: {text} is none of {', '.join(map(str, _SIZES))}")
        return int(text) or None

    def _pop(self, name: str | None) -> None:
        """Go back to what was pushed last, or last with a name; compilers ignore what was not."""
        for at in reversed(range(len(self._pushed))):
            pushed, value = self._pushed[at]
            if name in (None, pushed):
                self.value = value
                del self._pushed[at:]
                return
