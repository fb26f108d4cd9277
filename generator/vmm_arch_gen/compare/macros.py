"""Whether two versions of a macro with arguments give the same values."""

from __future__ import annotations

import random
from collections.abc import Hashable

from vmm_arch_gen.abi.evaluate import function
from vmm_arch_gen.abi.expression_text import spell
from vmm_arch_gen.abi.expressions import renamed, uses
from vmm_arch_gen.abi.integers import Undefined
from vmm_arch_gen.abi.model import MacroFunction
from vmm_arch_gen.abi.samples import COUNT, tuples


def takes(macro: MacroFunction) -> tuple[Hashable, ...]:
    """What a macro takes, argument by argument, and the type of its value."""
    used = uses(macro.value)
    return (*(type(used.get(name)).__name__ for name in macro.parameters), macro.value.type)


def same_values(old: MacroFunction, new: MacroFunction) -> bool:
    """Whether two macros that take the same are the same: in their canonical form, or at many arguments.

    The arguments lie around the numbers of both. Offsets and sizes are any numbers here: what a
    record has become is said of the record.
    """
    if old.value == new.value or spelling(old) == spelling(new):
        return True
    chance = random.Random(old.name)
    first, second = function(old.value, old.parameters), function(new.value, new.parameters)
    for macro in (old, new):
        compared = 0
        for values in tuples(macro.value, len(macro.parameters), chance):
            results: list[int | None] = []
            for compute in (first, second):
                try:
                    results.append(compute(values))
                except Undefined:
                    results.append(None)
            if results[0] != results[1]:
                return False
            compared += results[0] is not None
            if compared == COUNT:
                break
    return True


def spelling(macro: MacroFunction) -> str:
    """The canonical form, whatever its arguments are called."""
    names = {name: f"argument_{at}" for at, name in enumerate(macro.parameters)}
    return spell(renamed(macro.value, names))
