"""The ``vmm-arch-gen`` command; also ``python -m vmm_arch_gen``."""

from __future__ import annotations

import sys


def run() -> None:
    """Run the command line, or say what has to be installed for it."""
    try:
        from vmm_arch_gen.cli import main
    except ModuleNotFoundError as error:
        print(
            f"error: {error.name}: this package is not installed, and vmm-arch-gen needs it;"
            " pip install 'vmm-arch[generator]', or 'vmm-arch[extract]' to read headers too",
            file=sys.stderr,
        )
        sys.exit(2)
    main(prog_name="vmm-arch-gen")


if __name__ == "__main__":
    run()
