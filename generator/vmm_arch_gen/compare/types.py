"""Whether two versions of a type are the same to a program, however they are spelled."""

from __future__ import annotations

from collections.abc import Mapping

from vmm_arch_gen.abi.layout import Layouts
from vmm_arch_gen.abi.model import Abi
from vmm_arch_gen.abi.types import (
    NOT_INTEGERS,
    Array,
    Function,
    Named,
    Pointer,
    Scalar,
    Type,
    spell,
)


class Meaning:
    """What the types of one version mean."""

    def __init__(self, abi: Abi, renamed: Mapping[str, str]) -> None:
        """``renamed`` gives the other version's names of records that were only renamed."""
        self.layouts = Layouts.of_abi(abi)
        self._abi = abi
        self._renamed = renamed

    def of(self, type: Type) -> str:
        """A spelling that differs exactly where the meaning does.

        For a record it is the name, since a change of the record is reported there. Members of a
        record without a name are compared one by one.
        """
        resolved = self.layouts.resolve(type)
        match resolved:
            case Scalar(name):
                return self._scalar(resolved, name)
            case Array(of, count):  # [0] is how a flexible array was declared before C had them
                return f"{self.of(of)}[{count or ''}]"
            case Pointer(to):
                return f"{self.of(to)}*"
            case Function(result, parameters, variadic):
                listed = [self.of(of) for _, of in parameters] + ["..."] * variadic
                return f"{self.of(result)}({', '.join(listed)})"
            case Named(name):
                record = self._abi.records.get(name)
                if record is not None and record.unnamed:
                    return "a record without a name"
                return self._renamed.get(name, name)
        raise AssertionError(f"no such type: {spell(type)}")

    def _scalar(self, type: Scalar, name: str) -> str:
        if name in (*NOT_INTEGERS, "char", "_Bool"):
            return name
        return f"{'i' if self.layouts.signed(type) else 'u'}{self.layouts.of(type)[0] * 8}"
