"""The ``vmm-arch`` command: a reference VMM over the public API, and a look at the host."""
