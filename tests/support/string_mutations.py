"""Changes made on purpose to macros that are texts, each with what ``diff`` has to say about it."""

from __future__ import annotations

import random
from dataclasses import replace

from mutations import MUTATIONS as MUTATIONS
from mutations import Mutated, fresh_name, instead, mutation, pick, without
from vmm_arch_gen.abi.model import Abi, Constant, Omission, String
from vmm_arch_gen.compare.model import Kind


def string(abi: Abi, chance: random.Random) -> String | None:
    taken = {o.name for o in abi.omissions}
    return pick(chance, (s for s in abi.strings if s.name not in taken))


def replaced(abi: Abi, old: String, new: String, kind: Kind) -> Mutated:
    return replace(abi, strings=instead(abi.strings, old, new)), {(kind, old.name)}


@mutation
def string_removed(abi: Abi, chance: random.Random) -> Mutated | None:
    if (s := string(abi, chance)) is None:
        return None
    return replace(abi, strings=without(abi.strings, s)), {(Kind.REMOVED, s.name)}


@mutation
def string_left_out(abi: Abi, chance: random.Random) -> Mutated | None:
    if (s := string(abi, chance)) is None:
        return None
    omission = Omission("macro", s.name, s.header, 'is a string of wide characters: L"x"')
    changed = replace(abi, strings=without(abi.strings, s), omissions=(omission,))
    return changed, {(Kind.REMOVED, s.name)}


@mutation
def string_renamed(abi: Abi, chance: random.Random) -> Mutated | None:
    if (s := string(abi, chance)) is None:
        return None
    return replaced(abi, s, replace(s, name=fresh_name(s.name)), Kind.RENAMED)


@mutation
def string_changed(abi: Abi, chance: random.Random) -> Mutated | None:
    """By one bit of one char."""
    s = pick(chance, (s for s in abi.strings if s.value))
    if s is None:
        return None
    at = chance.randrange(len(s.value))
    char = s.value[at] ^ 1 << chance.randrange(8)
    new = s.value[:at] + bytes([char]) + s.value[at + 1 :]
    return replaced(abi, s, replace(s, value=new), Kind.CHANGED)


@mutation
def string_longer(abi: Abi, chance: random.Random) -> Mutated | None:
    if (s := string(abi, chance)) is None:
        return None
    return replaced(abi, s, replace(s, value=s.value + chance.randbytes(1)), Kind.CHANGED)


@mutation
def string_in_another_header(abi: Abi, chance: random.Random) -> Mutated | None:
    if (s := string(abi, chance)) is None:
        return None
    return replaced(abi, s, replace(s, header="another.h"), Kind.RESTATED)


@mutation
def string_becomes_a_number(abi: Abi, chance: random.Random) -> Mutated | None:
    if (s := string(abi, chance)) is None:
        return None
    number = Constant(s.name, chance.randrange(99), 10, s.header)
    changed = replace(abi, strings=without(abi.strings, s), constants=(*abi.constants, number))
    return changed, {(Kind.RETYPED, s.name)}


@mutation
def number_becomes_a_string(abi: Abi, chance: random.Random) -> Mutated | None:
    c = pick(chance, iter(abi.constants))
    if c is None:
        return None
    text = String(c.name, str(c.value).encode(), c.header)
    changed = replace(abi, constants=without(abi.constants, c), strings=(*abi.strings, text))
    return changed, {(Kind.RETYPED, c.name)}


@mutation
def string_added(abi: Abi, chance: random.Random) -> Mutated | None:
    new = String("VMM_ARCH_NEW_NAME", chance.randbytes(chance.randrange(5)), "new.h")
    return replace(abi, strings=(*abi.strings, new)), {(Kind.ADDED, new.name)}
