"""From proven facts and templates to the Python modules of ``vmm_arch``."""
