"""Guests that show whether a hypervisor does what this package promises: ``vmm-arch selftest``."""
