"""Audit: which segments to re-execute, and the re-execution."""
