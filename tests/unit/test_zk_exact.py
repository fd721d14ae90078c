"""The exact step: NumPy against a slow oracle in Python integers, shapes, ranges, and packing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pot.errors import Malformed
from pot.zk import exact, packing
from pot.zk.exact import RangeLeft, Weights
from pot.zk.spec import FIELD_MODULUS, LANE_BITS, CircuitSpec

SPEC = CircuitSpec(
    version="pot/circuit-spec/v1", inputs=5, hidden=4, outputs=3, batch=2, weight_bits=24, feature_bits=4,
    feature_range_bits=5, limb_bits=10, rate_shift=3, max_steps=256, blinds=8, logrows=11, columns=4,
)  # fmt: skip


def make(seed: int, spec: CircuitSpec = SPEC, scale: float = 0.2) -> tuple[Weights, Any, Any]:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return np.round(rng.normal(0, scale, shape) * 2**spec.weight_bits).astype(np.int64)

    weights = Weights(
        draw(spec.hidden, spec.inputs), draw(spec.hidden), draw(spec.outputs, spec.hidden), draw(spec.outputs)
    )
    features = rng.integers(0, 17, (spec.batch, spec.inputs)).astype(np.int64)
    return weights, features, rng.integers(0, spec.outputs, spec.batch).astype(np.int64)


def oracle(spec: CircuitSpec, w: Weights, features: Any, labels: Any) -> dict[str, list[Any]]:
    """The step by the book, in Python integers, one scalar at a time."""
    half, s = 1 << (spec.shift - 1), spec.shift
    w1, b1, w2, b2 = (a.tolist() for a in (w.hidden_weight, w.hidden_bias, w.output_weight, w.output_bias))
    x, y = features.tolist(), labels.tolist()
    new1, newb1, new2, newb2 = ([*map(list, w1)], list(b1), [*map(list, w2)], list(b2))
    for n in range(spec.batch):
        z = [
            sum(w1[j][i] * x[n][i] for i in range(spec.inputs)) + b1[j] * 2**spec.feature_bits
            for j in range(spec.hidden)
        ]
        q = [(v + half) // 2**s for v in z]
        h = [max(v, 0) for v in q]
        out = [
            sum(w2[k][j] * h[j] for j in range(spec.hidden)) + b2[k] * 2**spec.hidden_bits for k in range(spec.outputs)
        ]
        target = [int(k == y[n]) << (spec.weight_bits + spec.hidden_bits) for k in range(spec.outputs)]
        g = [(out[k] - target[k] + half) // 2**s for k in range(spec.outputs)]
        back = [sum(w2[k][j] * g[k] for k in range(spec.outputs)) for j in range(spec.hidden)]
        d = [(back[j] + half) // 2**s for j in range(spec.hidden)]
        in_range(q, spec.limb_bits)
        in_range(g, 2 * spec.limb_bits - 1)
        in_range(d, 2 * spec.limb_bits - 1)
        d = [d[j] if q[j] >= 0 else 0 for j in range(spec.hidden)]
        for j in range(spec.hidden):
            for i in range(spec.inputs):
                new1[j][i] -= d[j] * x[n][i] << spec.hidden_update_shift
            newb1[j] -= d[j] << (spec.feature_bits + spec.hidden_update_shift)
        for k in range(spec.outputs):
            for j in range(spec.hidden):
                new2[k][j] -= g[k] * h[j] << spec.output_update_shift
            newb2[k] -= g[k] << (spec.hidden_bits + spec.output_update_shift)
    return {"hidden_weight": new1, "hidden_bias": newb1, "output_weight": new2, "output_bias": newb2}


def in_range(values: list[int], bits: int) -> None:
    """The circuit's range of a rounded value: -2^bits to 2^bits - 1."""
    if not all(-(2**bits) <= value < 2**bits for value in values):
        raise exact.RangeLeft("by the oracle")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.02, 0.2, 0.6]))
