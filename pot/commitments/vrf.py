"""A verifiable random function: ECVRF-EDWARDS25519-SHA512-TAI (RFC 9381), on PyNaCl's group operations.

Spec: RFC 9381 5.1 to 5.5, suite 0x03; what it is used for: `specs/hiding.md`. The output `beta` of an input `alpha` can
be computed with the secret key only; a VRF proof `pi` convinces whoever has the public key that `beta` is right.

Stricter than RFC 9381 5.3 in one way: public keys and Gamma outside the subgroup of prime order are refused, where the
RFC refuses those of small order. Keys and proofs that follow 5.1 and 5.5 are never of that kind.

Shows: `verify` returns the one output that the key has for `alpha` (uniqueness holds for any key, RFC 9381 7.1.1).
Does not show: who has the secret key; that it was chosen at random (anybody can compute the outputs of a leaked key).
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from pot.commitments.merkle_verify import ProofRefused
from pot.errors import EnvironmentFailure, MissingExtra, UsageError

__all__ = [
    "KEY_BYTES",
    "OUTPUT_BYTES",
    "PROOF_BYTES",
    "keygen",
    "output",
    "proof_to_hash",
    "prove",
    "public_key",
    "verify",
]

KEY_BYTES: Final = 32  # secret and public
PROOF_BYTES: Final = 80
OUTPUT_BYTES: Final = 64

_SUITE: Final = b"\x03"
_END: Final = b"\x00"
_POINT: Final = 32
_CHALLENGE: Final = 16  # cLen
_FIELD: Final = 2**255 - 19
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493  # q
_ZERO: Final = bytes(32)
_IDENTITY: Final = (1).to_bytes(32, "little")


def keygen() -> bytes:
    """A new secret key, 32 bytes of the operating system's randomness."""
    import secrets

    return secrets.token_bytes(KEY_BYTES)


def public_key(secret: bytes) -> bytes:
    """The public key Y = x B, 32 bytes. Raises `UsageError`, `MissingExtra`."""
    x, _ = _expand(secret)
    return bytes(_nacl().crypto_scalarmult_ed25519_base_noclamp(x))


def prove(secret: bytes, alpha: bytes, public: bytes | None = None) -> bytes:
    """The proof pi for `alpha`, 80 bytes (RFC 9381 5.1). `public`: the key's public half, if it is at hand.

    Raises `UsageError`, `MissingExtra`.
    """
    nacl = _nacl()
    x, prefix = _expand(secret)
    y = public if public is not None else public_key(secret)
    h = _encode_to_curve(y, alpha)
    gamma = _times(x, h)
    k = _nonce(prefix, h)
    c = _challenge(y, h, gamma, _times_base(k), _times(k, h))
    s = nacl.crypto_core_ed25519_scalar_add(k, nacl.crypto_core_ed25519_scalar_mul(_scalar(c), x))
    return gamma + c + bytes(s)


def output(secret: bytes, alpha: bytes, public: bytes | None = None) -> bytes:
    """The output beta for `alpha`, 64 bytes, without a proof: half the work. Raises `UsageError`, `MissingExtra`."""
    x, _ = _expand(secret)
    y = public if public is not None else public_key(secret)
    return _hash_of(_times(x, _encode_to_curve(y, alpha)))


def proof_to_hash(pi: bytes) -> bytes:
    """The output beta of a proof that is known to hold, 64 bytes (RFC 9381 5.2); `verify` is for all others.

    Raises `ProofRefused` ("vrf-encoding"), `MissingExtra`.
    """
    gamma, _, _ = _decode(pi)
    return _hash_of(gamma)


def verify(public: bytes, alpha: bytes, pi: bytes) -> bytes:
    """Refuse unless `pi` (80 bytes) shows an output for `alpha` under `public`; returns that output, 64 bytes.

    RFC 9381 5.3 with validate_key. Raises `ProofRefused` with the code "vrf-key", "vrf-encoding" or "vrf-proof";
    `MissingExtra`.
    """
    nacl = _nacl()
    # 1 the key is a point, in its only form, and not of small order (5.4.5)
    if not _in_group(public):
        raise ProofRefused("vrf-key", "VRF: the public key is not the only form of a point of prime order")
    # 2 the proof decodes (5.4.4)
    gamma, c, s = _decode(pi)
    # 3 U = s B - c Y, V = s H - c Gamma
    h = _encode_to_curve(public, alpha)
    u = nacl.crypto_core_ed25519_sub(_times_base(s), _times(_scalar(c), public))
    v = nacl.crypto_core_ed25519_sub(_times(s, h), _times(_scalar(c), gamma))
    # 4 the challenge is the one over these points
    if _challenge(public, h, gamma, u, v) != c:
        raise ProofRefused("vrf-proof", "VRF: the proof is not by this key over this input")
    return _hash_of(gamma)


