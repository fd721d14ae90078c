"""Memorization test, canaries, and the rank tests under them: evidence, never proof."""
