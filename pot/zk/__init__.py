"""Step proofs: one training step as an exact zero-knowledge circuit."""
