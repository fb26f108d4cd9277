"""Backends as they are generated from tables in which one rule of ORDER is the other way round."""

from __future__ import annotations

from pathlib import Path

from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.arch.hypervisor import read_hypervisor
from vmm_arch_gen.arch.order import Rule
from vmm_arch_gen.generate.backend_module import render_backend_module
from vmm_arch_gen.project import Project, project


def rules(hypervisor: str) -> tuple[Rule, ...]:
    return read_hypervisor(project().templates, hypervisor, "x86_64").rules


def mutant(paths: Project, hypervisor: str, rule: str, folder: Path) -> str:
    """The text of a backend's module with one rule the other way round, made in an empty folder."""
    (wrong,) = (found for found in rules(hypervisor) if str(found) == rule)
    for path in paths.templates.rglob("*"):
        link = folder / path.relative_to(paths.templates)
        if path.is_dir():
            link.mkdir(parents=True, exist_ok=True)
        else:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    state = folder / f"hypervisors/{hypervisor}/x86_64/state.py"
    text = state.read_text()
    right = f'        "{wrong.verb} {wrong.first}",\n        "before",\n        "{wrong.verb} {wrong.second}",'
    assert text.count(right) == 1
    state.unlink()
    state.write_text(text.replace(right, right.replace('"before"', '"after"')))
    target = f"{hypervisor}_x86_64"
    draft = render_backend_module(folder, read_abi_file(paths.abi / f"{target}.abi"), "# A mutant")
    return draft.rendered.text
