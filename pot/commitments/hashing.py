"""Hashing: the record digest, the two tree hashers and the contexts that keep every hash in its own domain.

Spec: `specs/commitments.md`, "Hashes".

Shows: nothing by itself. A digest of a record is plain BLAKE3-256 of the view's bytes, so any `b3sum` gives the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, Protocol

from blake3 import blake3

from pot.canonical import derive

__all__ = [
    "BLAKE3",
    "DIGEST_BYTES",
    "EMPTY_CONTEXT",
    "LEAF_CONTEXT",
    "NODE_CONTEXT",
    "SHA256",
    "Blake3Hasher",
    "Hasher",
    "Sha256Hasher",
    "file_digests",
    "record_digest",
]

DIGEST_BYTES: Final = 32
LEAF_CONTEXT: Final = "pot/leaf/v1"
NODE_CONTEXT: Final = "pot/node/v1"
EMPTY_CONTEXT: Final = "pot/empty-tree/v1"


class Hasher(Protocol):
    """How a tree hashes a leaf's input, two children, and nothing at all; every result has 32 bytes."""

    @property
    def empty(self) -> bytes:
        """Root of the tree without leaves."""

    def leaf(self, data: bytes) -> bytes:
        """Hash of one leaf's input."""

    def node(self, left: bytes, right: bytes) -> bytes:
        """Hash of an inner node over its two children."""


class Sha256Hasher:
    """RFC 9162 2.1.1: leaf = SHA-256(0x00 || data), node = SHA-256(0x01 || left || right), empty = SHA-256()."""

    empty: bytes = hashlib.sha256(b"").digest()

    def leaf(self, data: bytes) -> bytes:
        """Hash of one leaf's input, 32 bytes."""
        return hashlib.sha256(b"\x00" + data).digest()

    def node(self, left: bytes, right: bytes) -> bytes:
        """Hash of an inner node, 32 bytes."""
        return hashlib.sha256(b"\x01" + left + right).digest()


class Blake3Hasher:
    """Keyed BLAKE3: leaf and node have different keys, so that neither can pass as the other.

    The keys are the 32-byte outputs of BLAKE3's key derivation with `LEAF_CONTEXT` and `NODE_CONTEXT` over no input.
    """

    empty: bytes = derive(EMPTY_CONTEXT)
    _leaf_key: bytes = derive(LEAF_CONTEXT)
    _node_key: bytes = derive(NODE_CONTEXT)

    def leaf(self, data: bytes) -> bytes:
        """Hash of one leaf's input, 32 bytes."""
        return blake3(data, key=self._leaf_key).digest()

    def node(self, left: bytes, right: bytes) -> bytes:
        """Hash of an inner node, 32 bytes."""
        return blake3(left + right, key=self._node_key).digest()


SHA256: Final[Hasher] = Sha256Hasher()
BLAKE3: Final[Hasher] = Blake3Hasher()


def record_digest(data: bytes) -> bytes:
    """Plain BLAKE3-256 of a record's view bytes, 32 bytes."""
    return blake3(data).digest()


def file_digests(chunks: Iterable[bytes]) -> tuple[str, str, int]:
    """SHA-256 and BLAKE3-256 (hex) of a stream, and its length in bytes."""
    sha256, plain, size = hashlib.sha256(), blake3(), 0
    for chunk in chunks:
        sha256.update(chunk)
        plain.update(chunk)
        size += len(chunk)
    return sha256.hexdigest(), plain.hexdigest(), size
