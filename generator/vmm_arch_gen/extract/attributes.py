"""Attributes in headers: which ones change a layout, which ones do not, and which are refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pycparser import c_ast

# Attributes that change neither layout nor calling convention on any CPU that is a target here:
# their Windows conventions (stdcall, cdecl …) are all one.
_HARMLESS = {
    "cdecl",
    "const",
    "counted_by",
    "deprecated",
    "designated_init",
    "dllexport",
    "dllimport",
    "fallthrough",
    "format",
    "may_alias",
    "nodiscard",
    "nonnull",
    "nonstring",
    "noreturn",
    "nothrow",
    "pure",
    "returns_nonnull",
    "selectany",
    "stdcall",
    "unused",
    "used",
    "uuid",
    "visibility",
    "warn_unused_result",
}


@dataclass(frozen=True)
class Attributes:
    """What a declaration's attributes say about its layout."""

    packed: bool = False
    aligned: int | None = None
    """In bytes."""

    def __or__(self, other: Attributes) -> Attributes:
        aligned = max(self.aligned or 0, other.aligned or 0) or None
        return Attributes(self.packed or other.packed, aligned)


def read_attributes(
    specifiers: Iterable[c_ast.AttributeSpecifier] | None, evaluate: Callable[[str], int]
) -> Attributes:
    """Read attribute specifiers; ValueError names an attribute that is not known.

    ``evaluate`` gives the value of a C expression.
    """
    result = Attributes()
    for specifier in specifiers or ():
        for attribute in specifier.attributes:
            name = re.sub(r"^__(\w+)__$", r"\1", attribute.name)
            match name:
                case "packed" if attribute.arguments is None:
                    result |= Attributes(packed=True)
                case "aligned" if attribute.arguments:
                    result |= Attributes(aligned=evaluate(attribute.arguments))
                case _ if name not in _HARMLESS:
                    arguments = f"({attribute.arguments})" if attribute.arguments else ""
                    raise ValueError(
                        f"the attribute {name}{arguments} is not known; it may change a layout"
                    )
    return result
