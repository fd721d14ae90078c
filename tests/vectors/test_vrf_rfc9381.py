"""The three vectors of RFC 9381, Appendix B.3: every intermediate value, the proof, the output."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from pot.commitments import vrf

VECTORS = json.loads((Path(__file__).parent / "rfc9381" / "ecvrf_edwards25519_sha512_tai.json").read_bytes())


@pytest.fixture(params=VECTORS, ids=lambda vector: vector["name"])
def vector(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {name: value if name in ("name", "ctr") else bytes.fromhex(value) for name, value in request.param.items()}


def test_there_are_three() -> None:
    assert [vector["name"] for vector in VECTORS] == ["Example 16", "Example 17", "Example 18"]


def test_keys(vector: dict[str, Any]) -> None:
    x, prefix = vrf._expand(vector["sk"])
    assert x == vector["x"]
    assert hashlib.sha512(prefix + vector["h"]).digest() == vector["k_string"]
    assert vrf.public_key(vector["sk"]) == vector["pk"]


def test_every_step_of_the_proof(vector: dict[str, Any]) -> None:
    x, prefix = vrf._expand(vector["sk"])
    h = vrf._encode_to_curve(vector["pk"], vector["alpha"])
    k = vrf._nonce(prefix, h)
    assert h == vector["h"]
    assert k == vector["k"]
    assert vrf._times_base(k) == vector["u"]
    assert vrf._times(k, h) == vector["v"]
    assert vrf._times(x, h) == vector["pi"][:32]
    assert vrf._challenge(vector["pk"], h, vector["pi"][:32], vector["u"], vector["v"]) == vector["pi"][32:48]


def test_the_counter_is_the_vectors(vector: dict[str, Any]) -> None:
    """Example 17 needs a second try, so that trying again is tested too."""
    tries = []
    for counter in range(vector["ctr"] + 1):
        parts = (b"\x03\x01", vector["pk"], vector["alpha"], bytes([counter]), b"\x00")
        tries.append(vrf._times_cofactor(hashlib.sha512(b"".join(parts)).digest()[:32]))
    assert tries[-1] == vector["h"]
    assert all(point is None for point in tries[:-1])


def test_proof_and_output(vector: dict[str, Any]) -> None:
    assert vrf.prove(vector["sk"], vector["alpha"]) == vector["pi"]
    assert vrf.prove(vector["sk"], vector["alpha"], vector["pk"]) == vector["pi"]
    assert vrf.output(vector["sk"], vector["alpha"]) == vector["beta"]
    assert vrf.proof_to_hash(vector["pi"]) == vector["beta"]
    assert vrf.verify(vector["pk"], vector["alpha"], vector["pi"]) == vector["beta"]
