"""The Windows Hypervisor Platform on x86_64: its registers, and its instruction emulator."""
