"""Rounds of a drand beacon, verified offline: randomness that nobody could know or choose before its time.

Spec: `specs/transcript.md`, "Beacon". Scheme "bls-unchained-g1-rfc9380" of drand (docs.drand.love, "Specification"; the
quicknet chain): a BLS signature in G1 of BLS12-381 under a key in G2, over SHA-256 of the number; hashing to the
curve is RFC 9380, suite BLS12381G1_XMD:SHA-256_SSWU_RO_. A chain is named by its hash, which binds its key and its
clock, so a description of a chain may come from anybody, but which chain counts is the verifier's choice.

Shows: the chain's nodes signed this round; its randomness is the SHA-256 of the signature, of which there is only one.
Does not show: that a run, a transcript or a challenge is older than the round; a log does, or who kept the digest.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Final, Literal, Self

from pydantic import StringConstraints, model_validator

from pot.canonical import Count, Document, Hex32, parse
from pot.errors import Malformed, MissingExtra, Refused
from pot.recording.precommit import BeaconRound

__all__ = ["MAX_BEACON_BYTES", "QUICKNET", "BeaconFile", "BeaconRound", "ChainInfo", "ChainInfoFile", "chain_known_as",
           "read_chain", "read_round", "round_message", "verify_round"]  # fmt: skip

MAX_BEACON_BYTES: Final = 64 << 10
_SCHEME: Final = "bls-unchained-g1-rfc9380"
_DST: Final = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
_DEFAULT_ID: Final = "default"  # drand leaves this name, and only this one, out of the chain's hash
_PURPOSE: Final = "checking a round of a drand beacon"

PublicKey = Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{192}\z")]
"""A compressed point of G2, 96 bytes, hex."""


class ChainInfo(Document):
    """What makes a chain: its key and its clock. `beacon_id`: its name; `group_hash`: of the group that began it."""

    public_key: PublicKey
    genesis_time: Count
    period: Count
    group_hash: Hex32
    beacon_id: Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9._-]{1,64}\z")]

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if not 1 <= int(self.period) < 1 << 32 or int(self.genesis_time) >= 1 << 63:
            raise ValueError("period must be 1 to 2^32 - 1 seconds, genesis_time below 2^63")
        return self

    def chain_hash(self) -> str:
        """The chain's name: SHA-256 over period (4 bytes), genesis time (8), key, group hash and beacon id."""
        clock = int(self.period).to_bytes(4, "big") + int(self.genesis_time).to_bytes(8, "big")
        name = b"" if self.beacon_id == _DEFAULT_ID else self.beacon_id.encode()
        data = clock + bytes.fromhex(self.public_key) + bytes.fromhex(self.group_hash) + name
        return hashlib.sha256(data).hexdigest()

    def round_time(self, number: int) -> int:
        """When a round is due, in seconds of Unix time: round 1 at the genesis time."""
        return int(self.genesis_time) + (number - 1) * int(self.period)


class ChainInfoFile(ChainInfo):
    """`pot/beacon-chain/v1`: a chain's description as a file."""

    version: Literal["pot/beacon-chain/v1"]


class BeaconFile(BeaconRound):
    """`pot/beacon-round/v1`: one round as a file."""

    version: Literal["pot/beacon-round/v1"]


QUICKNET: Final = ChainInfo(
    public_key="83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d106451"
    "0d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a",
    genesis_time="1692803367",
    period="3",
    group_hash="f477d5c89f21a17c863a7f937c6a6d15859414d2be09cd448d4279af331c5d3e",
    beacon_id="quicknet",
)
"""The League of Entropy's chain with a round every three seconds; its hash is 52db9ba7...c84e971."""


def chain_known_as(chain_hash: str, *others: ChainInfo | None) -> ChainInfo | None:
    """The chain with this hash: quicknet, or one of the others; None if it is none of them."""
    known = (QUICKNET, *(info for info in others if info is not None))
    return next((info for info in known if info.chain_hash() == chain_hash), None)


def round_message(number: int) -> bytes:
    """What the nodes sign: SHA-256 of the round's number as 8 bytes, big endian; 32 bytes."""
    return hashlib.sha256(number.to_bytes(8, "big")).digest()


