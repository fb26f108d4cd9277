"""Attributes in headers: which ones change a layout, which ones do not, and which are refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pycparser import c_ast

# Attributes that change neither layout nor calling convention on any CPU that is a target here:
# their Windows conventions (stdcall, cdecl …) are all one.
_HARMLESS = {
    "access", "alias", "alloc_align", "alloc_size", "allocator", "always_inline", "artificial",
    "assume_aligned", "availability", "btf_decl_tag", "btf_type_tag", "cdecl", "cold", "const", "constructor",
    "counted_by", "counted_by_or_null", "deprecated", "designated_init", "destructor", "diagnose_if",
    "dllexport", "dllimport", "error", "enum_extensibility", "externally_visible", "fallthrough", "fd_arg",
    "fd_arg_read", "fd_arg_write", "flag_enum", "flatten", "format", "format_arg", "gnu_inline", "guard", "hot",
    "ifunc", "internal_linkage", "leaf", "malloc", "may_alias", "maybe_unused", "naked", "no_icf",
    "no_instrument_function", "no_profile_instrument_function", "no_reorder", "no_sanitize",
    "no_sanitize_address", "no_sanitize_undefined", "no_stack_protector", "noalias", "nocf_check", "noclone",
    "noderef", "nodiscard", "noinline", "noipa", "nonnull", "nonstring", "noplt", "noreturn", "nothrow",
    "null_terminated_string_arg", "optimize", "overloadable", "pure", "reproducible", "restrict", "retain",
    "returns_nonnull", "returns_twice", "safebuffers", "section", "selectany", "sentinel", "sized_by",
    "stdcall", "sym_visibility", "symver", "target", "target_clones", "tls_model", "transparent_union",
    "type_visibility", "unavailable", "unsequenced", "unused", "used", "uuid", "visibility",
    "warn_unused_result", "warning", "weak", "weak_import", "weakref", "zero_call_used_regs",
}  # fmt: skip
"""``transparent_union`` is harmless since a union of pointers is passed as a pointer is."""


@dataclass(frozen=True)
class Attributes:
    """What a declaration's attributes say about its layout."""

    packed: bool = False
    aligned: int | None = None
    """In bytes."""
    pack: int | None = None
    """What ``#pragma pack`` limits the alignment of a record's members to, in bytes."""
    mode: str | None = None
    """The machine mode that an integer type is given, as GNU calls it: ``DI``."""

    def __or__(self, other: Attributes) -> Attributes:
        aligned = max(self.aligned or 0, other.aligned or 0) or None
        return Attributes(
            self.packed or other.packed,
            aligned,
            self.pack or other.pack,
            self.mode or other.mode,
        )


def read_attributes(
    specifiers: Iterable[c_ast.AttributeSpecifier] | None,
    evaluate: Callable[[str], int],
    largest: int,
) -> Attributes:
    """Read attribute specifiers; ValueError names an attribute that is not known.

    ``evaluate`` gives the value of a C expression. ``largest`` is the alignment that is meant
    where an attribute gives none: what the CPU needs for any type, in bytes.
    """
    result = Attributes()
    for specifier in specifiers or ():
        for attribute in specifier.attributes:
            name, arguments = _plain(attribute.name), attribute.arguments
            match name:
                case "packed" if arguments is None:
                    result |= Attributes(packed=True)
                case "aligned" | "align":
                    result |= Attributes(aligned=evaluate(arguments) if arguments else largest)
                case "pack" if attribute.namespace == "vmm_arch":
                    result |= Attributes(pack=int(arguments))
                case "mode" if arguments:
                    result |= Attributes(mode=_plain(arguments.strip()))
                case "asm":
                    raise ValueError(f"the linker knows it by another name: {arguments}")
                case _ if name not in _HARMLESS:
                    given = f"({arguments})" if arguments else ""
                    raise ValueError(
                        f"the attribute {name}{given} is not known; it may change a layout"
                    )
    return result


def _plain(name: str) -> str:
    """The name of an attribute, which may stand between underscores."""
    return re.sub(r"^__(\w+)__$", r"\1", name)
