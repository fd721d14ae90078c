"""Structured reference strings: making one, and what each kind is worth.

Implements `specs/step-proof.md`, section "SRS". Whoever knows the secret behind an SRS can prove anything under it.

`public-ceremony`: made by many, its digest is pinned here. `verifier`: made by the verifier for this prover, who never
sees the secret: sound towards that verifier. `insecure-local`: made by the prover; shows that the machinery works.
Shows: which of these a given file is, by digest. Does not show: that a verifier kept its secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from pot.errors import LimitExceeded, Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pot.zk.engine import Engine

__all__ = ["MAX_SRS_BYTES", "PUBLIC_CEREMONY", "SrsClass", "classify", "make_srs", "srs_logrows"]

SrsClass = Literal["public-ceremony", "verifier", "insecure-local"]

MAX_SRS_BYTES: Final = 256 << 20  # k = 21; far beyond the circuits of this project

PUBLIC_CEREMONY: Final[Mapping[int, str]] = {
    1: "cafb2aa72c200ddc4e28aacabb8066e829207e2484b8d17059a566232f8a297b",
    11: "257fa566ed9bc0767d3e63e92b5e966829fa3347d320a32055dc31ee7d33f8a4",
    12: "28b151069f41abc121baa6d2eaa8f9e4c4d8326ddbefee2bd9c0776b80ac6fad",
    13: "d5d94bb25bdc024f649213593027d861042ee807cafd94b49b54f1663f8f267d",
    14: "c09129f064c08ecb07ea3689a2247dcc177de6837e7d2f5f946e30453abbccef",
    15: "90807800a1c3b248a452e1732c45ee5099f38b737356f5542c0584ec9c3ebb45",
    16: "2a1a494630e71bc026dd5c0eab4c1b9a5dbc656228c1f0d48f5dbd3909b161d3",
    17: "41509f380362a8d14401c5ae92073154922fe23e45459ce6f696f58607655db7",
}
"""SHA-256 of the public ceremony's file, by k (source: the digests that ezkl publishes for its ceremony)."""


def make_srs(engine: Engine, logrows: int) -> bytes:
    """A fresh SRS for circuits of 2^logrows rows, about one megabyte at 13. Its maker is who it can be used against."""
    return engine.make_srs(logrows)


def srs_logrows(srs: bytes) -> int:
    """k of an SRS file: a little-endian u32, then 2 * 2^k points of 64 bytes and two of 128. Raises `Malformed`."""
    if len(srs) > MAX_SRS_BYTES:
        raise LimitExceeded(f"srs: {len(srs)} bytes, more than the limit of {MAX_SRS_BYTES}")
    logrows = int.from_bytes(srs[:4], "little")
    if len(srs) < 516 or not 1 <= logrows <= 20 or len(srs) != 4 + (128 << logrows) + 256:
        raise Malformed("srs: the file's length does not fit its number of rows")
    return logrows


def classify(srs_sha256: str, accepted: Mapping[str, SrsClass]) -> SrsClass:
    """The class of an SRS by its digest: the ceremony's pinned files, else what the policy says, else insecure."""
    if srs_sha256 in PUBLIC_CEREMONY.values():
        return "public-ceremony"
    given = accepted.get(srs_sha256, "insecure-local")
    return "insecure-local" if given == "public-ceremony" else given
