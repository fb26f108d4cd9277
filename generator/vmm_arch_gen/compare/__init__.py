"""What changed between two versions of a target's ABI."""
