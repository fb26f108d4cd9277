"""Facts that are older than what is generated from them: what they lack, and which headers have it.

A backend and the modules beside it use names of the raw ABI, and members of its records. Headers of
an older kernel or SDK may not have all of them; the package's own facts say where they come from.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vmm_arch_gen.abi.model import VerifiedAbi
from vmm_arch_gen.diagnostics import Problem
from vmm_arch_gen.generate.names import abi_names, member_name, python_name
from vmm_arch_gen.generate.scopes import unbound


@dataclass(frozen=True)
class Used:
    """What modules use of a target's raw ABI."""

    names: frozenset[str]
    attributes: frozenset[str]
    """All that they name as if it were an attribute, of whatever, also in texts."""

    @classmethod
    def by(cls, texts: Iterable[str], target: str) -> Used:
        """What modules use, by their texts. What they bind nowhere is looked for there, too."""
        names, attributes = set(), set()
        for text in texts:
            tree = ast.parse(text)
            names |= unbound(text) | {name for name, _ in reached(tree, target)}
            for node in ast.walk(tree):
                match node:
                    case ast.ImportFrom(module=module) if module == f"vmm_arch.abi.{target}":
                        names |= {alias.name for alias in node.names}
                    case ast.Attribute(attr=attribute):
                        attributes.add(attribute)
                    case ast.keyword(arg=str(attribute)) | ast.Constant(value=str(attribute)):
                        attributes.add(attribute)
        return cls(frozenset(names), frozenset(attributes))


def reached(tree: ast.Module, target: str) -> Iterator[tuple[str, int]]:
    """The names that a module reaches through the raw ABI's module, ``abi.KVM_EXIT_HLT``: each with
    its line."""
    modules = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "vmm_arch.abi"
        for alias in node.names
        if alias.name == target
    }
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=name) if module in modules:
                yield name, node.lineno


def outdated(where: str, abi: VerifiedAbi, newer: VerifiedAbi, used: Used) -> Iterator[Problem]:
    """Say what is used and lacking in the facts of `where`, by the headers that have it.

    ``newer`` are facts of the same target that the templates are known to be right for.
    """
    lacking: dict[str, list[str]] = {}
    for name, header in _lacking(abi, newer, used):
        lacking.setdefault(header, []).append(name)
    for header, names in lacking.items():
        what = f"lacks {', '.join(names)}, which vmm_arch uses: these are facts of {abi.origin}"
        remedy = (
            f"extract from newer headers: {header} of {newer.origin} has it; or generate without"
            " --abi"
        )
        yield Problem(where, what, remedy)


def _lacking(abi: VerifiedAbi, newer: VerifiedAbi, used: Used) -> Iterator[tuple[str, str]]:
    own = dict(abi_names(abi))
    for name, header in abi_names(newer):
        if name in used.names and name not in own:
            yield name, header
    # What an attribute belongs to cannot be seen in the text. A member that is new in a record
    # which is used, and that no other record has, is it.
    members = {member_name(member) for record in abi.records.values() for member in record.members}
    for key, record in newer.records.items():
        if key in abi.records and python_name(key.split(".")[0]) in used.names:
            for member in record.members:
                name = member_name(member)
                if name in used.attributes and name not in members:
                    yield f"{python_name(key.split('.')[0])}.{name}", record.header
