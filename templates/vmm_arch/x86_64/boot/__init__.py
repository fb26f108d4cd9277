"""Kernels of every operating system for x86_64: their formats, and the boot protocols but Linux's."""
