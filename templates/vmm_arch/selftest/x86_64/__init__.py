"""The scenarios of x86_64, and their guests' code."""
