"""Each rule of ORDER is needed: with it the other way round, a state comes out other than it went in.

A mutant is the backend as it is generated from tables in which one rule says "after" for "before".
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from backends import BACKENDS, backend_module
from order_mutants import mutant, rules
from order_scenarios import SCENARIOS, a_latched_sipi_is_read_once, lost, needs
from vmm_arch_gen.project import project

HYPERVISORS = ("kvm", "whp")


def test_every_rule_has_something_that_needs_it() -> None:
    named = {(hypervisor, str(rule)) for hypervisor in HYPERVISORS for rule in rules(hypervisor)}
    assert named == SCENARIOS.keys()


@pytest.mark.parametrize(("hypervisor", "rule"), SCENARIOS)
def test_in_the_right_order_nothing_is_lost(hypervisor: str, rule: str) -> None:
    arch = backend_module(f"{hypervisor}_x86_64")
    if needs(hypervisor, rule, arch):
        SCENARIOS[hypervisor, rule](arch)


@pytest.mark.parametrize(("hypervisor", "rule"), SCENARIOS)
def test_the_other_way_round_something_is_lost(hypervisor: str, rule: str, tmp_path: Path) -> None:
    BACKENDS[f"{hypervisor}_x86_64"].prepare()
    text = mutant(project(), hypervisor, rule, tmp_path)
    module = ModuleType(f"vmm_arch.{hypervisor}_x86_64_mutant")
    sys.modules[module.__name__] = module
    exec(compile(text, f"<{rule}>", "exec"), vars(module))
    if needs(hypervisor, rule, module):
        assert lost(SCENARIOS[hypervisor, rule], module)


@pytest.mark.parametrize("hypervisor", HYPERVISORS)
def test_a_latched_start_is_saved_whole(hypervisor: str) -> None:
    """Also by a hypervisor that has the vCPU's activity among its registers."""
    BACKENDS[f"{hypervisor}_x86_64"].prepare()
    a_latched_sipi_is_read_once(backend_module(f"{hypervisor}_x86_64"))
