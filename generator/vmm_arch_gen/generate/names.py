"""C's names in Python."""

from __future__ import annotations

import keyword
import re

from vmm_arch_gen.abi.model import Member
from vmm_arch_gen.abi.types import Named


def python_name(key: str) -> str:
    """The Python name of a C name, record or enum.

    C names stay as they are. The type of ``kvm_run.io`` is ``kvm_run_io``, that of an unnamed
    union in ``kvm_run`` whose first member is ``hw`` is ``kvm_run_hw_union``.
    """
    kind, _, path = key.rpartition(" ")
    name = re.sub(r"<(\w*)>", rf"\1_{kind}", path).replace(".", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


def member_name(member: Member) -> str:
    """The Python name of a record's member; empty for an unnamed bit-field."""
    if member.name or member.bits is not None:
        return python_name(member.name)
    assert isinstance(member.type, Named)  # only a record can be a member without a name
    return "_" + python_name(re.sub(r" .*\.(?=<)", " ", member.type.name))
