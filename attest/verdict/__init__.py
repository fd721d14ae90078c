"""Verdict: the verification procedure and what it needs."""
