"""`quantise/1` and `dequantise/1`: bit by bit, against rationals."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pot.errors import Malformed
from pot.zk.semantics.fixed import WEIGHT_BITS, WEIGHT_LIMIT, dequantise, quantise


def _half_even(value: Fraction) -> int:
    return round(value)  # Python rounds a Fraction to the nearest integer, halves to even


@settings(max_examples=300, deadline=None)
@given(st.floats(min_value=-63.5, max_value=63.5, width=32, allow_subnormal=False))
def test_quantise_is_the_nearest_integer(value: float) -> None:
    found = quantise(np.array([value], np.float32))
    assert found.dtype == np.int64
    assert int(found[0]) == _half_even(Fraction(value) * (1 << WEIGHT_BITS))


@settings(max_examples=300, deadline=None)
@given(st.integers(min_value=-(WEIGHT_LIMIT - 1), max_value=WEIGHT_LIMIT - 1))
def test_dequantise_is_the_nearest_float(value: int) -> None:
    found = dequantise(np.array([value], np.int64))
    assert found.dtype == np.float32
    exact = Fraction(value, 1 << WEIGHT_BITS)
    here = abs(Fraction(float(found[0])) - exact)
    for other in (np.nextafter(found[0], np.float32(np.inf)), np.nextafter(found[0], np.float32(-np.inf))):
        assert here <= abs(Fraction(float(other)) - exact)


def test_floats_from_two_to_the_minus_five_survive_the_round_trip() -> None:
    rng = np.random.default_rng(0)
    values = (rng.uniform(2**-5, 60, 5000) * rng.choice([-1, 1], 5000)).astype(np.float32)
    assert (dequantise(quantise(values)) == values).all()


def test_halves_go_to_even() -> None:
    unit = 2.0**-WEIGHT_BITS
    values = np.array([0.5 * unit, 1.5 * unit, -0.5 * unit, -1.5 * unit], np.float32)
    assert quantise(values).tolist() == [0, 2, 0, -2]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 64.0, -64.0, 1e30])
def test_quantise_refuses_what_has_no_place(value: float) -> None:
    with pytest.raises(Malformed):
        quantise(np.array([0.0, value], np.float32))


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(Malformed, match="float32"):
        quantise(np.zeros(2))
    with pytest.raises(Malformed, match="int64"):
        dequantise(np.zeros(2, np.int32))


@pytest.mark.parametrize("value", [WEIGHT_LIMIT, -WEIGHT_LIMIT, -(2**63)])
def test_dequantise_refuses_beyond_the_limit(value: int) -> None:
    with pytest.raises(Malformed, match="2\\^35"):
        dequantise(np.array([value], np.int64))