def _nacl() -> Any:
    try:
        from nacl import bindings
    except ImportError:
        raise MissingExtra("hiding", "an ECVRF key") from None
    if not (bindings.has_crypto_core_ed25519 and bindings.has_crypto_scalarmult_ed25519):
        raise EnvironmentFailure("an ECVRF key needs a full libsodium; PyNaCl was built with a minimal one")
    return bindings


def _expand(secret: bytes) -> tuple[bytes, bytes]:
    """The secret scalar x, clamped, and the prefix that nonces are made from (RFC 8032 5.1.5 and 5.1.6)."""
    if len(secret) != KEY_BYTES:
        raise UsageError(f"VRF: the secret key has {len(secret)} bytes, expected {KEY_BYTES}")
    hashed = bytearray(hashlib.sha512(secret).digest())
    hashed[0] &= 248
    hashed[31] = hashed[31] & 127 | 64
    return bytes(hashed[:32]), bytes(hashed[32:])


def _encode_to_curve(public: bytes, alpha: bytes) -> bytes:
    """H, a point of prime order, by trying and counting up (5.4.1.1); the salt is the public key (5.5)."""
    for counter in range(256):
        hashed = hashlib.sha512(_SUITE + b"\x01" + public + alpha + bytes([counter]) + _END).digest()
        point = _times_cofactor(hashed[:_POINT])
        if point is not None and point != _IDENTITY:
            return point
    raise UsageError("VRF: no point was found for this input")  # one input in 2^256


def _nonce(prefix: bytes, h: bytes) -> bytes:
    """k (5.4.2.2)."""
    return bytes(_nacl().crypto_core_ed25519_scalar_reduce(hashlib.sha512(prefix + h).digest()))


def _challenge(*points: bytes) -> bytes:
    """c, 16 bytes (5.4.3)."""
    return hashlib.sha512(_SUITE + b"\x02" + b"".join(points) + _END).digest()[:_CHALLENGE]


def _hash_of(gamma: bytes) -> bytes:
    cleared = _times_cofactor(gamma)
    if cleared is None:
        raise ProofRefused("vrf-encoding", "VRF: Gamma is not a point")
    return hashlib.sha512(_SUITE + b"\x03" + cleared + _END).digest()


def _decode(pi: bytes) -> tuple[bytes, bytes, bytes]:
    """Gamma, c and s of a proof (5.4.4)."""
    if len(pi) != PROOF_BYTES:
        raise ProofRefused("vrf-encoding", f"VRF: the proof has {len(pi)} bytes, expected {PROOF_BYTES}")
    gamma, c, s = pi[:_POINT], pi[_POINT : _POINT + _CHALLENGE], pi[_POINT + _CHALLENGE :]
    if not _in_group(gamma):
        raise ProofRefused("vrf-encoding", "VRF: Gamma is not the only form of a point of prime order")
    if int.from_bytes(s, "little") >= _ORDER:
        raise ProofRefused("vrf-encoding", "VRF: s is not below the group's order, so the proof has a second form")
    return gamma, c, s


def _in_group(point: bytes) -> bool:
    """Whether these are the canonical bytes of a point of prime order; the identity is none."""
    return len(point) == _POINT and bool(_nacl().crypto_core_ed25519_is_valid_point(point))


def _times_cofactor(point: bytes) -> bytes | None:
    """Eight times the point; None where the bytes are no point's only form (RFC 8032 5.1.3)."""
    y, sign = int.from_bytes(point, "little") & (1 << 255) - 1, point[-1] >> 7
    if y >= _FIELD or (sign and y in (1, _FIELD - 1)):  # libsodium would read these as another spelling
        return None
    nacl = _nacl()
    from nacl.exceptions import CryptoError

    try:
        for _ in range(3):
            point = nacl.crypto_core_ed25519_add(point, point)
    except (CryptoError, RuntimeError):  # not on the curve
        return None
    return point


def _scalar(c: bytes) -> bytes:
    return c + bytes(32 - len(c))


def _times(scalar: bytes, point: bytes) -> bytes:
    """A point of prime order, times a scalar. libsodium refuses the scalar 0, whose product is the identity."""
    return _IDENTITY if scalar == _ZERO else bytes(_nacl().crypto_scalarmult_ed25519_noclamp(scalar, point))


def _times_base(scalar: bytes) -> bytes:
    return _IDENTITY if scalar == _ZERO else bytes(_nacl().crypto_scalarmult_ed25519_base_noclamp(scalar))
