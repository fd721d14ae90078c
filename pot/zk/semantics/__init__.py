"""What a step is: programs of integer operations, and how they are run."""
