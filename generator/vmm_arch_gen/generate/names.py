"""C's names in Python."""

from __future__ import annotations

import keyword
from collections.abc import Iterator

from vmm_arch_gen.abi.model import Member, VerifiedAbi
from vmm_arch_gen.abi.types import Named


def python_name(key: str) -> str:
    """The Python name of a C name, record or enum.

    C names stay as they are. The type of ``kvm_run.io`` is ``kvm_run_io``, that of the first
    unnamed union in ``kvm_run`` is ``kvm_run_union``.
    """
    name = key.rpartition(" ")[2].replace(".", "_").translate({ord("<"): "", ord(">"): ""})
    return f"{name}_" if keyword.iskeyword(name) else name


def member_name(member: Member) -> str:
    """The Python name of a record's member; empty for an unnamed bit-field."""
    if member.name or member.bits is not None:
        return python_name(member.name)
    assert isinstance(member.type, Named)  # only a record can be a member without a name
    return f"_{python_name(member.type.name.rpartition('.')[2])}"


def abi_names(abi: VerifiedAbi) -> Iterator[tuple[str, str]]:
    """The names of a target's raw ABI module, each with the header that it is from."""
    yield from ((constant.name, constant.header) for constant in abi.constants)
    yield from ((string.name, string.header) for string in abi.strings)
    yield from ((ioctl.name, ioctl.header) for ioctl in abi.ioctls)
    for enum in abi.enums.values():
        yield from ((name, enum.header) for name, _ in enum.enumerators)
    yield from ((python_name(key), record.header) for key, record in abi.records.items())
