"""The rules of ORDER on a stock kernel's KVM, whose guests have time stamp counters of their own."""

from __future__ import annotations

from pathlib import Path

import order_scenarios
from order_mutants import mutant, rules
from vmm_arch_gen.project import project

from nested.architecture import AMD, KERNELS
from nested.scenarios import PRODUCT
from nested.test_nested import machine_of


def test_each_rule_is_needed(tmp_path: Path) -> None:
    files: dict[str, bytes | Path] = {
        "vmm_arch": PRODUCT,
        "order_scenarios.py": Path(order_scenarios.__file__),
    }
    names = [str(rule) for rule in rules("kvm")]
    for number, rule in enumerate(names):
        text = mutant(project(), "kvm", rule, tmp_path / str(number))
        files[f"mutant_{number}.py"] = text.encode()
    pairs = [f"{rule}=mutant_{number}" for number, rule in enumerate(names)]
    command = ["python3", "order_scenarios.py", "kvm", *pairs]
    result = machine_of(AMD, KERNELS[0]).run(files, command, timeout=900)
    said = dict(line.partition(": ")[::2] for line in result.stdout.splitlines())
    assert said.keys() == {f"{rule}, {way}" for rule in names for way in ("right", "wrong")}
    for rule in names:
        assert said[f"{rule}, right"] == "kept"
        assert said[f"{rule}, wrong"] != "kept", f"{rule}: nothing needs it"
