"""A drand chain of one's own: a key that is known, so that any round can be signed at any time."""

from __future__ import annotations

from dataclasses import dataclass

import py_arkworks_bls12381 as curve

from pot.audit.challenges.beacon import BeaconRound, ChainInfo, round_message

__all__ = ["PrivateBeacon"]

DST = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"


@dataclass(frozen=True)
class PrivateBeacon:
    """A chain whose secret key is this number."""

    secret: int = 20_070_711
    beacon_id: str = "private"

    @property
    def _scalar(self) -> curve.Scalar:
        return curve.Scalar.from_be_bytes(self.secret.to_bytes(32, "big"))

    @property
    def info(self) -> ChainInfo:
        """The chain's description."""
        key = curve.G2Point() * self._scalar
        return ChainInfo(
            public_key=bytes(key.to_compressed_bytes()).hex(),
            genesis_time="1600000000",
            period="30",
            group_hash="ab" * 32,
            beacon_id=self.beacon_id,
        )

    def sign(self, number: int, signed: int | None = None) -> BeaconRound:
        """A round. `signed`: the number that is really signed, where the round is a forgery."""
        message = round_message(number if signed is None else signed)
        point = curve.G1Point.hash_to_curve(message, DST) * self._scalar
        signature = bytes(point.to_compressed_bytes()).hex()
        return BeaconRound(chain=self.info.chain_hash(), round=str(number), signature=signature)
