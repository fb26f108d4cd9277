"""What is x86_64's and no hypervisor's: registers, tables, CPUID, and where a guest begins."""
