"""The modules of targets that are no part of the package: a folder of them, to import from.

A module imports the base classes of its records from ``vmm_arch``, or from a copy beside it.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from vmm_arch_gen.abi.model import VerifiedAbi
from vmm_arch_gen.generate.generate import copies, render_abi_module
from vmm_arch_gen.generate.values import Values

_PACKAGE = "vmm_arch/abi"


def own_module(templates: Path, abi: VerifiedAbi, values: Values, *, standalone: bool) -> bytes:
    """A target's module; with ``standalone`` it imports from :func:`runtime`, beside it."""
    text = render_abi_module(templates, abi, values, facts="")
    return _beside(text) if standalone else text.encode()


def runtime(templates: Path) -> dict[PurePosixPath, bytes]:
    """What standalone modules import, as files of their folder, which they make a package."""
    found = {
        name.relative_to(_PACKAGE): _beside(held.decode())
        for name, held in copies(templates, _PACKAGE).items()
    }
    return {**found, PurePosixPath("py.typed"): b""}


def _beside(text: str) -> bytes:
    """A module that imports from its own package what it did from ours."""
    text = re.sub(r"^( *)from vmm_arch\.abi\.(\w+) ", r"\1from .\2 ", text, flags=re.M)
    return text.replace(":func:`vmm_arch.abi.declare`", ":func:`declare` of its package").encode()
