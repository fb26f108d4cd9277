"""Test guests that check whether a hypervisor does what this package promises: ``vmm-arch selftest``."""
