"""The VRF beside a slow one in plain integers, and everything that a prover may not get away with."""

from __future__ import annotations

import hashlib
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pot.commitments import vrf
from pot.commitments.merkle_verify import ProofRefused
from pot.errors import MissingExtra, UsageError

P = 2**255 - 19
Q = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
Point = tuple[int, int]
IDENTITY: Point = (0, 1)
SECRET = bytes(range(32))
PUBLIC = vrf.public_key(SECRET)
PI = vrf.prove(SECRET, b"input")


def add(a: Point, b: Point) -> Point:
    product = D * a[0] * b[0] * a[1] * b[1] % P
    x = (a[0] * b[1] + a[1] * b[0]) * pow(1 + product, P - 2, P)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, P - 2, P)
    return x % P, y % P


def times(scalar: int, point: Point) -> Point:
    total = IDENTITY
    while scalar:
        if scalar & 1:
            total = add(total, point)
        point, scalar = add(point, point), scalar >> 1
    return total


def to_bytes(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def to_point(data: bytes) -> Point | None:
    """RFC 8032 5.1.3."""
    number = int.from_bytes(data, "little")
    y, sign = number & (1 << 255) - 1, number >> 255
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square or (x == 0 and sign):
        return None
    return (P - x if x & 1 != sign else x), y


def sha512(*parts: bytes) -> bytes:
    return hashlib.sha512(b"".join(parts)).digest()


def slow_prove(secret: bytes, alpha: bytes) -> tuple[bytes, bytes, bytes]:
    """RFC 9381 5.1, from its text: public key, pi, beta."""
    base = to_point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))
    assert base is not None
    hashed = sha512(secret)
    x = int.from_bytes(hashed[:32], "little") & (1 << 254) - 8 | 1 << 254
    public = to_bytes(times(x, base))
    counter, h = 0, None
    while h is None or h == IDENTITY:
        h = to_point(sha512(b"\x03\x01", public, alpha, bytes([counter]), b"\x00")[:32])
        h, counter = (None if h is None else times(8, h)), counter + 1
    gamma = times(x, h)
    k = int.from_bytes(sha512(hashed[32:], to_bytes(h)), "little") % Q
    points = [to_bytes(point) for point in (h, gamma, times(k, base), times(k, h))]
    c = sha512(b"\x03\x02", public, *points, b"\x00")[:16]
    s = (k + int.from_bytes(c, "little") * x) % Q
    beta = sha512(b"\x03\x03", to_bytes(times(8, gamma)), b"\x00")
    return public, to_bytes(gamma) + c + s.to_bytes(32, "little"), beta


@settings(max_examples=15)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100))
def test_as_the_slow_one(secret: bytes, alpha: bytes) -> None:
    public, pi, beta = slow_prove(secret, alpha)
    assert vrf.public_key(secret) == public
    assert vrf.prove(secret, alpha) == pi
    assert vrf.output(secret, alpha, public) == beta
    assert vrf.verify(public, alpha, pi) == beta


@settings(max_examples=200)
@given(st.binary(min_size=32, max_size=32))
def test_points_decode_as_the_rfc_says(data: bytes) -> None:
    """libsodium reads second spellings of points; here only the canonical one is a point."""
    expected = to_point(data)
    assert vrf._times_cofactor(data) == (None if expected is None else to_bytes(times(8, expected)))


SPELLINGS = [
    (y | sign << 255).to_bytes(32, "little") for y in (0, 1, P - 1, P, P + 1, 2, 2**255 - 1) for sign in (0, 1)
]


@pytest.mark.parametrize("data", SPELLINGS, ids=bytes.hex)
def test_edges_decode_as_the_rfc_says(data: bytes) -> None:
    expected = to_point(data)
    assert vrf._times_cofactor(data) == (None if expected is None else to_bytes(times(8, expected)))


def small_order() -> list[bytes]:
    """The eight points of the torsion subgroup."""
    for y in range(2, 100):
        point = to_point(y.to_bytes(32, "little"))
        if point is None:
            continue
        torsion = times(Q, point)
        points = [times(number, torsion) for number in range(8)]
        if len(set(points)) == 8:
            return [to_bytes(point) for point in points]
    raise AssertionError("none found")


