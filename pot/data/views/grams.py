"""From the places of grams in a batch to set keys.

Spec: `specs/commitments.md`, "Listing": a gram's key is the first 8 bytes of its BLAKE3 digest, keyed where leaves are
hidden. Which pieces of a record are its grams is the view's matter (`tiles`, `winnow`, `minhash`).

Shows / does not show: nothing by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pot.commitments.batch import hash_windows, keys_of
from pot.commitments.spans import Spans
from pot.errors import UsageError

__all__ = ["GramKeys", "Role", "Stream", "check_role", "keys_at"]

Role = Literal["training", "exclusion", "inclusion"]

GramKeys: TypeAlias = tuple[NDArray[np.int64], NDArray[np.uint64]]
"""For each record how many keys it has, int64 (n,); and all keys in order, uint64."""

Stream: TypeAlias = Callable[[Spans], GramKeys]
"""Takes a shard's records batch by batch, in order."""

_AT_ONCE: Final = 1 << 15  # grams whose digests are held at a time: 1 MiB, which stays in the cache


def keys_at(data: NDArray[np.uint8], starts: NDArray[np.int64], length: int, key: bytes | None) -> NDArray[np.uint64]:
    """The keys of data[s:s + length] for every s of `starts`, uint64 (n,). Raises `UsageError` for a wrong `key`."""
    found = np.empty(len(starts), np.uint64)
    for at in range(0, len(starts), _AT_ONCE):
        some = starts[at : at + _AT_ONCE]
        found[at : at + len(some)] = keys_of(hash_windows(data, some, length, key))
    return found


def check_role(role: Role, view: str) -> None:
    """Refuse the role in which keys of pieces mean nothing. Raises `UsageError`."""
    if role not in ("training", "exclusion"):
        raise UsageError(
            f"view {view} tells what two sets do not share, not that a record is in one; include under text/1 instead"
        )
