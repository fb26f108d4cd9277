"""Arch functions: contract, states and hypervisors in, the text of plans and operations out."""
