"""Two versions of a target's facts, and everything that differs in meaning between them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from vmm_arch_gen.abi.expression_text import spell as spell_expression
from vmm_arch_gen.abi.ioctls import ioctl_parts
from vmm_arch_gen.abi.layout import LayoutError
from vmm_arch_gen.abi.model import Abi, MacroFunction
from vmm_arch_gen.abi.text import quoted
from vmm_arch_gen.abi.types import Array, Function, Named, Pointer, Type, spell
from vmm_arch_gen.compare.fields import compare_fields, fields_of, shape
from vmm_arch_gen.compare.macros import same_values, spelling, takes
from vmm_arch_gen.compare.model import Change, Comparison, Facts, FieldChange, Kind
from vmm_arch_gen.compare.renames import ALIKE, renames
from vmm_arch_gen.compare.types import Meaning


@dataclass(frozen=True)
class _Thing:
    """One version of something that has a name."""

    what: str
    meaning: Hashable
    """What a program made for it relies on, beside the value and the size in ``facts``."""
    facts: Facts
    """What is shown of it."""
    restated: Hashable
    """What may change without its meaning anything."""
    parts: Hashable = None
    """What else has to be the same where only the name is new."""
    macro: MacroFunction | None = None
    """One with arguments, of which two are compared by the values that they give."""

    @property
    def identity(self) -> Hashable:
        if self.macro is not None:
            return takes(self.macro), spelling(self.macro)
        return self.meaning, self.parts


_Things = Mapping[str, _Thing]
_Judge = Callable[[_Thing, _Thing], "Kind | None"]


def compare(old: Abi, new: Abi) -> Comparison:
    """What changed between two versions of one target, the gravest first."""
    renamed = _renamed_records(old, new)
    versions = _Version(old, {}), _Version(new, {v: k for k, v in renamed.items()})
    before, after = versions
    changes = [
        *_changes(before.model(), after.model(), _retyped, alike=0.0),
        *_changes(before.ioctls(), after.ioctls(), _renumbered, alike=0.0),
        *_changes(before.macros(), after.macros(), _macro_change, alike=ALIKE),
        *_records(before, after, renamed),
        *_changes(before.types(), after.types(), _type_change, alike=ALIKE),
        *_changes(before.functions(), after.functions(), _retyped, alike=ALIKE),
        *_values(before, after),
    ]
    omitted = {o.name: f"now left out: it {o.reason}" for o in new.omissions}
    changes = [
        (
            replace(change, note=omitted[change.name])
            if change.kind is Kind.REMOVED and change.name in omitted
            else change
        )
        for change in changes
    ]
    said = {o.name for o in old.omissions} | {change.name for change in changes}
    for o in new.omissions:
        if o.name not in said:
            facts = {"reason": o.reason, "header": o.header}
            changes.append(Change(Kind.ADDED, "omission", o.name, None, facts))
    order = list(Kind)
    changes.sort(key=lambda change: order.index(change.kind))
    return Comparison(new.target, old.origin, new.origin, tuple(changes))


def _changes(
    old: _Things,
    new: _Things,
    judge: _Judge,
    *,
    alike: float,
    pairs: Mapping[str, str] | None = None,
) -> Iterator[Change]:
    """The changes of things that have names; ``pairs`` are renames that are known already."""
    gone = {name: thing.identity for name, thing in old.items() if name not in new}
    fresh = {name: thing.identity for name, thing in new.items() if name not in old}
    found = renames(gone, fresh, alike=alike) if pairs is None else pairs
    for name, before in old.items():
        if name in found:
            after = new[found[name]]
            kind: Kind | None = Kind.RENAMED
        elif name in new:
            after = new[name]
            kind = judge(before, after)
            if kind is None and before.restated != after.restated:
                kind = Kind.RESTATED
        else:
            yield Change(Kind.REMOVED, before.what, name, before.facts, None)
            continue
        if kind is not None:
            yield Change(kind, after.what, name, before.facts, after.facts, found.get(name))
    for name in fresh:
        if name not in found.values():
            yield Change(Kind.ADDED, new[name].what, name, None, new[name].facts)


def _renumbered(before: _Thing, after: _Thing) -> Kind | None:
    if before.facts["value"] != after.facts["value"]:
        return Kind.RENUMBERED
    return _retyped(before, after)


def _retyped(before: _Thing, after: _Thing) -> Kind | None:
    return Kind.RETYPED if before.meaning != after.meaning else None


def _macro_change(before: _Thing, after: _Thing) -> Kind | None:
    assert before.macro is not None
    assert after.macro is not None
    if takes(before.macro) != takes(after.macro):
        return Kind.RETYPED
    return None if same_values(before.macro, after.macro) else Kind.CHANGED


def _type_change(before: _Thing, after: _Thing) -> Kind | None:
    if before.facts.get("size") != after.facts.get("size"):
        return Kind.RESIZED
    return _retyped(before, after)


def _value_change(before: _Thing, after: _Thing) -> Kind | None:
    texts = [thing.what == "string" for thing in (before, after)]
    if any(texts) and not all(texts):
        return Kind.RETYPED
    changed = Kind.CHANGED if any(texts) else Kind.RENUMBERED
    return changed if before.facts["value"] != after.facts["value"] else None


def _values(before: _Version, after: _Version) -> Iterator[Change]:
    """Macros and enumerators together: in a program they are the same, a number with a name."""
    old, new = before.values(), after.values()
    gone = {name: thing for name, thing in old.items() if name not in new}
    fresh = {name: thing for name, thing in new.items() if name not in old}
    pairs: dict[str, str] = {}
    # What has the same value in the same enum is the same; of macros the names must be alike.
    for what, alike in (("enumerator", 0.0), ("constant", ALIKE), ("string", ALIKE)):
        pairs |= renames(
            {name: thing.identity for name, thing in gone.items() if thing.what == what},
            {name: thing.identity for name, thing in fresh.items() if thing.what == what},
            alike=alike,
        )
    yield from _changes(old, new, _value_change, alike=0.0, pairs=pairs)


class _Version:
    """One version's things by name."""

    def __init__(self, abi: Abi, renamed: Mapping[str, str]) -> None:
        self.abi = abi
        self.meaning = Meaning(abi, renamed)

    def model(self) -> _Things:
        """What types mean though nothing declares them otherwise."""
        return {"the data model": _Thing("model", self.abi.model, vars(self.abi.model), None)}

    def values(self) -> _Things:
        things: dict[str, _Thing] = {}
        for s in self.abi.strings:
            said: Facts = {"value": quoted(s.value), "header": s.header}
            things[s.name] = _Thing("string", s.value, said, s.header)
        for c in self.abi.constants:
            facts: dict[str, str | int] = {"value": c.value, "header": c.header}
            if c.radix == 16:
                facts["hex"] = hex(c.value)
            things[c.name] = _Thing("constant", c.value, facts, ("constant", c.header))
        for key, enum in self.abi.enums.items():
            for name, value in enum.enumerators:
                facts = {"value": value, "header": enum.header, "enum": key}
                # Where the enum has a name, it is the enum that is declared elsewhere.
                place = enum.header if "<" in key else ""
                meaning = (place or key, value)
                things[name] = _Thing("enumerator", meaning, facts, ("enumerator", place))
        return things

    def ioctls(self) -> _Things:
        things: dict[str, _Thing] = {}
        for ioctl in self.abi.ioctls:
            parts = ioctl_parts(self.abi, ioctl)
            facts: dict[str, str | int] = {
                "value": ioctl.value,
                "direction": parts.direction,
                "type": parts.type,
                "number": parts.number,
                "size": parts.size,
                "header": ioctl.header,
            }
            argument = ""
            if ioctl.argument is not None:
                facts["argument"] = spell(ioctl.argument)
                argument = self.meaning.of(ioctl.argument)
            meaning = (ioctl.value, ioctl.direction, argument)
            restated = (facts.get("argument"), ioctl.header)
            things[ioctl.name] = _Thing("ioctl", meaning, facts, restated)
        return things

    def macros(self) -> _Things:
        """Macros with arguments."""
        things: dict[str, _Thing] = {}
        for macro in self.abi.macros:
            facts: dict[str, str | int] = {
                "arguments": ", ".join(macro.parameters),
                "type": macro.value.type.name,
                "expression": spell_expression(macro.value),
                "header": macro.header,
            }
            restated = (facts["arguments"], facts["expression"], macro.header)
            things[macro.name] = _Thing("macro", None, facts, restated, macro=macro)
        return things

    def functions(self) -> _Things:
        return {
            f.name: _Thing(
                "function",
                self.meaning.of(f.type),
                {"type": spell(f.type), "header": f.header},
                (spell(f.type), f.header),
            )
            for f in self.abi.functions
        }

    def types(self) -> _Things:
        """Typedefs, and enums as types."""
        things: dict[str, _Thing] = {}
        for name, typedef in self.abi.typedefs.items():
            facts: dict[str, str | int] = {
                "type": spell(typedef.type),
                "header": typedef.header,
                **self._size(Named(name)),
            }
            meaning = (self.meaning.of(typedef.type), typedef.aligned)
            restated = (spell(typedef.type), typedef.header)
            things[name] = _Thing("typedef", meaning, facts, restated)
        for key, enum in self.abi.enums.items():
            if "<" not in key:
                facts = {
                    "type": enum.underlying.name,
                    "header": enum.header,
                    **self._size(enum.underlying),
                }
                underlying = self.meaning.of(enum.underlying)
                values = tuple(name for name, _ in enum.enumerators)
                things[key] = _Thing("enum", underlying, facts, enum.header, values)
        return things

    def _size(self, type: Type) -> Mapping[str, int]:
        try:
            return {"size": self.meaning.layouts.of(type)[0]}
        except LayoutError:  # void, a function or an incomplete record
            return {}

    def records(self) -> _Things:
        things = {}
        for key, record in self.abi.records.items():
            if not record.unnamed:
                layout = self.abi.layouts[key]
                facts: dict[str, str | int] = {
                    "size": layout.size,
                    "align": layout.align,
                    "header": record.header,
                }
                things[key] = _Thing(record.kind, None, facts, record.header)
        return things


