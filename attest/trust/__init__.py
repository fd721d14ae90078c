"""Trust: who signed."""
