"""Trust: who signed, with which key."""
