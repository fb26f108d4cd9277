"""In which order state is read and written: rules, each with its reason and source, and what follows.

A rule of the table ORDER says of two steps which comes first. The order of all steps is the table of
sinks', as far as the rules allow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vmm_arch_gen.arch.tables import Rows
from vmm_arch_gen.diagnostics import InputError, Problem, did_you_mean

VERBS = ("read", "write")
_EXAMPLE = '("write sregs", "before", "write lapic", "because …", "where that can be read")'


@dataclass(frozen=True)
class Rule:
    """That one step comes before another one."""

    verb: str
    first: str
    """A sink."""
    second: str
    because: str
    source: str
    where: str

    def __str__(self) -> str:
        return f"{self.verb} {self.first} before {self.second}"


def make_rules(rows: Rows, scopes: Mapping[str, str], problems: list[Problem]) -> list[Rule]:
    """The rules of a table; ``scopes`` says of each step's subject what it belongs to.

    Only steps that belong to the same can be ordered.
    """
    rules: dict[tuple[str, str, str], Rule] = {}
    for row, where in rows:
        rule = _rule(row, where)
        if rule is None:
            problems.append(Problem(where, f"ORDER: {row!r} is not a rule", f"write {_EXAMPLE}"))
            continue
        unknown = [name for name in (rule.first, rule.second) if name not in scopes]
        key = (rule.verb, rule.first, rule.second)
        what = remedy = ""
        if unknown:
            what = f"there is no sink {unknown[0]}"
            remedy = f"{did_you_mean(unknown[0], scopes)}the sinks are {', '.join(scopes)}"
        elif scopes[rule.first] != scopes[rule.second]:
            what = f"{rule.first} belongs to a {scopes[rule.first]} and {rule.second} does not"
            remedy = 'order it with "vcpus", or remove the rule'
        elif rule.first == rule.second:
            what, remedy = f"{rule.first} cannot come before itself", "name two sinks"
        elif key in rules:
            what, remedy = f"{rule} is said twice", f"remove one; the first is {rules[key].where}"
        if what:
            problems.append(Problem(where, f"ORDER: {what}", remedy))
        else:
            rules[key] = rule
    return list(rules.values())


def _rule(row: object, where: str) -> Rule | None:
    match row:
        case (
            str() as left,
            "before" | "after" as how,
            str() as right,
            str() as why,
            str() as from_,
        ):
            first, second = (left, right) if how == "before" else (right, left)
            verb, _, subject = first.partition(" ")
            other, _, following = second.partition(" ")
            if verb == other and verb in VERBS and subject and following and why and from_:
                return Rule(verb, subject, following, why, from_, where)
    return None


def ordered(verb: str, names: Sequence[str], rules: Iterable[Rule]) -> list[str]:
    """Some steps in the order that the rules ask for, else as they are given.

    InputError if the rules contradict each other, with those that do.
    """
    apply = [r for r in rules if r.verb == verb and r.first in names and r.second in names]
    left = list(names)
    done: list[str] = []
    while left:
        blocked = {rule.second for rule in apply if rule.first in left}
        free = next((name for name in left if name not in blocked), None)
        if free is None:
            cycle = _cycle(left, [rule for rule in apply if {rule.first, rule.second} <= {*left}])
            said = "; ".join(f"{rule}, {rule.where}" for rule in cycle)
            what = f"ORDER: the rules contradict each other: {said}"
            raise InputError(Problem(cycle[0].where, what, "remove or correct one of them"))
        done.append(free)
        left.remove(free)
    return done


def _cycle(left: Collection[str], rules: Sequence[Rule]) -> list[Rule]:
    """Rules that lead from a step back to itself. Each step that is left has one before it."""
    before = {rule.second: rule for rule in rules}
    at = next(iter(left))
    path: list[Rule] = []
    seen: dict[str, int] = {}
    while at not in seen:
        seen[at] = len(path)
        path.append(before[at])
        at = before[at].first
    return list(reversed(path[seen[at] :]))
