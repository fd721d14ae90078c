"""What a transcript's chain says, checked without torch and without data."""
