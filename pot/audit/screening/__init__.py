"""Cheap checks over all segments, without re-execution."""
