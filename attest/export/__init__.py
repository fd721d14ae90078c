"""Exports: the report in other forms."""
