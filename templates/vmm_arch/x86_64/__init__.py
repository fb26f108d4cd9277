"""x86_64, independent of any hypervisor: registers, tables, CPUID, and guest entry points."""
