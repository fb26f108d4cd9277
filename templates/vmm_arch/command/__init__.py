"""The ``vmm-arch`` command: a reference VMM on the public API, and tools that examine the host."""
