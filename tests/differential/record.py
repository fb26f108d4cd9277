"""Writes recorded.json.gz anew: ``python tests/differential/record.py``."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "support")]

from vmm_arch.x86_64.vocabulary import BITS, STATE

from differential.compare import Comparison, rules
from differential.disassembly import instruction
from differential.executors import SEGMENTS, Elements, Executor
from differential.recorded import RECORDED, Recorder, Recording, written
from differential.runner import EXECUTORS

SEED = 14
GUESTS = {("kvm", "all"): 80, ("kvm", "accesses"): 20, ("unicorn", "vectors"): 40}
"""How many there are of which kind, and who executes them."""
_TIME = ("IA32_MISC_ENABLE",)


def recorded() -> list[Recording]:
    """What is kept: guests of a fixed seed."""
    found: list[Recording] = []
    for (name, kinds), count in GUESTS.items():
        with closing(EXECUTORS[name]()) as executor:
            recorder = Recorder(_Vocabulary(executor), instruction)
            comparing = Comparison([recorder], rules(BITS), instruction, BITS)
            for number in range(count):
                if finding := comparing.run(recorder.begin(f"{SEED}/{number}", kinds)):
                    raise SystemExit(f"record.py: {finding}")
        found += [one for one in recorder.recordings if one.steps]
    return found


class _Vocabulary:
    """An executor, of whose elements only those are kept that the vocabulary has."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.name = executor.name
        self.start, self.step = executor.start, executor.step
        self.adopt, self.read = executor.adopt, executor.read
        self.write, self.close = executor.write, executor.close

    def elements(self) -> Elements:
        return {n: v for n, v in self._executor.elements().items() if n in _KEPT}


_KEPT = (
    {name for group in STATE.values() for name in group}
    | {
        f"{name}.{part}"
        for name in SEGMENTS
        for part in ("selector", "base", "limit", "attributes")
    }
) - set(_TIME)


if __name__ == "__main__":
    RECORDED.write_bytes(written(recorded()))
    print(f"{RECORDED.name}: {RECORDED.stat().st_size:,} bytes")
