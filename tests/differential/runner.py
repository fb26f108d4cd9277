"""Differential fuzzing as a command: see its --help, and the README beside it."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "support")]

from backends import backend_module
from vmm_arch.x86_64.vocabulary import BITS

from differential.compare import Comparison, Finding, rules
from differential.disassembly import instruction
from differential.executors import BackendExecutor, Executor, PlantingExecutor
from differential.grammar import KINDS
from differential.guests import MODES, Guest
from differential.shrink import ready_to_paste, shrink
from differential.unicorn_executor import UnicornExecutor

EXECUTORS: Mapping[str, Callable[[], Executor]] = {
    "kvm": lambda: BackendExecutor("kvm", backend_module("kvm_x86_64")),
    "whp": lambda: PlantingExecutor("whp", backend_module("whp_x86_64")),
    "unicorn": UnicornExecutor,
}
_EVERY = 2.0
"""Seconds between two lines of progress."""


def comparison(names: list[str], stack: ExitStack) -> Comparison:
    """The executors of these names, ready; closed with the stack."""
    executors = [stack.enter_context(closing(EXECUTORS[name]())) for name in names]
    return Comparison(executors, rules(BITS), instruction, BITS)


def guest_of(seed: int, number: int, modes: tuple[str, ...] = MODES, kinds: str = "all") -> Guest:
    """The guest of a number, which is the same in every run with the seed."""
    return Guest.random(f"{seed}/{number}", modes, kinds=kinds)


def shrunk(finding: Finding, comparing: Comparison) -> Finding:
    """The same as a small guest, with the two executors that differ."""
    pair = [one for one in comparing.executors if one.name in finding.executors]
    small = Comparison(pair, comparing.rules, instruction, BITS)
    return shrink(finding, small.run)


def main() -> int:
    arguments = _parser().parse_args()
    names = arguments.executors.split(",")
    modes = tuple(arguments.modes.split(","))
    seen: Counter[tuple[object, ...]] = Counter()
    with ExitStack() as stack:
        comparing = comparison(names, stack)
        tally = comparing.tally
        began = told = time.monotonic()
        number = arguments.first
        while tally.steps < arguments.steps and len(seen) < arguments.findings:
            finding = comparing.run(guest_of(arguments.seed, number, modes, arguments.kinds))
            if finding:
                kind = (finding.executors, finding.guest.mode, finding.instruction.split()[0])
                seen[kind] += 1
                if seen[kind] == 1:
                    print(f"\nguest {number} of seed {arguments.seed}:", flush=True)
                    print(ready_to_paste(shrunk(finding, comparing)), flush=True)
            number += 1
            if (now := time.monotonic()) - told > _EVERY and not arguments.quiet:
                told = now
                line = f"{tally.steps:,} steps, {tally.guests:,} guests, {len(seen)} found"
                print(f"\r{line}, {tally.steps / (now - began):,.0f}/s ", end="", file=sys.stderr)
        seconds = time.monotonic() - began
    print(
        f"\nseed {arguments.seed}: {tally.steps:,} steps of {tally.guests:,} guests, {seconds:,.0f} s"
    )
    for pair, count in tally.compared.items():
        print(f"  {pair}: {count:,} steps compared")
    print("  guests ended: " + ", ".join(f"{why} {count:,}" for why, count in tally.ends.items()))
    print("  rules used: " + ", ".join(f"{name} {n:,}" for name, n in tally.used.most_common()))
    for rule in comparing.unused():
        print(f"  rule without use: {rule}")
    print(f"  {sum(seen.values())} unexplained differences of {len(seen)} kinds")
    return 1 if seen else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Runs random guests step by step on several executors and compares all state"
        " after each step. What no rule of quirks.toml explains is shrunk and printed as a test.",
        epilog="Exit status 1 if anything was found. A guest is the same in every run that gives its"
        " seed and, as --first, its number.",
    )
    parser.add_argument("--steps", type=int, default=20_000, help="of the first executor (20,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first guest (0)")
    parser.add_argument(
        "--executors",
        default="kvm,unicorn",
        help=f"of {', '.join(EXECUTORS)}: the first is what the others are compared with",
    )
    parser.add_argument("--modes", default=",".join(MODES), help="of the guests")
    parser.add_argument("--kinds", choices=KINDS, default="all", help="of instructions (all)")
    parser.add_argument("--findings", type=int, default=20, help="stop after so many kinds (20)")
    parser.add_argument("--quiet", action="store_true", help="no line of progress")
    return parser


if __name__ == "__main__":
    sys.exit(main())
