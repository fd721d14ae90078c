"""Commitments: hashing, Merkle trees, set trees, datasets, seeds, order, state."""
