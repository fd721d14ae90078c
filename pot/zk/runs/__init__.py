"""Runs whose steps can be proven: their states, their inputs taken back, their slack."""
