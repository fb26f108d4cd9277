"""C's names in Python."""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vmm_arch_gen.abi.model import Abi, Member, VerifiedAbi
from vmm_arch_gen.abi.types import Named

_OURS = {"PROTOTYPES", "annotations", "bool", "bytes", "float", "int"}
"""What a generated module needs for itself."""

# Fixed, so that the output does not depend on the Python that runs the generator.
_PYTHONS = (
    "annotations class ctypes_from_outparam delattr dict dir doc eq firstlineno format ge"
    " getattribute getstate gt hash init init_subclass le lt module ne new qualname reduce"
    " reduce_ex repr setattr setstate sizeof slots static_attributes str subclasshook weakref"
)
_OF_EVERY_RECORD = {
    *("_fields_", "_anonymous_", "_pack_", "_layout_", "_align_", "_swappedbytes_"),
    *("_b_base_", "_b_needsfree_", "_objects", "_as_parameter_"),
    *("_aligned_", "_bits_", "_names_", "_order_", "_pending_", "_views_"),
    *(f"__{name}__" for name in _PYTHONS.split(" ")),
}
"""Attributes that a record has whatever its members are."""


def python_name(key: str) -> str:
    """The Python name of a C name, record or enum, as long as nothing else has it.

    C names stay as they are, but what Python cannot call anything by has an underscore at its end.
    The type of ``kvm_run.io`` is ``kvm_run_io``, that of the first unnamed union in ``kvm_run`` is
    ``kvm_run_union``.
    """
    name = key.rpartition(" ")[2].replace(".", "_").translate({ord("<"): "", ord(">"): ""})
    return f"{name}_" if keyword.iskeyword(name) or name in _OURS else name


def member_name(member: Member) -> str:
    """The Python name of a record's member; empty for an unnamed bit-field."""
    if member.name or member.bits is not None:
        unusable = keyword.iskeyword(member.name) or member.name in _OF_EVERY_RECORD
        return f"{member.name}_" if unusable else member.name
    assert isinstance(member.type, Named)  # only a record can be a member without a name
    return f"_{python_name(member.type.name.rpartition('.')[2])}"


@dataclass(frozen=True)
class TypeNames:
    """The Python names of a target's types by their keys.

    C has names of several kinds that do not hide each other, and types without a name; in Python
    all are names of one module. Of two that would be the same the later has an underscore at its
    end: values come first, then typedefs, records and enums with a name, records without one.
    """

    records: Mapping[str, str]
    enums: Mapping[str, str]
    """Of those with a name."""
    typedefs: Mapping[str, str]
    """Of those that are more than another name for a record or enum that is called the same."""


def type_names(abi: Abi) -> TypeNames:
    """How the types of a target are called in its raw ABI module."""
    taken = {name for name, _ in _values(abi)}

    def free(key: str) -> str:
        name = python_name(key)
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    defined = {*abi.records, *(key for key in abi.enums if "<" not in key)}
    typedefs = {
        name: free(name)
        for name, typedef in sorted(abi.typedefs.items())
        if not (
            isinstance(typedef.type, Named)
            and typedef.type.name in defined
            and typedef.type.name.rpartition(" ")[2] == name
        )
    }
    named = sorted(
        (key for key in defined if "." not in key), key=lambda key: (python_name(key), key)
    )
    unnamed = sorted(defined.difference(named), key=lambda key: (python_name(key), key))
    names = {key: free(key) for key in (*named, *unnamed)}
    return TypeNames(
        {key: names[key] for key in abi.records},
        {key: names[key] for key in abi.enums if "<" not in key},
        typedefs,
    )


def _values(abi: Abi) -> Iterator[tuple[str, str]]:
    """Everything that is no type, with its header."""
    yield from ((python_name(constant.name), constant.header) for constant in abi.constants)
    yield from ((python_name(string.name), string.header) for string in abi.strings)
    yield from ((python_name(ioctl.name), ioctl.header) for ioctl in abi.ioctls)
    for enum in abi.enums.values():
        yield from ((python_name(name), enum.header) for name, _ in enum.enumerators)
    yield from ((python_name(macro.name), macro.header) for macro in abi.macros)


def abi_names(abi: VerifiedAbi) -> Iterator[tuple[str, str]]:
    """The names of a target's raw ABI module, each with the header that it is from."""
    yield from _values(abi)
    for key, name in type_names(abi).records.items():
        yield name, abi.records[key].header