@example(214, 0.6)  # leaves the range of the back-propagated error
def test_the_step_is_the_oracles(seed: int, scale: float) -> None:
    weights, features, labels = make(seed, scale=scale)
    try:
        wanted = oracle(SPEC, weights, features, labels)
    except exact.RangeLeft:
        with pytest.raises(exact.RangeLeft):
            exact.step(SPEC, weights, features, labels)
        return
    found = exact.step(SPEC, weights, features, labels).weights
    for name, expected in wanted.items():
        assert getattr(found, name).tolist() == expected, name


def test_the_step_follows_float_gradient_descent() -> None:
    """The integers mean what they claim: one step equals float64 SGD on half the mean squared error, up to the grid."""
    spec = CircuitSpec.digits()
    weights, features, labels = make(7, spec, 0.1)
    after = exact.step(spec, weights, features, labels).weights
    unit = 2.0**spec.weight_bits
    w1, b1, w2, b2 = (
        a / unit for a in (weights.hidden_weight, weights.hidden_bias, weights.output_weight, weights.output_bias)
    )
    x = features / 2**spec.feature_bits
    z = x @ w1.T + b1
    h = np.maximum(z, 0)
    g = (h @ w2.T + b2 - np.eye(spec.outputs)[labels]) / spec.batch
    d = (z > 0) * (g @ w2)
    rate = 2.0**-spec.rate_shift
    assert np.abs(after.hidden_weight / unit - (w1 - rate * d.T @ x)).max() < 1e-4
    assert np.abs(after.output_weight / unit - (w2 - rate * g.T @ h)).max() < 1e-4
    assert np.abs(after.output_bias / unit - (b2 - rate * g.sum(0))).max() < 1e-4


def test_every_field_of_the_witness_is_a_limb() -> None:
    weights, features, labels = make(3)
    result = exact.step(SPEC, weights, features, labels)
    vector = packing.witness_vector(SPEC, result, [0] * 8, [0] * 8)
    assert len(vector) == SPEC.witness_elements + 16
    assert max(vector) < 1 << SPEC.limb_bits


def test_features_labels_and_weights_out_of_range_are_refused() -> None:
    weights, features, labels = make(1)
    wrong = features.copy()
    wrong[0, 0] = 1 << SPEC.feature_range_bits
    with pytest.raises(Malformed, match="feature"):
        exact.step(SPEC, weights, wrong, labels)
    with pytest.raises(Malformed, match="label"):
        exact.step(SPEC, weights, features, labels + SPEC.outputs)
    with pytest.raises(Malformed, match="shape"):
        exact.step(SPEC, weights, features[:1], labels)
    big = Weights(weights.hidden_weight, weights.hidden_bias, weights.output_weight, weights.output_bias + (1 << 40))
    with pytest.raises(RangeLeft, match="output_bias"):
        exact.step(SPEC, big, features, labels)


def test_a_pre_activation_beyond_the_table_stops_the_step() -> None:
    weights, features, labels = make(1)
    bias = np.full(SPEC.hidden, 20 << SPEC.weight_bits, np.int64)
    with pytest.raises(RangeLeft, match="pre-activation"):
        exact.step(
            SPEC, Weights(weights.hidden_weight, bias, weights.output_weight, weights.output_bias), features, labels
        )


def test_lanes_unpack_to_the_weights() -> None:
    weights, _, _ = make(5)
    vector = packing.state_vector(SPEC, weights, [0] * 8)
    rows = np.vstack([weights.hidden_weight.T, weights.hidden_bias]).reshape(-1, 4).tolist()
    for element, lanes in zip(vector, rows, strict=False):
        value = element - FIELD_MODULUS if element > FIELD_MODULUS // 2 else element
        found = []
        for _ in range(4):
            lane = (value + (1 << (LANE_BITS - 1))) % (1 << LANE_BITS) - (1 << (LANE_BITS - 1))
            found.append(lane)
            value = (value - lane) >> LANE_BITS
        assert found == lanes
    assert len(vector) == SPEC.state_elements + SPEC.blinds


