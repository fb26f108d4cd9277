"""Where things lie: templates and header facts, and the folders that output goes to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vmm_arch_gen.diagnostics import InputError, Problem


@dataclass(frozen=True)
class Project:
    """The inputs of this generator, and the checkout that they belong to, if any."""

    templates: Path
    headers: Path
    checkout: Path | None
    """None for an installed generator, which never writes into its own installation."""

    @property
    def targets_file(self) -> Path:
        return self.headers / "targets.toml"

    @property
    def values_file(self) -> Path:
        return self.headers / "values.toml"

    @property
    def abi(self) -> Path:
        return self.headers / "abi"

    def output(self, given: Path | None, *default: str) -> Path:
        """The folder to write to: the one given, else the checkout's own."""
        if given is not None:
            return given
        if self.checkout is None:
            raise InputError(
                Problem(
                    "--output",
                    "this generator is installed, not a checkout, and has no folder of its own",
                    "name the folder to write to with --output DIR",
                )
            )
        return self.checkout.joinpath(*default)


@cache
def project() -> Project:
    """Find the templates and headers: package data in a wheel, else the checkout around it."""
    package = Path(__file__).resolve().parent
    checkout = package.parent.parent
    for root in (package, checkout):
        if (root / "headers" / "targets.toml").is_file() and (root / "templates").is_dir():
            in_checkout = checkout if root == checkout else None
            return Project(root / "templates", root / "headers", in_checkout)
    raise InputError(
        Problem(
            str(package),
            "neither this package nor the folder around it has templates/ and headers/",
            "install vmm-arch again, or run from a complete checkout",
        )
    )
