"""Which module offers a name: every name has one home, and a backend sees only the modules below it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vmm_arch_gen.abi.model import VerifiedAbi
from vmm_arch_gen.arch.sources import read_python
from vmm_arch_gen.generate.names import abi_names

_ABOVE = ("abi", "command", "protocols", "selftest")
"""Folders of the package that backends do not import from; the raw ABI is named separately."""

# A fixed table, so that the output does not depend on the Python that runs the generator.
_STANDARD_MODULES = (
    "copy", "ctypes", "errno", "io", "itertools", "math", "operator", "os", "queue", "select",
    "selectors", "signal", "socket", "struct", "sys", "threading", "time", "warnings", "weakref",
)  # fmt: skip
_STANDARD_NAMES = {
    "collections.abc": "Buffer Callable Collection Generator Iterable Iterator Mapping"
    " MutableMapping Sequence Set",
    "contextlib": "AbstractContextManager ExitStack closing contextmanager nullcontext suppress",
    "dataclasses": "dataclass field",
    "enum": "Enum IntEnum IntFlag",
    "functools": "cache cached_property lru_cache partial reduce",
    "mmap": "mmap",
    "pathlib": "Path",
    "types": "MappingProxyType ModuleType SimpleNamespace TracebackType",
    "typing": "TYPE_CHECKING Any ClassVar Final Literal NamedTuple NoReturn Protocol Self"
    " TypeAlias TypeVar cast overload",
}


@dataclass(frozen=True)
class Provider:
    """A module, and where each name that it offers is bound; None for a module itself."""

    module: str | None
    names: Mapping[str, str]


STANDARD_LIBRARY = (
    Provider(None, dict.fromkeys(_STANDARD_MODULES, "the standard library")),
    *(
        Provider(module, dict.fromkeys(names.split(), f"the standard library's {module}"))
        for module, names in _STANDARD_NAMES.items()
    ),
)


def providers(templates: Path, name: str, cpu: str, abi: VerifiedAbi) -> list[Provider]:
    """What a hypervisor's backend for a CPU may import: no module of another of either."""
    foreign = {path.name for path in (templates / "hypervisors").iterdir()} - {name}
    foreign |= {path.name for path in (templates / "cpu").iterdir()} - {cpu}
    package = templates / "vmm_arch"
    neutral = [
        Provider(_module(templates, path), public_names(templates, path))
        for path in sorted(package.rglob("*.py"))
        if not path.stem.startswith("__")
        and path.relative_to(package).parts[0] not in _ABOVE
        and not any(_belongs(path.relative_to(package), owner) for owner in foreign)
    ]
    where = f"headers/abi/{abi.target}.abi"
    names = dict.fromkeys((name for name, _ in abi_names(abi)), where)
    own_abi = Provider(f"vmm_arch.abi.{abi.target}", names)
    return [*STANDARD_LIBRARY, *neutral, own_abi]


def _module(templates: Path, path: Path) -> str:
    return ".".join(path.relative_to(templates).with_suffix("").parts)


def _belongs(path: Path, owner: str) -> bool:
    """Whether a module is a hypervisor's or a CPU's: ``whp.py``, ``whp/x86_64/registers.py``."""
    return any(part == owner or part.startswith(f"{owner}_") for part in path.with_suffix("").parts)


def public_names(templates: Path, module: Path) -> dict[str, str]:
    """The names that a plain module binds at its top and that do not begin with ``_``."""
    source = read_python(templates, *module.relative_to(templates).parts)
    found: dict[str, str] = {}
    for name, line in _bound(source.tree.body):
        if not name.startswith("_"):
            found.setdefault(name, source.where(line))
    return found


def _bound(body: Iterable[ast.stmt]) -> Iterator[tuple[str, int]]:
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.Assign(targets=targets):
                for target in targets:
                    yield from _targets(target)
            case ast.AnnAssign(target=target):
                yield from _targets(target)
            case ast.If() | ast.Try():
                yield from _bound([*node.body, *node.orelse])


def _targets(target: ast.expr) -> Iterator[tuple[str, int]]:
    match target:
        case ast.Name(id=name):
            yield name, target.lineno
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            for element in elements:
                yield from _targets(element)
