"""The generator of vmm-arch: from C headers to proven facts, from facts to Python modules.

Start reading at :mod:`vmm_arch_gen.cli`, whose first lines list the pipeline's steps.
"""
