"""The committed program repeats a segment, walled in, and what it gave is compared."""
