"""The PC around the CPU: memory map, ports, interrupt lines, ACPI tables."""
