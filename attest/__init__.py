"""Claims: who says what about which model, and the verdict over it."""
