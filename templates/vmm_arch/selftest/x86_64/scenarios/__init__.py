"""Scenarios: each says what a guest does and is answered, exit by exit, and the state it ends in.

A module has ``MACHINE``, what the guest wants to run on, and ``scenario(guest)``. It is the same for
every hypervisor. The guest's code is in :mod:`vmm_arch.selftest.x86_64.code`.
"""
