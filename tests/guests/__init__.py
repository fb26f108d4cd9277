"""Guests: each an assembly file and, beside it, the scenario that it is to play with its host.

``NAME.S`` is the guest's code. ``NAME.py`` has ``MACHINE``, what it wants to run on, and
``scenario(guest)``: what the guest does and is answered, exit by exit, and the state it ends in.
A scenario is the same for every hypervisor.
"""