def _records(before: _Version, after: _Version, renamed: Mapping[str, str]) -> Iterator[Change]:
    old, new = before.records(), after.records()
    same = _same_records(before.abi, after.abi)
    for name, thing in old.items():
        successor = renamed.get(name, name)
        if successor not in new:
            yield Change(Kind.REMOVED, thing.what, name, thing.facts, None)
            continue
        fields: tuple[FieldChange, ...] = ()
        if name != successor or not same(name):
            fields = tuple(
                compare_fields(
                    fields_of(before.abi.records[name], before.abi, before.meaning),
                    fields_of(after.abi.records[successor], after.abi, after.meaning),
                )
            )
        kind = _record_kind(thing, new[successor], fields, name != successor)
        if kind is not None:
            shown = fields if any(field.kind for field in fields) else ()
            new_name = successor if name != successor else None
            facts = new[successor].facts
            yield Change(kind, new[successor].what, name, thing.facts, facts, new_name, shown)
    for name, thing in new.items():
        if name not in old and name not in renamed.values():
            yield Change(Kind.ADDED, thing.what, name, None, thing.facts)


def _same_records(old: Abi, new: Abi) -> Callable[[str], bool]:
    """Tells whether all that a record is made of is the same, as it is for nearly all of them."""
    known: dict[str, bool] = {}

    def same(name: str) -> bool:
        if name not in known:
            known[name] = True  # for a record that has a pointer to itself
            known[name] = old.layouts.get(name) == new.layouts.get(name) and all(
                old_of.get(name) == new_of.get(name)
                for old_of, new_of in (
                    (old.records, new.records),
                    (old.typedefs, new.typedefs),
                    (old.enums, new.enums),
                )
            )
            if known[name] and name in old.records:
                known[name] = all(map(same, names_in(m.type for m in old.records[name].members)))
            elif known[name] and name in old.typedefs:
                known[name] = all(map(same, names_in([old.typedefs[name].type])))
        return known[name]

    return same


