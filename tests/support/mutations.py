"""Changes made to the facts on purpose, each with what ``diff`` has to say about it.

A mutation takes an ABI and a source of chance and gives the changed ABI, and the changes that have
to be reported as (kind, name). It gives None where the target has nothing to try it on.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from vmm_arch_gen.abi.ioctls import ioctl_parts
from vmm_arch_gen.abi.layout import Layouts
from vmm_arch_gen.abi.members import RESERVED
from vmm_arch_gen.abi.model import (
    Abi,
    Constant,
    Enum,
    FunctionPrototype,
    Ioctl,
    Member,
    Omission,
    Record,
    Typedef,
)
from vmm_arch_gen.abi.types import Array, Function, Named, Pointer, Scalar, Type
from vmm_arch_gen.compare.compare import names_in
from vmm_arch_gen.compare.model import Kind

Mutated = tuple[Abi, set[tuple[Kind, str]]]
Mutation = Callable[[Abi, random.Random], Mutated | None]
T = TypeVar("T")

MUTATIONS: list[Mutation] = []


def mutation(function: Mutation) -> Mutation:
    MUTATIONS.append(function)
    return function


def pick(chance: random.Random, things: Iterator[T]) -> T | None:
    found = list(things)
    return chance.choice(found) if found else None


# -- rebuilding -------------------------------------------------------------------------------


def rebuilt(abi: Abi, **change: Any) -> Abi:
    """The ABI with changed declarations: layouts and ioctl numbers follow, as they do in C."""
    sizes = Layouts.of_abi(abi)
    abi = replace(abi, **change)
    layouts = Layouts(abi.model, abi.records, abi.typedefs, abi.enums)
    abi = replace(abi, layouts={key: layouts.record(key) for key in abi.records})
    return replace(abi, ioctls=tuple(_renumbered(i, sizes, layouts, abi) for i in abi.ioctls))


def _renumbered(ioctl: Ioctl, old: Layouts, new: Layouts, abi: Abi) -> Ioctl:
    if ioctl.argument is None or (size := ioctl_parts(abi, ioctl).size) == 0:
        return ioctl
    now = new.of(ioctl.argument)[0]
    return ioctl if now == size else replace(ioctl, value=ioctl.value + (now - size << 16))


def everywhere(value: Any, change: Callable[[str], str]) -> Any:
    """A value with every type name in it changed."""
    match value:
        case Named(name):
            return Named(change(name))
        case tuple():
            return tuple(everywhere(item, change) for item in value)
        case dict():
            return {change(key): everywhere(item, change) for key, item in value.items()}
        case Record() | Typedef() | Ioctl() | FunctionPrototype() | Member() | Array() | Pointer():
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            fields = {name: everywhere(item, change) for name, item in fields.items()}
            if isinstance(value, Record):
                fields["key"] = change(value.key)
            return type(value)(**fields)
        case Function(result, parameters, variadic):
            listed = tuple((name, everywhere(of, change)) for name, of in parameters)
            return Function(everywhere(result, change), listed, variadic)
    return value


def renamed_type(abi: Abi, old: str, new: str) -> Abi:
    """The ABI with a record or typedef called otherwise, and the unnamed types inside it."""
    plain, fresh = (name.rpartition(" ")[2] for name in (old, new))

    def change(name: str) -> str:
        head, _, rest = name.rpartition(" ")
        if name == old:
            return new
        return f"{head} {fresh}{rest[len(plain):]}" if rest.startswith(f"{plain}.") else name

    return rebuilt(
        abi,
        records=everywhere(dict(abi.records), change),
        typedefs=everywhere(dict(abi.typedefs), change),
        ioctls=everywhere(abi.ioctls, change),
        functions=everywhere(abi.functions, change),
    )


def without(things: tuple[T, ...], gone: T) -> tuple[T, ...]:
    return tuple(thing for thing in things if thing is not gone)


def instead(things: tuple[T, ...], old: T, new: T) -> tuple[T, ...]:
    return tuple(new if thing is old else thing for thing in things)


def users(abi: Abi, names: Iterable[str]) -> set[str]:
    """What is made of some types, directly and not: records, typedefs, ioctls and functions."""
    used_by: dict[str, set[str]] = {}
    for user, kinds in (
        *((key, [m.type for m in record.members]) for key, record in abi.records.items()),
        *((typedef.name, [typedef.type]) for typedef in abi.typedefs.values()),
        *((ioctl.name, [ioctl.argument]) for ioctl in abi.ioctls if ioctl.argument is not None),
        *((function.name, [function.type]) for function in abi.functions),
    ):
        for name in names_in(kinds):
            used_by.setdefault(name, set()).add(user)
    found: set[str] = set()
    queue = list(names)
    while queue:
        new = used_by.get(queue.pop(), set()) - found
        found |= new
        queue += new
    return found


def fresh_name(name: str) -> str:
    """Another name for the same thing, as like it as people make them."""
    return f"{name}_renamed" if name.islower() else f"{name}_RENAMED"


# -- constants, enumerators -------------------------------------------------------------------


def constant(abi: Abi, chance: random.Random) -> Constant | None:
    taken = {o.name for o in abi.omissions}
    words = (c for c in abi.constants if c.name.count("_") > 1 and c.name not in taken)
    return pick(chance, (c for c in words if not c.name.startswith("_IOC")))


@mutation
def constant_removed(abi: Abi, chance: random.Random) -> Mutated | None:
    if (c := constant(abi, chance)) is None:
        return None
    return replace(abi, constants=without(abi.constants, c)), {(Kind.REMOVED, c.name)}


@mutation
def constant_left_out(abi: Abi, chance: random.Random) -> Mutated | None:
    if (c := constant(abi, chance)) is None:
        return None
    omission = Omission("macro", c.name, c.header, "names PAGE_SIZE, which nothing defines")
    changed = replace(abi, constants=without(abi.constants, c), omissions=(omission,))
    return changed, {(Kind.REMOVED, c.name)}


@mutation
def constant_renamed(abi: Abi, chance: random.Random) -> Mutated | None:
    if (c := constant(abi, chance)) is None:
        return None
    new = replace(c, name=fresh_name(c.name))
    return replace(abi, constants=instead(abi.constants, c, new)), {(Kind.RENAMED, c.name)}


@mutation
def constant_renumbered(abi: Abi, chance: random.Random) -> Mutated | None:
    if (c := constant(abi, chance)) is None:
        return None
    new = replace(c, value=c.value ^ 1 << chance.randrange(31))
    return replace(abi, constants=instead(abi.constants, c, new)), {(Kind.RENUMBERED, c.name)}


@mutation
def constant_added(abi: Abi, chance: random.Random) -> Mutated | None:
    new = Constant("VMM_ARCH_NEW", chance.randrange(99), 10, "new.h")
    return replace(abi, constants=(*abi.constants, new)), {(Kind.ADDED, new.name)}


@mutation
def constant_in_another_header(abi: Abi, chance: random.Random) -> Mutated | None:
    if (c := constant(abi, chance)) is None:
        return None
    new = replace(c, header="another.h")
    return replace(abi, constants=instead(abi.constants, c, new)), {(Kind.RESTATED, c.name)}


@mutation
def constant_becomes_an_enumerator(abi: Abi, chance: random.Random) -> Mutated | None:
    c = pick(chance, (c for c in abi.constants if 0 <= c.value < 1 << 31))
    if c is None:
        return None
    key = f"enum <{c.name}>"
    enums = {**abi.enums, key: Enum(key, Scalar("unsigned int"), ((c.name, c.value),), c.header)}
    changed = replace(abi, constants=without(abi.constants, c), enums=enums)
    return changed, {(Kind.RESTATED, c.name)}


@mutation
def constant_in_another_radix(abi: Abi, chance: random.Random) -> Mutated | None:
    if (c := constant(abi, chance)) is None:
        return None
    new = replace(c, radix=10 if c.radix == 16 else 16)
    return replace(abi, constants=instead(abi.constants, c, new)), set()


def enumerator(abi: Abi, chance: random.Random) -> tuple[Enum, int] | None:
    return pick(
        chance,
        (
            (enum, at)
            for enum in abi.enums.values()
            for at in range(len(enum.enumerators))
            if "<" not in enum.key and len(enum.enumerators) > 1
        ),
    )


def with_enumerators(abi: Abi, enum: Enum, values: list[tuple[str, int]]) -> Abi:
    return replace(abi, enums={**abi.enums, enum.key: replace(enum, enumerators=tuple(values))})


@mutation
def enumerator_removed(abi: Abi, chance: random.Random) -> Mutated | None:
    if (found := enumerator(abi, chance)) is None:
        return None
    enum, at = found
    values = list(enum.enumerators)
    name, _ = values.pop(at)
    return with_enumerators(abi, enum, values), {(Kind.REMOVED, name)}


@mutation
def enumerator_renamed(abi: Abi, chance: random.Random) -> Mutated | None:
    if (found := enumerator(abi, chance)) is None:
        return None
    enum, at = found
    values = list(enum.enumerators)
    name, value = values[at]
    values[at] = ("SomethingElseEntirely", value)
    return with_enumerators(abi, enum, values), {(Kind.RENAMED, name)}


@mutation
def enumerator_inserted(abi: Abi, chance: random.Random) -> Mutated | None:
    """Those behind it are renumbered, which is the classic mistake."""
    if (found := enumerator(abi, chance)) is None:
        return None
    enum, at = found
    values = list(enum.enumerators)
    new = ("VMM_ARCH_NEW", values[at][1])
    values = [*values[:at], new, *((name, value + 1) for name, value in values[at:])]
    moved = {(Kind.RENUMBERED, name) for name, _ in enum.enumerators[at:]}
    return with_enumerators(abi, enum, values), {(Kind.ADDED, new[0])} | moved


@mutation
def enum_added(abi: Abi, chance: random.Random) -> Mutated | None:
    new = Enum("enum vmm_arch_new", Scalar("unsigned int"), (("VMM_ARCH_NEW", 7),), "new.h")
    changed = replace(abi, enums={**abi.enums, new.key: new})
    return changed, {(Kind.ADDED, new.key), (Kind.ADDED, "VMM_ARCH_NEW")}


@mutation
def enum_removed(abi: Abi, chance: random.Random) -> Mutated | None:
    enum = pick(chance, (e for e in abi.enums.values() if not users(abi, [e.key])))
    if enum is None or "<" in enum.key:
        return None
    enums = {key: e for key, e in abi.enums.items() if e is not enum}
    names = {(Kind.REMOVED, name) for name, _ in enum.enumerators}
    return replace(abi, enums=enums), {(Kind.REMOVED, enum.key)} | names


@mutation
def enum_becomes_signed(abi: Abi, chance: random.Random) -> Mutated | None:
    named = (e for e in abi.enums.values() if "<" not in e.key)
    enum = pick(chance, (e for e in named if e.underlying == Scalar("unsigned int")))
    if enum is None:
        return None
    enums = {**abi.enums, enum.key: replace(enum, underlying=Scalar("int"))}
    return rebuilt(abi, enums=enums), {(Kind.RETYPED, enum.key)}


# -- ioctls -----------------------------------------------------------------------------------


def ioctl(abi: Abi, chance: random.Random) -> Ioctl | None:
    values = [i.value for i in abi.ioctls]
    return pick(chance, (i for i in abi.ioctls if values.count(i.value) == 1))


@mutation
def ioctl_removed(abi: Abi, chance: random.Random) -> Mutated | None:
    if (i := ioctl(abi, chance)) is None:
        return None
    return replace(abi, ioctls=without(abi.ioctls, i)), {(Kind.REMOVED, i.name)}


@mutation
def ioctl_renamed(abi: Abi, chance: random.Random) -> Mutated | None:
    if (i := ioctl(abi, chance)) is None:
        return None
    new = replace(i, name="VMM_ARCH_QUITE_ANOTHER")
    return replace(abi, ioctls=instead(abi.ioctls, i, new)), {(Kind.RENAMED, i.name)}


@mutation
def ioctl_renumbered(abi: Abi, chance: random.Random) -> Mutated | None:
    if (i := ioctl(abi, chance)) is None:
        return None
    new = replace(i, value=i.value ^ 1 << chance.randrange(8))
    return replace(abi, ioctls=instead(abi.ioctls, i, new)), {(Kind.RENUMBERED, i.name)}


@mutation
def ioctl_in_another_direction(abi: Abi, chance: random.Random) -> Mutated | None:
    if (i := ioctl(abi, chance)) is None:
        return None
    new = replace(i, value=i.value ^ 1 << 31, direction="readwrite")
    return replace(abi, ioctls=instead(abi.ioctls, i, new)), {(Kind.RENUMBERED, i.name)}


@mutation
def ioctl_with_another_argument(abi: Abi, chance: random.Random) -> Mutated | None:
    i = pick(chance, (i for i in abi.ioctls if i.argument is not None))
    if i is None:
        return None
    new = replace(i, argument=Array(Scalar("char"), 3))
    return replace(abi, ioctls=instead(abi.ioctls, i, new)), {(Kind.RETYPED, i.name)}


@mutation
def ioctl_added(abi: Abi, chance: random.Random) -> Mutated | None:
    new = Ioctl("VMM_ARCH_NEW", 0xAEFF, "none", None, "new.h")
    return replace(abi, ioctls=(*abi.ioctls, new)), {(Kind.ADDED, new.name)}


# -- records ----------------------------------------------------------------------------------


def record(abi: Abi, chance: random.Random, *, used: bool = True) -> Record | None:
    """A record with a name and members."""
    named = (r for r in abi.records.values() if not r.unnamed and r.members)
    return pick(chance, (r for r in named if used or not users(abi, [r.key])))


def struct(
    abi: Abi, chance: random.Random, wanted: Callable[[Member], bool]
) -> tuple[Record, int] | None:
    """A struct with a name, and the place of a member in it."""
    return pick(
        chance,
        (
            (r, at)
            for r in abi.records.values()
            if not r.unnamed and r.kind == "struct"
            for at, m in enumerate(r.members)
            if m.name and m.bits is None and wanted(m) and not RESERVED.fullmatch(m.name)
        ),
    )


def with_members(abi: Abi, r: Record, members: list[Member]) -> Abi:
    return rebuilt(abi, records={**abi.records, r.key: replace(r, members=tuple(members))})


@mutation
def record_removed(abi: Abi, chance: random.Random) -> Mutated | None:
    if (r := record(abi, chance, used=False)) is None:
        return None
    gone = [
        k
        for k in abi.records
        if k == r.key or k.rpartition(" ")[2].startswith(f"{r.key.rpartition(' ')[2]}.")
    ]
    records = {k: v for k, v in abi.records.items() if k not in gone}
    return rebuilt(abi, records=records), {(Kind.REMOVED, r.key)}


@mutation
def record_renamed(abi: Abi, chance: random.Random) -> Mutated | None:
    if (r := record(abi, chance)) is None:
        return None
    head, _, name = r.key.rpartition(" ")
    return renamed_type(abi, r.key, f"{head} {fresh_name(name)}".strip()), {(Kind.RENAMED, r.key)}


@mutation
def record_added(abi: Abi, chance: random.Random) -> Mutated | None:
    new = Record(
        "struct vmm_arch_new",
        "struct",
        (Member("a", Scalar("char")), Member("z", Scalar("char"))),
        False,
        None,
        "new.h",
    )
    return rebuilt(abi, records={**abi.records, new.key: new}), {(Kind.ADDED, new.key)}


@mutation
def record_in_another_header(abi: Abi, chance: random.Random) -> Mutated | None:
    if (r := record(abi, chance)) is None:
        return None
    records = {**abi.records, r.key: replace(r, header="another.h")}
    return replace(abi, records=records), {(Kind.RESTATED, r.key)}


@mutation
def record_aligned_otherwise(abi: Abi, chance: random.Random) -> Mutated | None:
    if (r := record(abi, chance)) is None:
        return None
    records = {**abi.records, r.key: replace(r, aligned=8192)}
    return rebuilt(abi, records=records), {(Kind.RESIZED, r.key)}


@mutation
def field_removed(abi: Abi, chance: random.Random) -> Mutated | None:
    if (found := struct(abi, chance, lambda m: True)) is None:
        return None
    r, at = found
    members = list(r.members)
    del members[at]
    return with_members(abi, r, members), {(Kind.REMOVED, r.key)}


@mutation
def field_renamed(abi: Abi, chance: random.Random) -> Mutated | None:
    if (found := struct(abi, chance, lambda m: True)) is None:
        return None
    r, at = found
    members = list(r.members)
    members[at] = replace(members[at], name="vmm_arch_renamed")
    return with_members(abi, r, members), {(Kind.RENAMED, r.key)}


@mutation
def field_appended(abi: Abi, chance: random.Random) -> Mutated | None:
    if (found := struct(abi, chance, lambda m: True)) is None:
        return None
    r, _ = found
    changed = with_members(
        abi, r, [*r.members, Member("vmm_arch_new", Array(Scalar("long long"), 2))]
    )
    return changed, {(Kind.RESIZED, r.key)}


@mutation
def field_inserted(abi: Abi, chance: random.Random) -> Mutated | None:
    """Those behind it move, which goes without saying where the size changes."""
    if (found := struct(abi, chance, lambda m: True)) is None:
        return None
    r, at = found
    new = Member("vmm_arch_new", Array(Scalar("long long"), 8))
    changed = with_members(abi, r, [*r.members[:at], new, *r.members[at:]])
    return changed, {(Kind.RESIZED, r.key)}


@mutation
def field_resized(abi: Abi, chance: random.Random) -> Mutated | None:
    if (found := struct(abi, chance, lambda m: True)) is None:
        return None
    r, at = found
    members = list(r.members)
    members[at] = replace(members[at], type=Array(members[at].type, 3))
    if abi.layouts[r.key].size == 0 or Layouts.of_abi(abi).of(r.members[at].type)[0] == 0:
        return None
    after = with_members(abi, r, members)
    if after.layouts[r.key].size == abi.layouts[r.key].size:  # it took up padding
        return None
    return after, {(Kind.RESIZED, r.key)}


SIGNS = {"int": "unsigned int", "unsigned int": "int", "long long": "unsigned long long", "unsigned long long": "long long", "short": "unsigned short", "unsigned short": "short", "signed char": "unsigned char", "unsigned char": "signed char", "long": "unsigned long", "unsigned long": "long"}  # fmt: skip


@mutation
def field_of_another_sign(abi: Abi, chance: random.Random) -> Mutated | None:
    layouts = Layouts.of_abi(abi)

    def number(m: Member) -> bool:
        kind = layouts.resolve(m.type)
        return isinstance(kind, Scalar) and kind.name in SIGNS

    if (found := struct(abi, chance, number)) is None:
        return None
    r, at = found
    members = list(r.members)
    kind = layouts.resolve(members[at].type)
    assert isinstance(kind, Scalar)
    members[at] = replace(members[at], type=Scalar(SIGNS[kind.name]))
    return with_members(abi, r, members), {(Kind.RETYPED, r.key)}


@mutation
def field_spelled_otherwise(abi: Abi, chance: random.Random) -> Mutated | None:
    """``unsigned int`` instead of ``__u32``."""
    layouts = Layouts.of_abi(abi)

    def alias(m: Member) -> bool:
        return m.type != layouts.resolve(m.type) and isinstance(layouts.resolve(m.type), Scalar)

    if (found := struct(abi, chance, alias)) is None:
        return None
    r, at = found
    members = list(r.members)
    aligned = max(layouts.of(members[at].type)[1], members[at].aligned or 0)
    kind = layouts.resolve(members[at].type)
    members[at] = replace(members[at], type=kind, aligned=None if r.packed else aligned)
    return with_members(abi, r, members), {(Kind.RESTATED, r.key)}


@mutation
def fields_exchanged(abi: Abi, chance: random.Random) -> Mutated | None:
    layouts = Layouts.of_abi(abi)
    found = pick(
        chance,
        (
            (r, at)
            for r in abi.records.values()
            if not r.unnamed and r.kind == "struct"
            for at, (m, n) in enumerate(zip(r.members, r.members[1:], strict=False))
            if m.name and n.name and m.bits is None and n.bits is None
            and layouts.of(m.type) == layouts.of(n.type) != (0, 1) and (m.aligned, n.aligned) == (None, None)
            and not RESERVED.fullmatch(m.name) and not RESERVED.fullmatch(n.name) and layouts.of(m.type)[0]
        ),
    )  # fmt: skip
    if found is None:
        return None
    r, at = found
    members = list(r.members)
    members[at], members[at + 1] = members[at + 1], members[at]
    return with_members(abi, r, members), {(Kind.MOVED, r.key)}


@mutation
def fields_put_into_a_union(abi: Abi, chance: random.Random) -> Mutated | None:
    """What a union without a name surrounds has not moved; what is beside it in there is new."""
    if (found := struct(abi, chance, lambda m: not m.aligned)) is None:
        return None
    r, at = found
    if r.packed:
        return None
    path = r.key.rpartition(" ")[2]
    union = Record(
        f"union {path}.<union9>",
        "union",
        (r.members[at], Member("vmm_arch_new", Scalar("char"))),
        False,
        None,
        r.header,
    )
    members = list(r.members)
    members[at] = Member("", Named(union.key))
    if Layouts.of_abi(abi).of(r.members[at].type)[0] == 0:
        return None
    changed = replace(abi, records={**abi.records, union.key: union})
    return with_members(changed, r, members), {(Kind.ADDED, r.key)}


def reserved(abi: Abi, chance: random.Random) -> tuple[Record, int, int] | None:
    """A struct, the place in it of an array that keeps space, and how many elements that has."""
    return pick(
        chance,
        (
            (r, at, m.type.count or 0)
            for r in abi.records.values()
            if not r.unnamed and r.kind == "struct"
            for at, m in enumerate(r.members)
            if m.name and isinstance(m.type, Array) and (m.type.count or 0) > 1
            and RESERVED.fullmatch(m.name)
        ),
    )  # fmt: skip


@mutation
def reserved_space_used(abi: Abi, chance: random.Random) -> Mutated | None:
    if (found := reserved(abi, chance)) is None:
        return None
    r, at, count = found
    members = list(r.members)
    kind = members[at].type
    assert isinstance(kind, Array)
    members[at : at + 1] = [
        Member("vmm_arch_new", kind.of),
        replace(members[at], type=Array(kind.of, count - 1)),
    ]
    return with_members(abi, r, members), {(Kind.ADDED, r.key)}


@mutation
def reserved_space_used_up(abi: Abi, chance: random.Random) -> Mutated | None:
    if (found := reserved(abi, chance)) is None:
        return None
    r, at, _ = found
    members = list(r.members)
    members[at] = replace(members[at], name="vmm_arch_new")
    return with_members(abi, r, members), {(Kind.ADDED, r.key)}


@mutation
def field_becomes_reserved(abi: Abi, chance: random.Random) -> Mutated | None:
    if (found := struct(abi, chance, lambda m: True)) is None:
        return None
    r, at = found
    members = list(r.members)
    members[at] = replace(members[at], name="reserved99")
    return with_members(abi, r, members), {(Kind.REMOVED, r.key)}


def bit_field(abi: Abi, chance: random.Random) -> tuple[Record, int] | None:
    return pick(
        chance,
        (
            (r, at)
            for r in abi.records.values()
            for at, m in enumerate(r.members)
            if m.name and m.bits is not None and m.bits > 1 and not RESERVED.fullmatch(m.name)
        ),
    )  # fmt: skip


def owner(abi: Abi, r: Record) -> str:
    """The record with a name that a record is, or is inside of."""
    if not r.unnamed:
        return r.key
    path = r.key.rpartition(" ")[2].partition(".")[0]
    return next(k for k in (f"struct {path}", f"union {path}", path) if k in abi.records)


@mutation
def bit_field_narrowed(abi: Abi, chance: random.Random) -> Mutated | None:
    """What is left free keeps those behind it in their places."""
    if (found := bit_field(abi, chance)) is None:
        return None
    r, at = found
    m = r.members[at]
    assert m.bits is not None
    members = list(r.members)
    members[at : at + 1] = [replace(m, bits=m.bits - 1), Member("", m.type, 1)]
    changed = with_members(abi, r, members)
    return changed, {(Kind.RESIZED, owner(abi, r))}


@mutation
def bit_field_widened(abi: Abi, chance: random.Random) -> Mutated | None:
    """Into the space behind it that was kept for later."""
    found = pick(
        chance,
        (
            (r, at)
            for r in abi.records.values()
            for at, (m, n) in enumerate(zip(r.members, r.members[1:], strict=False))
            if m.name and not RESERVED.fullmatch(m.name) and m.bits is not None and r.kind == "struct"
            and (n.bits or 0) > 1 and (not n.name or RESERVED.fullmatch(n.name))
        ),
    )  # fmt: skip
    if found is None:
        return None
    r, at = found
    m, n = r.members[at : at + 2]
    assert m.bits is not None
    assert n.bits is not None
    members = list(r.members)
    members[at : at + 2] = [replace(m, bits=m.bits + 1), replace(n, bits=n.bits - 1)]
    return with_members(abi, r, members), {(Kind.RESIZED, owner(abi, r))}


@mutation
def bit_fields_exchanged(abi: Abi, chance: random.Random) -> Mutated | None:
    found = pick(
        chance,
        (
            (r, at)
            for r in abi.records.values()
            for at, (m, n) in enumerate(zip(r.members, r.members[1:], strict=False))
            if m.name and n.name and m.bits == n.bits is not None and r.kind == "struct"
            and not any(x.name.lower().startswith(("reserved", "unused")) for x in (m, n))
        ),
    )  # fmt: skip
    if found is None:
        return None
    r, at = found
    members = list(r.members)
    members[at], members[at + 1] = members[at + 1], members[at]
    return with_members(abi, r, members), {(Kind.MOVED, owner(abi, r))}


# -- typedefs, functions ----------------------------------------------------------------------


@mutation
def typedef_removed(abi: Abi, chance: random.Random) -> Mutated | None:
    t = pick(chance, (t for t in abi.typedefs.values() if not users(abi, [t.name])))
    if t is None:
        return None
    typedefs = {name: other for name, other in abi.typedefs.items() if other is not t}
    return rebuilt(abi, typedefs=typedefs), {(Kind.REMOVED, t.name)}


@mutation
def typedef_of_another_sign(abi: Abi, chance: random.Random) -> Mutated | None:
    numbers = (t for t in abi.typedefs.values() if isinstance(t.type, Scalar))
    t = pick(chance, (t for t in numbers if isinstance(t.type, Scalar) and t.type.name in SIGNS))
    if t is None:
        return None
    assert isinstance(t.type, Scalar)
    typedefs = {**abi.typedefs, t.name: replace(t, type=Scalar(SIGNS[t.type.name]))}
    return rebuilt(abi, typedefs=typedefs), {(Kind.RETYPED, t.name)}


@mutation
def typedef_resized(abi: Abi, chance: random.Random) -> Mutated | None:
    small = (Scalar("int"), Scalar("unsigned int"), Scalar("short"), Scalar("unsigned short"))
    unused = (t for t in abi.typedefs.values() if not users(abi, [t.name]))
    t = pick(chance, (t for t in unused if t.type in small))
    if t is None:
        return None
    typedefs = {**abi.typedefs, t.name: replace(t, type=Scalar("long long"))}
    return rebuilt(abi, typedefs=typedefs), {(Kind.RESIZED, t.name)}


@mutation
def typedef_to_a_smaller_unsigned_type(abi: Abi, chance: random.Random) -> Mutated | None:
    large = (Scalar("unsigned int"), Scalar("unsigned long"), Scalar("unsigned long long"))
    unused = (t for t in abi.typedefs.values() if not users(abi, [t.name]))
    t = pick(chance, (t for t in unused if t.type in large))
    if t is None:
        return None
    typedefs = {**abi.typedefs, t.name: replace(t, type=Scalar("unsigned short"))}
    return rebuilt(abi, typedefs=typedefs), {(Kind.RESIZED, t.name)}


@mutation
def typedef_added(abi: Abi, chance: random.Random) -> Mutated | None:
    new = Typedef("vmm_arch_new", Scalar("int"), None, "new.h")
    return rebuilt(abi, typedefs={**abi.typedefs, new.name: new}), {(Kind.ADDED, new.name)}


@mutation
def function_removed(abi: Abi, chance: random.Random) -> Mutated | None:
    if (f := pick(chance, iter(abi.functions))) is None:
        return None
    return replace(abi, functions=without(abi.functions, f)), {(Kind.REMOVED, f.name)}


@mutation
def function_renamed(abi: Abi, chance: random.Random) -> Mutated | None:
    if (f := pick(chance, iter(abi.functions))) is None:
        return None
    new = replace(f, name=fresh_name(f.name))
    return replace(abi, functions=instead(abi.functions, f, new)), {(Kind.RENAMED, f.name)}


def with_parameter(
    abi: Abi, chance: random.Random, change: Callable[[str, Type], tuple[str, Type]], kind: Kind
) -> Mutated | None:
    def known(f: FunctionPrototype) -> bool:
        return isinstance(f.type, Function) and len(f.type.parameters) > 0

    if (f := pick(chance, filter(known, abi.functions))) is None:
        return None
    assert isinstance(f.type, Function)
    first, *others = f.type.parameters
    new = replace(f, type=replace(f.type, parameters=(change(*first), *others)))
    return replace(abi, functions=instead(abi.functions, f, new)), {(kind, f.name)}


@mutation
def parameter_retyped(abi: Abi, chance: random.Random) -> Mutated | None:
    return with_parameter(abi, chance, lambda name, of: (name, Array(of, 9)), Kind.RETYPED)


@mutation
def parameter_renamed(abi: Abi, chance: random.Random) -> Mutated | None:
    return with_parameter(abi, chance, lambda name, of: ("vmm_arch_new", of), Kind.RESTATED)


# -- what is not declared ---------------------------------------------------------------------


@mutation
def model_changed(abi: Abi, chance: random.Random) -> Mutated | None:
    changes: list[dict[str, Any]] = [
        {"byte_order": "big" if abi.model.byte_order == "little" else "little"},
        {"signed_char": not abi.model.signed_char},
    ]
    change = chance.choice(changes)
    return replace(abi, model=replace(abi.model, **change)), {(Kind.RETYPED, "the data model")}


@mutation
def omission_added(abi: Abi, chance: random.Random) -> Mutated | None:
    new = Omission("macro", "VMM_ARCH_NEW", "new.h", "takes arguments")
    return replace(abi, omissions=(*abi.omissions, new)), {(Kind.ADDED, new.name)}


@mutation
def nothing_but_the_headers_digest(abi: Abi, chance: random.Random) -> Mutated | None:
    return replace(abi, headers_digest="0" * 64, omissions=()), set()
