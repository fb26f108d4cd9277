"""Which macro each line of a rendered module came from, so that errors name the template.

While a module is rendered, comments mark where the text of a macro begins and ends. They are taken
out again before anything else looks at the module.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from vmm_arch_gen.arch.macros import Macro

_MARK = re.compile(r"[ ]*#@(?:begin (\w+)|end)")


@dataclass(frozen=True)
class Rendered:
    """A module's text, and the macro that each of its lines came from."""

    text: str
    macros: Sequence[Macro | None]
    lines: Sequence[str]

    def line(self, number: int) -> str:
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""

    def macro(self, number: int) -> Macro | None:
        """The macro that a line, counted from 1, came from; None if it is of no macro."""
        return self.macros[number - 1] if 0 < number <= len(self.macros) else None


def marked(macro: str, text: str) -> str:
    """A macro's text with marks around it; nothing stays nothing."""
    return f"#@begin {macro}\n{text}\n#@end" if text else text


def unmarked(text: str, macros: Mapping[str, Macro], named: Collection[str] = ()) -> Rendered:
    """Take the marks out of a rendered module, and say in a comment where ``named`` macros begin."""
    lines: list[str] = []
    origins: list[Macro | None] = []
    inside: list[Macro] = []
    for line in text.split("\n"):
        mark = _MARK.fullmatch(line)
        if mark is None:
            lines.append(line)
            origins.append(inside[-1] if inside else None)
        elif mark[1]:
            macro = macros[mark[1]]
            inside.append(macro)
            if macro.name in named:
                body = next((line for line in macro.source if line.strip()), "")
                margin = " " * (len(body) - len(body.lstrip()))
                lines.append(f"{margin}# From templates/{macro.file}, {macro.name}")
                origins.append(macro)
        else:
            inside.pop()
    return Rendered("\n".join(lines), origins, lines)