def test_blinds_depend_on_secret_label_and_step() -> None:
    seen = {
        tuple(packing.blinds(SPEC, secret, label, step))
        for secret in (b"\0" * 32, b"\1" * 32)
        for label in ("state", "batch", "witness")
        for step in (0, 1)
    }
    assert len(seen) == 12
    assert all(0 <= element < FIELD_MODULUS for blind in seen for element in blind)
    with pytest.raises(Malformed):
        packing.blinds(SPEC, b"short", "state", 0)


@pytest.mark.parametrize(
    "change",
    [{"batch": 3}, {"rate_shift": 9}, {"feature_range_bits": 4}, {"logrows": 10},
     {"weight_bits": 30}, {"hidden": 6}, {"limb_bits": 12}],
)  # fmt: skip
def test_specs_whose_arithmetic_could_wrap_do_not_exist(change: dict[str, int]) -> None:
    with pytest.raises(Malformed):
        CircuitSpec.from_value({**SPEC.model_dump(), **change}, what="spec")


def test_more_steps_than_a_lane_can_hold_are_refused() -> None:
    with pytest.raises(Malformed, match="lane"):
        CircuitSpec.from_value({**CircuitSpec.digits().model_dump(), "max_steps": 8192}, what="spec")


def test_the_default_spec_has_2410_parameters() -> None:
    spec = CircuitSpec.digits()
    assert (spec.parameters, spec.hidden_bits, spec.error_bits, spec.delta_bits) == (2410, 8, 12, 16)
    for shift in range(6):
        assert CircuitSpec.digits(rate_shift=shift).rate_shift == shift


def test_a_vector_longer_than_a_column_is_refused() -> None:
    """It would be committed to by two points, and every block at the front of a proof would shift by one."""
    with pytest.raises(Malformed, match="one column"):
        CircuitSpec.from_value({**SPEC.model_dump(), "hidden": 512, "max_steps": 1}, what="spec")


def test_one_step_from_any_state_that_can_be_opened_stays_in_its_lanes() -> None:
    """A step proof in the middle of a run starts at a state of magnitude below 2^7, not 2^6 as the first does."""
    shape = {**CircuitSpec.digits().model_dump(), "rate_shift": 4, "max_steps": 1}
    spec = CircuitSpec.from_value(shape, what="spec")
    features = ((1 << spec.feature_range_bits) - 1) << (spec.limb_bits - spec.feature_range_bits)
    opened = 1 << (spec.weight_bits + 7)
    assert spec._lane_bound() >= opened * features * (spec.inputs + 1)


HALF = 1 << (SPEC.shift - 1)


@pytest.mark.parametrize(
    ("value", "quotient"),
    [(0, 0), (1, 0), (-1, 0), (HALF, 1), (HALF - 1, 0), (-HALF, 0), (-HALF - 1, -1), (2 * HALF, 1), (-2 * HALF, -1)],
)
def test_ties_and_signs_of_a_rounding(value: int, quotient: int) -> None:
    """Halves go up, also below zero; the remainder 0 .. 2^s - 1 makes the quotient the only one."""
    found, rest = exact._round(SPEC, np.array([value], np.int64))
    assert found[0] == quotient == (value + HALF) // (2 * HALF)
    assert [q for q in range(-3, 4) if 0 <= value + HALF - q * 2 * HALF < 2 * HALF] == [quotient]
    assert rest[0] == value + HALF - quotient * 2 * HALF


def test_a_unit_at_exactly_zero_is_active_and_one_just_below_is_not() -> None:
    weights, features, labels = make(2)
    bias = np.zeros(SPEC.hidden, np.int64)
    half = 1 << (SPEC.shift - 1 - SPEC.feature_bits)  # bias times 2^feature_bits is half a quotient
    bias[1], bias[2], bias[3] = -half, -half - 1, 1
    still = Weights(np.zeros_like(weights.hidden_weight), bias, weights.output_weight, weights.output_bias)
    result = exact.step(SPEC, still, features, labels)
    assert result.active.tolist() == [[1, 1, 0, 1]] * SPEC.batch
    assert result.magnitude.tolist() == [[0, 0, 0, 0]] * SPEC.batch  # q = 0, and -q - 1 = 0 for the inactive unit
