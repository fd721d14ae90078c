"""Evidence: what a training run leaves behind, and how it is proven. Knows nothing of signatures or HTTP."""

__version__ = "0.1.0"
