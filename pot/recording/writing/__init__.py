"""Beside training: snapshots, digests, files of checkpoints, lines of the transcript."""
