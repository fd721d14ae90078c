"""Presence: one inclusion proof for many leaves of an ordered tree.

Spec: `specs/commitments.md`, "Presence proof".

Shows / does not show: see `pot.commitments.presence_verify`, which holds the check.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pot.commitments.merkle import LeafTree
from pot.commitments.presence_verify import INDEX_BYTES, MAX_QUERY_LEAVES, PROOF_MAGIC
from pot.errors import LimitExceeded, UsageError

__all__ = ["prove_present"]


def prove_present(tree: LeafTree, indices: Any) -> bytes:
    """One proof that the leaves at `indices` (strictly ascending, any integers) stand there.

    Raises `UsageError` for none, an order that is not ascending or an index outside the tree; `LimitExceeded` for more
    than `MAX_QUERY_LEAVES`.
    """
    nodes: NDArray[np.int64] = np.asarray(indices, np.int64)
    if not len(nodes):
        raise UsageError("presence proof: ask for at least one leaf")
    if len(nodes) > MAX_QUERY_LEAVES:
        raise LimitExceeded(f"presence proof: more than {MAX_QUERY_LEAVES} leaves asked")
    if nodes[0] < 0 or nodes[-1] >= tree.size or bool(np.any(nodes[1:] <= nodes[:-1])):
        raise UsageError(f"presence proof: indices must ascend strictly within a tree of {tree.size} leaves")
    parts = [PROOF_MAGIC, len(nodes).to_bytes(INDEX_BYTES, "little"), nodes.astype("<u8").tobytes()]
    for level in tree.levels[:-1]:
        parents = nodes >> 1
        alone = np.ones(len(nodes), bool)  # not one of two asked neighbours
        both = parents[1:] == parents[:-1]
        alone[1:] &= ~both
        alone[:-1] &= ~both
        lacking = nodes[alone] ^ 1
        parts.append(level[lacking[lacking < len(level)]].tobytes())
        nodes = np.unique(parents)
    return b"".join(parts)
