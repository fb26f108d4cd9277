"""Debugging a guest: a server for gdb's remote protocol, and ELF core dumps."""
