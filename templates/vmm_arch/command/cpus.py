"""``vmm-arch run --cpus N,LEVEL=N``: how many vCPUs, and how they lie together."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod


@dataclass(frozen=True)
class Cpus:
    """What the user has asked for; None is whatever the levels make."""

    count: int | None = None
    levels: Mapping[str, int] = field(default_factory=dict)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the argument about vCPUs."""
    parser.add_argument(
        "--cpus",
        type=cpus,
        metavar="N[,LEVEL=N…]",
        help="vCPUs (default: 1), and how they lie together: sockets=, dies=, cores=, threads=, each in"
        " the one before, as in 4,threads=2",
    )


def cpus(text: str) -> Cpus:
    """Parse the argument; which levels there are is the CPU's."""
    count, levels = None, {}
    for at, part in enumerate(text.split(",")):
        name, equals, number = part.rpartition("=")
        if not number.isascii() or not number.isdigit() or int(number) == 0:
            raise argparse.ArgumentTypeError(
                f"{part!r} is not a number such as 4, or a level: cores=4"
            )
        if not equals and at:
            raise argparse.ArgumentTypeError(f"{part!r}: the number of vCPUs comes first")
        if name in levels:
            raise argparse.ArgumentTypeError(f"{name} is there twice")
        if equals:
            levels[name] = int(number)
        else:
            count = int(number)
    return Cpus(count, levels)


def completed(wanted: Cpus, names: Sequence[str], free: Sequence[str]) -> dict[str, int]:
    """The number at each level.

    If fewer are given than make up the vCPUs, the first of ``free`` that is not given gets the others.
    Raises ValueError, which lists everything that is wrong.
    """
    unknown = [name for name in wanted.levels if name not in names]
    if unknown:
        raise ValueError(
            f"--cpus: no such level: {', '.join(unknown)}; there are {', '.join(names)}"
        )
    levels = dict(wanted.levels)
    given = prod(levels.values())
    count = given if wanted.count is None else wanted.count
    others, left = divmod(count, given)
    missing = next((name for name in free if name not in levels), None)
    if left or (others > 1 and missing is None) or others == 0:
        raise ValueError(f"--cpus: {_listed(levels)} are {given} vCPUs, and {count} are asked for")
    if missing is not None:
        levels[missing] = others
    return levels


def _listed(levels: Mapping[str, int]) -> str:
    return ",".join(f"{name}={number}" for name, number in levels.items())
