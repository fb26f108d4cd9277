"""Two versions of all targets, compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from vmm_arch_gen.abi.reader import read_abi
from vmm_arch_gen.abi.text import FORMAT, MAGIC
from vmm_arch_gen.compare.compare import compare
from vmm_arch_gen.compare.model import Comparison
from vmm_arch_gen.compare.sources import HeaderFolders, Text, Texts, find_source
from vmm_arch_gen.diagnostics import InputError, Problem, did_you_mean, refuse

Extract = Callable[[Sequence[str], Sequence[Path]], Mapping[str, str]]
"""Gives the .abi text of the named targets, from folders of headers."""


def compare_versions(old: str, new: str, only: Sequence[str], extract: Extract) -> list[Comparison]:
    """What changed for each target that differs; InputError names what cannot be compared."""
    before, after = _texts(find_source(old), find_source(new), only, extract)
    return list(_comparisons(before, after, _targets(before, after, only)))


def _texts(
    old: Texts | HeaderFolders,
    new: Texts | HeaderFolders,
    only: Sequence[str],
    extract: Extract,
) -> tuple[Texts, Texts]:
    known = [source for source in (old, new) if isinstance(source, Texts)]
    targets = list(only) or [name for source in known for name in source.by_target]

    def texts(source: Texts | HeaderFolders) -> Texts:
        if isinstance(source, Texts):
            return source
        if not targets:
            what = "nothing says which target these headers are for"
            raise InputError(Problem(source.given, what, "name it with --only TARGET"))
        found = extract(targets, source.folders)
        return Texts(source.given, {name: Text(text, source.given) for name, text in found.items()})

    return texts(old), texts(new)


def _targets(old: Texts, new: Texts, only: Sequence[str]) -> list[str]:
    sides = (old, new)
    everything = sorted({name for side in sides for name in side.by_target})
    refuse(
        Problem(
            name,
            "neither version has this target",
            f"{did_you_mean(name, everything)}targets: {', '.join(everything)}",
        )
        for name in only
        if name not in everything
    )
    wanted = [name for name in everything if not only or name in only]
    for side, other in (sides, sides[::-1]):
        if side.one_file:  # what else the other has is not meant
            (name,) = side.by_target
            if only and name not in only:
                what = f"holds the facts of {name}, but --only names {', '.join(only)}"
                raise InputError(Problem(side.given, what, "leave --only away"))
            if name not in other.by_target:
                has = ", ".join(sorted(other.by_target))
                what = f"holds the facts of target {name!r}, but {other.given} those of {has}"
                raise InputError(Problem(side.given, what, "name two versions of one target"))
            wanted = [name]
    return wanted


def _comparisons(old: Texts, new: Texts, targets: Sequence[str]) -> Iterator[Comparison]:
    problems: list[Problem] = []
    for name in targets:
        before, after = old.by_target.get(name), new.by_target.get(name)
        if before is not None and after is not None and before.text == after.text:
            continue
        versions = []
        for version in (before, after):
            if version is None:
                continue
            _check_format(version)  # if one is outdated, all are: report one
            try:
                versions.append(read_abi(version.text, version.where, name, exact=False))
            except InputError as error:
                problems += error.problems
        if problems:
            continue
        if before is None:
            yield Comparison(name, None, versions[0].origin)
        elif after is None:
            yield Comparison(name, versions[0].origin, None)
        else:
            yield compare(*versions)
    refuse(problems)


def _check_format(version: Text) -> None:
    """That the text has this generator's format: a revision's file cannot be regenerated in place."""
    first = version.text.partition("\n")[0]
    number = first.removeprefix(f"{MAGIC} ")
    if number.isdigit() and int(number) < FORMAT:
        what = f"has the outdated format {number}; this generator reads {FORMAT}"
        remedy = (
            "extract its headers with this version of vmm-arch (extract --include DIR --output DIR)"
            " and compare that"
        )
        raise InputError(Problem(version.where, what, remedy))
