"""The code of guests in assembly; the scenarios that they play are ``vmm_arch.selftest``'s."""
