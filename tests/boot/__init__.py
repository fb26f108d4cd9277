"""Multiboot kernels made for tests."""
