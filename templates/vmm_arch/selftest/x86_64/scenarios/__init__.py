"""Scenarios: each describes a guest's run, exit by exit with the answers, and its final state.

A module has ``MACHINE``, the machine that the guest needs, and ``scenario(guest)``. It is the same for
every hypervisor. The guest's code is in :mod:`vmm_arch.selftest.x86_64.code`.
"""
