"""`tiles50/1`: training records are cut into tiles of 50 bytes; X is looked at from every offset.

Spec: `specs/views/tiles50-1.md`, with the proof that 99 bytes in common are enough to share a key.

Shows: without a key in common, no run of 99 normalised bytes is in common. Does not show: shorter runs.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pot.commitments.spans import Spans
from pot.data.views.grams import GramKeys, Role, keys_at

__all__ = ["TILE", "tiles"]

TILE: Final = 50


def tiles(spans: Spans, role: Role, key: bytes | None) -> GramKeys:
    """The keys of normalised texts: of full tiles (training), of 50 bytes from each offset (exclusion)."""
    stride = TILE if role == "training" else 1
    lengths = np.diff(spans.offsets)
    counts = np.where(lengths < TILE, 0, (lengths - TILE) // stride + 1)
    # the i-th gram of all is the (i - first)-th of its record
    first = np.cumsum(counts) - counts
    starts = stride * np.arange(int(counts.sum()), dtype=np.int64)
    starts += np.repeat(spans.offsets[:-1] - stride * first, counts)
    return counts, keys_at(spans.data, starts, TILE, key)
