"""The run's seed and what is derived from it.

Spec: `specs/commitments.md`, "Seed". The seed depends on the pre-commitment and on a nonce that somebody chooses after
it; every use of randomness takes its own labelled expansion, so that no two uses share bits.

Shows: with a verifier's nonce, that the seed could not be known when the pre-commitment was written.
Does not show: anything about a nonce that the trainer chose alone.
"""

from __future__ import annotations

from typing import Final

from pot.canonical import derive
from pot.errors import Malformed, UsageError

__all__ = ["EXPAND_CONTEXT", "NONCE_BYTES", "SEED_BYTES", "SEED_CONTEXT", "expand", "integer", "run_seed"]

SEED_CONTEXT: Final = "pot/seed/v1"
EXPAND_CONTEXT: Final = "pot/expand/v1"
SEED_BYTES: Final = 32
NONCE_BYTES: Final = 32


def run_seed(precommit_sha256: str, nonce: bytes) -> bytes:
    """The run's 32-byte seed from the pre-commitment's SHA-256 (hex) and the nonce (32 bytes). Raises `Malformed`."""
    try:
        digest = bytes.fromhex(precommit_sha256)
    except ValueError:
        digest = b""
    if len(digest) != 32 or digest.hex() != precommit_sha256:
        raise Malformed("seed: the pre-commitment's digest is not 64 lowercase hex digits")
    if len(nonce) != NONCE_BYTES:
        raise Malformed(f"seed: the nonce has {len(nonce)} bytes, expected {NONCE_BYTES}")
    return derive(SEED_CONTEXT, digest, nonce)


def expand(seed: bytes, label: str) -> bytes:
    """32 bytes for one use of randomness, named by `label`. Raises `UsageError` unless the seed has 32 bytes."""
    if len(seed) != SEED_BYTES:
        raise UsageError(f"seed: {len(seed)} bytes, expected {SEED_BYTES}")
    return derive(EXPAND_CONTEXT, seed, label.encode())


def integer(seed: bytes, label: str, bits: int = 63) -> int:
    """A uniform integer below 2^`bits`: the expansion read little endian, its low `bits` bits. Raises `UsageError`."""
    if not 1 <= bits <= 256:
        raise UsageError(f"seed: an integer of {bits} bits was asked for, 1 to 256 are possible")
    return int.from_bytes(expand(seed, label), "little") & ((1 << bits) - 1)