def verify_round(beacon: BeaconRound, chain: ChainInfo) -> str:
    """Check a round's signature and return its randomness, hex.

    The equation is e(signature, g2) = e(H(message), key) (drand specification, "Beacon Verification"); both points must
    lie in their subgroup, not be infinity, and be written in their only form. Raises `Refused` where it does not hold
    or the round is another chain's, `MissingExtra` without the extra [beacon].
    """
    number = int(beacon.round)
    what = f"beacon round {number}"
    if beacon.chain != chain.chain_hash():
        raise Refused(f"{what}: belongs to the chain {beacon.chain}, not to {chain.chain_hash()}")
    if number < 1:
        raise Refused(f"{what}: rounds count from 1")
    curve = _curve()
    key = _point(curve.G2Point, chain.public_key, f"{what}: the chain's public key")
    signature = _point(curve.G1Point, beacon.signature, f"{what}: the signature")
    hashed = curve.G1Point.hash_to_curve(round_message(number), _DST)
    if not curve.GT.pairing_check([signature, -hashed], [curve.G2Point(), key]):
        raise Refused(f"{what}: the signature is not that of the chain {beacon.chain[:16]} for this round")
    return beacon.randomness


def _curve() -> Any:
    try:
        import py_arkworks_bls12381
    except ImportError:
        raise MissingExtra("beacon", _PURPOSE) from None
    return py_arkworks_bls12381


def _point(group: Any, text: str, what: str) -> Any:
    """A point of the prime-order subgroup, from its compressed form. Raises `Refused`."""
    data = bytes.fromhex(text)
    try:
        point = group.from_compressed_bytes(data)
    except ValueError:
        raise Refused(f"{what} is no point of its group") from None
    if point == group.identity():
        raise Refused(f"{what} is the point at infinity, which fits every message")
    if not point.is_in_subgroup() or bytes(point.to_compressed_bytes()) != data:  # a second spelling: another hash
        raise Refused(f"{what} is not in the only form of a point of its group")
    return point


def read_round(data: bytes, chain: ChainInfo, *, what: str) -> BeaconRound:
    """Read a round: `pot/beacon-round/v1`, or what drand's HTTP interface serves (of `chain`). Not yet verified.

    Raises `Malformed`, `LimitExceeded`.
    """
    value = _object(data, what)
    if "version" in value:
        file = BeaconFile.from_bytes(data, what=what)
        return BeaconRound(chain=file.chain, round=file.round, signature=file.signature)
    number = value.get("round")
    if type(number) is not int or number < 1:
        raise Malformed(f"{what}: field round: a number from 1 is expected")
    read = {"chain": chain.chain_hash(), "round": str(number), "signature": value.get("signature")}
    beacon = BeaconRound.from_value(read, what=what)
    if value.get("randomness", beacon.randomness) != beacon.randomness:
        raise Malformed(f"{what}: randomness is not the SHA-256 of the signature")
    return beacon


def read_chain(data: bytes, *, what: str) -> ChainInfo:
    """Read a chain's description: `pot/beacon-chain/v1`, or what drand's HTTP interface serves as `info`.

    Raises `Malformed`, also where a stated hash is not the one computed; `LimitExceeded`.
    """
    value = _object(data, what)
    if "version" in value:
        file = ChainInfoFile.from_bytes(data, what=what)
        return ChainInfo.from_value(file.model_dump(mode="json", exclude={"version"}), what=what)
    if value.get("schemeID") != _SCHEME:
        raise Malformed(f"{what}: schemeID must be {_SCHEME}; other schemes of drand are not read here")
    metadata = value.get("metadata")
    read = {
        "public_key": value.get("public_key"),
        "genesis_time": str(value.get("genesis_time")),
        "period": str(value.get("period")),
        "group_hash": value.get("groupHash"),
        "beacon_id": metadata.get("beaconID") if isinstance(metadata, dict) else None,
    }
    chain = ChainInfo.from_value(read, what=what)
    if value.get("hash", chain.chain_hash()) != chain.chain_hash():
        raise Malformed(f"{what}: hash is not that of this chain, {chain.chain_hash()}")
    return chain


def _object(data: bytes, what: str) -> dict[str, Any]:
    value = parse(data, what=what, limit=MAX_BEACON_BYTES)
    if not isinstance(value, dict):
        raise Malformed(f"{what}: a JSON object is expected")
    return value
