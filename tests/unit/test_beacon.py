"""Beacon rounds: genuine ones of quicknet, rounds of a private chain, and everything that is none."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import py_arkworks_bls12381 as curve
import pytest
from private_beacon import PrivateBeacon

from pot.audit.challenges.beacon import (
    MAX_BEACON_BYTES,
    QUICKNET,
    BeaconRound,
    ChainInfo,
    chain_known_as,
    read_chain,
    read_round,
    verify_round,
)
from pot.canonical import canonical_bytes
from pot.errors import LimitExceeded, Malformed, MissingExtra, Refused

DRAND = Path(__file__).parents[1] / "vectors" / "drand"
ROUNDS = sorted(DRAND.glob("round-*.json"))
HASH = "52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971"
INFINITY = {"g1": "c0" + "00" * 47, "g2": "c0" + "00" * 95}


def genuine(number: int) -> BeaconRound:
    path = DRAND / f"round-{number}.json"
    return read_round(path.read_bytes(), QUICKNET, what=path.name)


@pytest.mark.parametrize("path", ROUNDS, ids=lambda path: path.stem)
def test_genuine_rounds_hold_and_give_drands_randomness(path: Path) -> None:
    beacon = read_round(path.read_bytes(), QUICKNET, what=path.name)
    assert beacon.chain == HASH
    found = verify_round(beacon, QUICKNET)
    published = json.loads(path.read_bytes())
    assert published.get("randomness", found) == found
    assert published["round"] == int(beacon.round)


def test_there_are_enough_genuine_rounds() -> None:
    assert len(ROUNDS) >= 4


def test_the_chains_hash_is_recomputed_from_key_and_clock() -> None:
    assert QUICKNET.chain_hash() == HASH
    assert read_chain((DRAND / "quicknet-info.json").read_bytes(), what="info") == QUICKNET
    for field, value in (("period", "30"), ("genesis_time", "1"), ("group_hash", "00" * 32), ("beacon_id", "default")):
        assert QUICKNET.model_copy(update={field: value}).chain_hash() != HASH


def test_when_a_round_is_due() -> None:
    assert QUICKNET.round_time(1) == 1692803367
    assert QUICKNET.round_time(1000) == 1692806364
    assert QUICKNET.round_time(21_000_000) == 1692803367 + 3 * 20_999_999


def test_hashing_to_the_curve_is_that_of_rfc_9380() -> None:
    """Appendix J.9.1, messages "" and "abc"."""
    dst = b"QUUX-V01-CS02-with-BLS12381G1_XMD:SHA-256_SSWU_RO_"
    expected = {
        b"": "052926add2207b76ca4fa57a8734416c8dc95e24501772c814278700eed6d1e4e8cf62d9c09db0fac349612b759e79a1"
        "08ba738453bfed09cb546dbb0783dbb3a5f1f566ed67bb6be0e8c67e2e81a4cc68ee29813bb7994998f3eae0c9c6a265",
        b"abc": "03567bc5ef9c690c2ab2ecdf6a96ef1c139cc0b2f284dca0a9a7943388a49a3aee664ba5379a7655d3c68900be2f6903"
        "0b9c15f3fe6e5cf4211f346271d7b01c8f3b28be689c8429c85b67af215533311f0b8dfaaa154fa6b88176c229f2885d",
    }
    for message, point in expected.items():
        assert bytes(curve.G1Point.hash_to_curve(message, dst).to_xy_bytes_be()).hex() == point


def test_a_private_chain_is_verified_with_its_own_description() -> None:
    beacon = PrivateBeacon()
    drawn = beacon.sign(77)
    assert verify_round(drawn, beacon.info) == drawn.randomness
    assert chain_known_as(drawn.chain) is None
    assert chain_known_as(drawn.chain, None, beacon.info) == beacon.info
    assert chain_known_as(HASH, beacon.info) == QUICKNET
    assert beacon.sign(2**63).round == str(2**63)
    verify_round(beacon.sign(2**63), beacon.info)


def test_another_rounds_signature() -> None:
    bent = genuine(1000).model_copy(update={"signature": genuine(21_000_000).signature})
    with pytest.raises(Refused, match="not that of the chain"):
        verify_round(bent, QUICKNET)
    with pytest.raises(Refused, match="not that of the chain"):
        verify_round(PrivateBeacon().sign(5, signed=6), PrivateBeacon().info)


def test_another_chains_round() -> None:
    drawn = PrivateBeacon().sign(1000)
    with pytest.raises(Refused, match="belongs to the chain"):
        verify_round(drawn, QUICKNET)
    with pytest.raises(Refused, match="not that of the chain"):  # relabelled
        verify_round(drawn.model_copy(update={"chain": HASH}), QUICKNET)


def test_points_at_infinity_fit_every_message_and_are_refused() -> None:
    """With both at infinity the equation holds for every round: only the check stops it."""
    key = curve.G2Point.from_compressed_bytes(bytes.fromhex(INFINITY["g2"]))
    hashed = curve.G1Point.hash_to_curve(b"anything", b"any tag")
    assert curve.GT.pairing_check([curve.G1Point.identity(), -hashed], [curve.G2Point(), key])
    with pytest.raises(Refused, match="signature is the point at infinity"):
        verify_round(genuine(1000).model_copy(update={"signature": INFINITY["g1"]}), QUICKNET)
    chain = QUICKNET.model_copy(update={"public_key": INFINITY["g2"]})
    forged = BeaconRound(chain=chain.chain_hash(), round="9", signature=INFINITY["g1"])
    with pytest.raises(Refused, match="public key is the point at infinity"):
        verify_round(forged, chain)


@pytest.mark.parametrize(
    ("signature", "why"),
    [
        ("80" + "00" * 47, "no point"),  # on the curve, not in the subgroup
        ("ff" * 48, "no point|infinity"),
        ("00" * 48, "no point"),
        ("c0" + "00" * 46 + "01", "infinity"),  # a second spelling of infinity
        ("e0" + "00" * 47, "no point|infinity"),
    ],
)
def test_what_is_no_point_of_the_group(signature: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        verify_round(genuine(1000).model_copy(update={"signature": signature}), QUICKNET)


def test_the_other_sign_is_another_point() -> None:
    signature = bytearray.fromhex(genuine(1000).signature)
    signature[0] ^= 0x20
    with pytest.raises(Refused, match="not that of the chain"):
        verify_round(genuine(1000).model_copy(update={"signature": signature.hex()}), QUICKNET)


def test_rounds_count_from_one() -> None:
    beacon = PrivateBeacon()
    with pytest.raises(Refused, match="count from 1"):
        verify_round(beacon.sign(0), beacon.info)


def test_without_the_extra_the_sentence_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py_arkworks_bls12381", None)
    with pytest.raises(MissingExtra, match=r"pip install 'pot-attest\[beacon\]'"):
        verify_round(genuine(1000), QUICKNET)


def as_file(beacon: BeaconRound, **more: Any) -> bytes:
    return canonical_bytes({"version": "pot/beacon-round/v1", **beacon.model_dump(mode="json"), **more})


def test_the_two_forms_of_a_round_and_of_a_chain_read_alike() -> None:
    beacon = genuine(1000)
    assert read_round(as_file(beacon), PrivateBeacon().info, what="round") == beacon
    info = PrivateBeacon().info
    own = canonical_bytes({"version": "pot/beacon-chain/v1", **info.model_dump(mode="json")})
    assert read_chain(own, what="chain") == info


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"round":0,"signature":"00"}',
        b'{"round":true,"signature":"00"}',
        b'{"round":"1000","signature":"00"}',
        b'{"round":1000}',
        b'{"round":1000,"signature":"' + b"0" * 95 + b'"}',
        b'{"round":1000,"randomness":"' + b"0" * 64 + b'","signature":"' + b"0" * 96 + b'"}',
        b'{"version":"pot/beacon-round/v1"}',
        as_file(genuine(1000), randomness="00" * 32),
        as_file(genuine(1000)) + b"\n",
    ],
)
def test_what_is_no_round(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_round(data, QUICKNET, what="round")


@pytest.mark.parametrize(
    "change",
    [
        {"schemeID": "pedersen-bls-chained"},
        {"hash": "00" * 32},
        {"period": 0},
        {"period": 1 << 32},
        {"genesis_time": 1 << 53},
        {"public_key": "00"},
        {"metadata": {}},
        {"metadata": None},
        {"groupHash": None},
    ],
)
def test_what_is_no_chain(change: dict[str, Any]) -> None:
    value = {**json.loads((DRAND / "quicknet-info.json").read_bytes()), **change}
    with pytest.raises(Malformed):
        read_chain(json.dumps(value).encode(), what="chain")


def test_files_have_a_cap() -> None:
    with pytest.raises(LimitExceeded):
        read_round(b" " * (MAX_BEACON_BYTES + 1), QUICKNET, what="round")
    with pytest.raises(LimitExceeded):
        read_chain(b" " * (MAX_BEACON_BYTES + 1), what="chain")


def test_a_clock_that_does_not_fit_its_bytes_is_refused() -> None:
    for change in ({"genesis_time": str(1 << 63)}, {"period": "0"}, {"period": str(1 << 32)}):
        with pytest.raises(ValueError, match="period must be"):
            ChainInfo(**{**QUICKNET.model_dump(mode="json"), **change})
