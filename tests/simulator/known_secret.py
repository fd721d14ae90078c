"""A reference string whose secret is known, as whoever makes one could keep it, and what its maker can do with it."""

from __future__ import annotations

from pot.zk.circuits.field import MODULUS, Vector, inverse

CURVE = 0x30644E72E131A029B85045B68181585D97816A916871CA8D3C208C16D87CFD47
"""Order of the field of BN254's points (EIP-196)."""
SECRET = 5
GENERATOR = 7  # of the scalar field's units
TWO_ADICITY = 28
G2 = (
    (
        10857046999023057135944570762232829481370756359578518086990519993285655852781,
        11559732032986387107991004021392285783925812861821192530917403151452391805634,
    ),
    (
        8495653923123431417604973247489272438418190587263600148770280649306958101930,
        4082367875863433681332203403145435568316851327593401208105741076214120093531,
    ),
)
"""x and y of the second group's generator, real part first (EIP-197)."""

Pair = tuple[int, int]


def known_srs(logrows: int) -> bytes:
    """The file that `pot.zk.srs` describes, for the secret above: powers of it, and the same for Lagrange's basis."""
    size = 1 << logrows
    doubles = [(1, 2)]
    for _ in range(MODULUS.bit_length()):
        doubles.append(_added(doubles[-1], doubles[-1]))
    scalars = [pow(SECRET, power, MODULUS) for power in range(size)] + lagrange(logrows)
    points = b"".join(_bytes(*_multiple(scalar, doubles)) for scalar in scalars)
    second = G2
    for _ in range(SECRET - 1):
        second = _added_twice(second, G2)
    return logrows.to_bytes(4, "little") + points + _bytes(*G2[0], *G2[1]) + _bytes(*second[0], *second[1])


def lagrange(logrows: int) -> Vector:
    """What each element of a vector counts in its point: Lagrange's polynomials at the secret."""
    size = 1 << logrows
    root = pow(GENERATOR, (MODULUS - 1) >> logrows, MODULUS)
    whole = (pow(SECRET, size, MODULUS) - 1) * inverse(size)
    return [whole * place * inverse(SECRET - place) % MODULUS for place in (pow(root, i, MODULUS) for i in range(size))]


def _bytes(*numbers: int) -> bytes:
    """Montgomery's form, little endian."""
    return b"".join(((number << 256) % CURVE).to_bytes(32, "little") for number in numbers)


def _added(one: Pair, two: Pair) -> Pair:
    """The sum of two points that are equal or have different x."""
    if one == two:
        slope = 3 * one[0] * one[0] * pow(2 * one[1], -1, CURVE)
    else:
        slope = (two[1] - one[1]) * pow(two[0] - one[0], -1, CURVE)
    x = (slope * slope - one[0] - two[0]) % CURVE
    return x, (slope * (one[0] - x) - one[1]) % CURVE


def _multiple(scalar: int, doubles: list[Pair]) -> Pair:
    found: Pair | None = None
    for bit, point in enumerate(doubles):
        if scalar >> bit & 1:
            found = point if found is None else _added(found, point)
    assert found is not None
    return found


def _times(one: Pair, two: Pair) -> Pair:
    """Of numbers a + b i with i^2 = -1."""
    return (one[0] * two[0] - one[1] * two[1]) % CURVE, (one[0] * two[1] + one[1] * two[0]) % CURVE


def _less(one: Pair, *others: Pair) -> Pair:
    real, imaginary = one
    for other in others:
        real, imaginary = real - other[0], imaginary - other[1]
    return real % CURVE, imaginary % CURVE


def _added_twice(one: tuple[Pair, Pair], two: tuple[Pair, Pair]) -> tuple[Pair, Pair]:
    """`_added` in the second group."""
    if one == two:
        square = _times(one[0], one[0])
        above, below = (3 * square[0], 3 * square[1]), (2 * one[1][0], 2 * one[1][1])
    else:
        above, below = _less(two[1], one[1]), _less(two[0], one[0])
    norm = pow(below[0] * below[0] + below[1] * below[1], -1, CURVE)
    slope = _times(above, (below[0] * norm, -below[1] * norm))
    x = _less(_times(slope, slope), one[0], two[0])
    return x, _less(_times(slope, _less(one[0], x)), one[1])
