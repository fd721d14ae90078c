"""The data of the story: scikit-learn's digits (1,797 images of 8 x 8, UCI), split and written as JSON lines.

A record is `{"image": [[0..16] * 8] * 8, "label": 0..9}`. The split is one seeded permutation: 1,397 images to train
the parent, 100 other ones to fine-tune the child, 300 to test both. X1 is 200 of the test images, so nothing was
trained on it; X2 is 197 of the test images and 3 of the training images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pot.canonical import canonical_bytes, write_file
from pot.errors import MissingExtra

__all__ = ["FINE_TUNE", "OVERLAP", "TEST", "TRAIN", "X_SIZE", "Split", "write_digits"]

TRAIN: Final = 1397
FINE_TUNE: Final = 100
TEST: Final = 300
X_SIZE: Final = 200
OVERLAP: Final = 3  # how many of X2's images were trained on


@dataclass(frozen=True)
class Split:
    """The five files of the story, each one JSON object a line."""

    train: Path
    fine_tune: Path
    test: Path
    x1: Path
    x2: Path


def write_digits(folder: Path) -> Split:
    """Write the five files into `folder`. Raises `MissingExtra` without scikit-learn."""
    try:
        import numpy as np
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtra("demo", "the demo's data, scikit-learn's digits,") from None
    digits = load_digits()
    records: list[dict[str, Any]] = [
        {"image": [[int(pixel) for pixel in row] for row in image], "label": int(label)}
        for image, label in zip(digits.images, digits.target, strict=True)
    ]
    order = np.random.default_rng(0).permutation(len(records)).tolist()
    train = order[:TRAIN]
    fine_tune = order[TRAIN : TRAIN + FINE_TUNE]
    test = order[TRAIN + FINE_TUNE : TRAIN + FINE_TUNE + TEST]
    parts = {
        "train": train,
        "fine-tune": fine_tune,
        "test": test,
        "x1": test[:X_SIZE],
        "x2": train[:OVERLAP] + test[: X_SIZE - OVERLAP],
    }
    paths = {}
    for name, indices in parts.items():
        paths[name] = folder / f"{name}.jsonl"
        write_file(paths[name], b"".join(canonical_bytes(records[index]) + b"\n" for index in indices))
    return Split(paths["train"], paths["fine-tune"], paths["test"], paths["x1"], paths["x2"])
