"""``python -m vmm_arch_gen``: the same as the ``vmm-arch-gen`` command."""

from vmm_arch_gen.cli import main

main(prog_name="vmm-arch-gen")
