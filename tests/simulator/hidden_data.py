"""Hidden training data, a set X, an asker and an answerer, in memory; tests bend them into lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from pot.commitments.dataset import DatasetCommitment, Role, Shard, commit_digests
from pot.commitments.hiding import HidingKey

VIEW = "text/1"
KEY = HidingKey("ecvrf/1", bytes(range(32)))


@dataclass(frozen=True)
class Listed:
    """A commitment with its digests: what `pot.data.commit.Committed` offers."""

    commitment: DatasetCommitment
    digests: NDArray[np.uint8]

    @property
    def keys(self) -> NDArray[np.uint64]:
        return np.unique(np.ascontiguousarray(self.digests[:, :8]).view(">u8").reshape(-1).astype(np.uint64))

    @property
    def listing(self) -> bytes:
        return self.digests.tobytes()


def plain_digests(texts: Sequence[str], key: bytes | None = None) -> NDArray[np.uint8]:
    joined = b"".join(blake3(text.encode(), key=key).digest() for text in texts)
    return np.frombuffer(joined, np.uint8).reshape(-1, 32)


def listed(texts: Sequence[str], role: Role = "training", key: HidingKey | None = None, view: str = VIEW) -> Listed:
    """Commit to texts, hidden if a key is given."""
    digests = plain_digests(texts, None if key is None else key.leaf_key)
    if key is not None and key.leaf_key is None:
        digests = key.blind(digests)
    shard = Shard(name="all", bytes="1", records=str(len(texts)), sha256="0" * 64, blake3="0" * 64)
    hiding: Any = None if key is None else key.hiding
    size = sum(len(text.encode()) for text in texts)
    return Listed(commit_digests(role, view, digests.reshape(-1), size, [shard], hiding=hiding), digests)
