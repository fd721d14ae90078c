"""Which segments are re-executed, who chose them, and what that costs."""