def names_in(types: Iterable[Type]) -> Iterator[str]:
    """All names in types."""
    for type in types:
        match type:
            case Named(name):
                yield name
            case Array(of=inner) | Pointer(to=inner):
                yield from names_in([inner])
            case Function(result, parameters):
                yield from names_in([result, *(of for _, of in parameters)])


def _record_kind(
    old: _Thing, new: _Thing, fields: tuple[FieldChange, ...], renamed: bool
) -> Kind | None:
    kinds = {field.kind for field in fields if field.kind is not None}
    if renamed:
        kinds.add(Kind.RENAMED)
    if any(old.facts[measure] != new.facts[measure] for measure in ("size", "align")):
        # A change of size is what matters, unless a member was removed or renamed.
        return min(kinds & {Kind.RENAMED, Kind.REMOVED}, key=list(Kind).index, default=Kind.RESIZED)
    if old.what != new.what:
        kinds.add(Kind.RETYPED)
    if not kinds and old.restated != new.restated:
        return Kind.RESTATED
    return min(kinds, key=list(Kind).index, default=None)


def _renamed_records(old: Abi, new: Abi) -> dict[str, str]:
    """The removed records that have the layout of a new one."""

    def shapes(abi: Abi, other: Abi) -> dict[str, Hashable]:
        meaning = Meaning(abi, {})
        found: dict[str, Hashable] = {}
        for key, record in abi.records.items():
            if not record.unnamed and key not in other.records:
                layout = abi.layouts[key]
                fields = shape(fields_of(record, abi, meaning))
                if fields:  # without members all of one size look the same
                    found[key] = (record.kind, layout.size, layout.align, fields)
        return found

    return renames(shapes(old, new), shapes(new, old), alike=0)
