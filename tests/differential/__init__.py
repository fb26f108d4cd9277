"""Random guests, executed step by step by several executors whose states are compared."""