def test_keys_of_small_order_are_refused() -> None:
    """With Y of small order a proof can be made for any output: c Y takes few values. (RFC 9381 5.4.5.)"""
    for key in small_order():
        with pytest.raises(ProofRefused) as caught:
            vrf.verify(key, b"input", PI)
        assert caught.value.code == "vrf-key"


@pytest.mark.parametrize(
    "key", [b"", PUBLIC[:31], PUBLIC + b"\x00", bytes(31) + b"\x80", b"\xff" * 32, *SPELLINGS], ids=bytes.hex
)
def test_what_is_no_key_is_refused(key: bytes) -> None:
    with pytest.raises(ProofRefused) as caught:
        vrf.verify(key, b"input", PI)
    assert caught.value.code == "vrf-key"


def test_keys_and_gammas_of_mixed_order_are_refused() -> None:
    torsion, key, gamma = to_point(small_order()[1]), to_point(PUBLIC), to_point(PI[:32])
    assert torsion is not None
    assert key is not None
    assert gamma is not None
    with pytest.raises(ProofRefused) as caught:
        vrf.verify(to_bytes(add(key, torsion)), b"input", PI)
    assert caught.value.code == "vrf-key"
    with pytest.raises(ProofRefused) as caught:
        vrf.verify(PUBLIC, b"input", to_bytes(add(gamma, torsion)) + PI[32:])
    assert caught.value.code == "vrf-encoding"


def test_s_has_one_spelling() -> None:
    s = int.from_bytes(PI[48:], "little")
    for other in (s + Q, s + 8 * Q):
        with pytest.raises(ProofRefused) as caught:
            vrf.verify(PUBLIC, b"input", PI[:48] + other.to_bytes(32, "little"))
        assert caught.value.code == "vrf-encoding"


@pytest.mark.parametrize("c", [bytes(16), b"\x01" + bytes(15), b"\xff" * 16], ids=["0", "1", "most"])
@pytest.mark.parametrize("s", [0, 1, Q - 1], ids=["0", "1", "most"])
def test_scalars_at_the_edge_are_refused_in_words(c: bytes, s: int) -> None:
    """libsodium has no product with 0 and raises; a proof with such scalars is a wrong one like any other."""
    with pytest.raises(ProofRefused) as caught:
        vrf.verify(PUBLIC, b"input", PI[:32] + c + s.to_bytes(32, "little"))
    assert caught.value.code == "vrf-proof"


def test_every_flipped_bit_is_refused() -> None:
    for bit in range(8 * len(PI)):
        bent = bytearray(PI)
        bent[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProofRefused) as caught:
            vrf.verify(PUBLIC, b"input", bytes(bent))
        assert caught.value.code in ("vrf-encoding", "vrf-proof")


def test_another_input_or_key_is_refused() -> None:
    for public, alpha in ((PUBLIC, b"inpuu"), (PUBLIC, b""), (vrf.public_key(bytes(32)), b"input")):
        with pytest.raises(ProofRefused) as caught:
            vrf.verify(public, alpha, PI)
        assert caught.value.code == "vrf-proof"
    assert vrf.verify(PUBLIC, b"input", PI) == vrf.output(SECRET, b"input")


@pytest.mark.parametrize("size", [0, 79, 81, 160])
def test_proofs_of_another_length_are_refused(size: int) -> None:
    for check in (lambda pi: vrf.verify(PUBLIC, b"input", pi), vrf.proof_to_hash):
        with pytest.raises(ProofRefused) as caught:
            check((PI + PI)[:size])
        assert caught.value.code == "vrf-encoding"


def test_secrets_have_32_bytes() -> None:
    for use in (vrf.public_key, lambda secret: vrf.prove(secret, b""), lambda secret: vrf.output(secret, b"")):
        with pytest.raises(UsageError, match="31 bytes, expected 32"):
            use(bytes(31))
    assert len(vrf.keygen()) == 32
    assert vrf.keygen() != vrf.keygen()


def test_without_pynacl_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nacl", None)
    with pytest.raises(MissingExtra, match=r"pot-attest\[hiding\]"):
        vrf.public_key(SECRET)
