"""The command line: the command `pot`, one module per job."""
