"""Lowering of a traced PyTorch step to a `Program`: rules by operation, and the bits of every rounding."""
