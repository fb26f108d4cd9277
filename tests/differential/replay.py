"""Compares what is recorded with a backend: ``python3 -m differential.replay kvm-amd``.

For machines where nothing but the product is: the difference, if any, goes to the standard output.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import closing
from time import monotonic

from vmm_arch.x86_64.vocabulary import BITS

from differential.compare import Comparison, rules
from differential.executors import BackendExecutor
from differential.recorded import RECORDED, Player, read


def main(name: str, backend: str = "kvm_x86_64") -> int:
    found = 0
    recordings = read(RECORDED.read_bytes())
    arch = importlib.import_module(f"vmm_arch.{backend}")
    began = monotonic()
    used = set[str]()
    with closing(BackendExecutor(name, arch)) as executor:
        for recorder in dict.fromkeys(one.executor for one in recordings):
            mine = [one for one in recordings if one.executor == recorder]
            player = Player(mine)
            comparing = Comparison([player, executor], rules(BITS), player.instruction, BITS)
            for one in mine:
                if finding := comparing.run(one.guest):
                    found += 1
                    print(f"{one.executor}'s guest {one.seed}: {finding}")
            for pair, count in comparing.tally.compared.items():
                print(f"{pair}: {count} steps compared", file=sys.stderr)
            print(dict(comparing.tally.ends), file=sys.stderr)
            used |= comparing.tally.used.keys()
    print(f"{monotonic() - began:.0f} s; rules used: {sorted(used)}", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
