"""Which constants a member has for values: from ``headers/values.toml``, and of enums as declared."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vmm_arch_gen.abi.model import Abi, Record
from vmm_arch_gen.abi.types import Named
from vmm_arch_gen.diagnostics import InputError, Problem

MAKERS = ("one_of", "any_of")


@dataclass(frozen=True)
class Values:
    """For a member's path what its values are: one_of or any_of, and how their names begin."""

    table: Mapping[str, tuple[str, str]]

    def of(self, abi: Abi, record: Record, member: str) -> tuple[str, str] | None:
        """What the values of a record's member are, if that is known and the target has them."""
        path = f"{record.key.rpartition(' ')[2]}.{member}"
        if path in self.table:
            maker, prefix = self.table[path]
            return (maker, prefix) if _names(abi, prefix) else None
        type = next((m.type for m in record.members if m.name == member), None)
        while isinstance(type, Named) and type.name in abi.typedefs:
            type = abi.typedefs[type.name].type
        if not isinstance(type, Named) or type.name not in abi.enums:
            return None
        values = {name for name, _ in abi.enums[type.name].enumerators}
        first, last = min(values), max(values)
        same = (a == b for a, b in zip(first, last, strict=False))
        prefix = first[: next((at for at, alike in enumerate(same) if not alike), len(first))]
        return ("one_of", prefix) if len(values) > 1 and _names(abi, prefix) == values else None


def _names(abi: Abi, prefix: str) -> set[str]:
    """The constants and enumerators whose names begin with a prefix."""
    enumerators = (name for enum in abi.enums.values() for name, _ in enum.enumerators)
    return {
        name for name in (*(c.name for c in abi.constants), *enumerators) if name.startswith(prefix)
    }


def load_values(path: Path) -> Values:
    """Read the table; InputError says what is wrong with it."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        what, remedy = f"cannot be read: {error}", "restore it from the repository"
        raise InputError(Problem(str(path), what, remedy)) from None
    if unknown := sorted(set(table) - set(MAKERS)):
        what = f"has an unknown table: {', '.join(unknown)}"
        raise InputError(Problem(str(path), what, f"its tables are {' and '.join(MAKERS)}"))
    return Values(
        {path: (maker, prefix) for maker, rows in table.items() for path, prefix in rows.items()}
    )
