"""The exact training step in integers: the specification that the circuit must meet, in NumPy.

Implements `specs/step-proof.md`, section "Step": forward, squared error, backward, SGD update of an MLP with one
hidden ReLU layer. Every rounding is floor((v + 2^(s-1)) / 2^s), a unique integer; the update needs none.
The same integers come out on any hardware. A value outside the circuit's tables stops the step with an error.

Shows: what one step is. Does not show: that anybody executed it (the step proof and replay do).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pot.errors import Malformed, Refused
from pot.zk.spec import INITIAL_LIMIT_BITS, STATE_LIMIT_BITS, CircuitSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

__all__ = ["RangeLeft", "Step", "Weights", "check_batch", "check_start", "check_weights", "logits", "step"]


class RangeLeft(Refused):
    """A value of this step lies outside the circuit's range; the step cannot be proven as it is."""


@dataclass(frozen=True)
class Weights:
    """Parameters on the grid of `weight_bits`, int64, in PyTorch's layout (rows are output units)."""

    hidden_weight: Ints
    """(hidden, inputs)"""
    hidden_bias: Ints
    """(hidden,)"""
    output_weight: Ints
    """(outputs, hidden)"""
    output_bias: Ints
    """(outputs,)"""


@dataclass(frozen=True)
class Step:
    """The result of one step, with the quotients that its proof needs as witness."""

    weights: Weights
    """State after the step."""
    active: Ints
    """(batch, hidden): 1 where the rounded pre-activation is not negative."""
    magnitude: Ints
    """(batch, hidden): q where active, else -q-1."""
    hidden_rest: Ints
    """(batch, hidden): remainder of that rounding, 0 .. 2^s - 1."""
    error: Ints
    """(batch, outputs): g, on the grid of `error_bits`."""
    error_rest: Ints
    """(batch, outputs): remainder of that rounding."""
    delta: Ints
    """(batch, hidden): rounded back-propagated error before the ReLU mask, on the grid of `delta_bits`."""
    delta_rest: Ints
    """(batch, hidden): remainder of that rounding."""
    loss_units: int
    """Sum of g^2; see `loss`."""
    spec: CircuitSpec

    @property
    def loss(self) -> float:
        """Half the squared error per record, from the rounded errors: exact numerator, one float64 division."""
        return self.loss_units / float(self.spec.batch << (2 * self.spec.error_bits + 1))


def step(spec: CircuitSpec, weights: Weights, features: Ints, labels: Ints) -> Step:
    """One SGD step with learning rate 2^-rate_shift on half the squared error, mean over the batch.

    `features`: int64 (batch, inputs), 0 .. 2^feature_range_bits - 1; `labels`: int64 (batch,), 0 .. outputs - 1.
    Raises `Malformed` for wrong shapes or inputs, `RangeLeft` when a value leaves the circuit's range.
    """
    import numpy as np

    check_weights(spec, weights)
    check_batch(spec, features, labels)
    q, hidden_rest = _round(spec, _hidden(spec, weights, features))
    active = (q >= 0).astype(np.int64)
    magnitude = np.where(q >= 0, q, -q - 1)
    _within(magnitude, 1 << spec.limb_bits, "a hidden pre-activation")
    hidden = active * magnitude
    target = np.zeros((spec.batch, spec.outputs), np.int64)
    target[np.arange(spec.batch), labels] = 1 << (spec.weight_bits + spec.hidden_bits)
    error, error_rest = _round(spec, _output(spec, weights, hidden) - target)
    _within(error, 1 << (2 * spec.limb_bits - 1), "an output error")
    delta, delta_rest = _round(spec, error @ weights.output_weight)
    _within(delta, 1 << (2 * spec.limb_bits - 1), "a back-propagated error")
    masked = active * delta
    up, out = spec.hidden_update_shift, spec.output_update_shift
    after = Weights(
        hidden_weight=weights.hidden_weight - ((masked.T @ features) << up),
        hidden_bias=weights.hidden_bias - (masked.sum(axis=0) << (up + spec.feature_bits)),
        output_weight=weights.output_weight - ((error.T @ hidden) << out),
        output_bias=weights.output_bias - (error.sum(axis=0) << (out + spec.hidden_bits)),
    )
    check_weights(spec, after)
    return Step(
        after, active, magnitude, hidden_rest, error, error_rest, delta, delta_rest, int((error * error).sum()), spec
    )


def logits(spec: CircuitSpec, weights: Weights, features: Ints) -> Ints:
    """Outputs on the grid of weight_bits + hidden_bits for any number of records: int64 (records, outputs).

    `features`: int64 (records, inputs). Raises like `step`.
    """
    import numpy as np

    check_weights(spec, weights)
    _features(spec, features, None)
    q, _ = _round(spec, _hidden(spec, weights, features))
    hidden = np.maximum(q, 0)
    _within(hidden, 1 << spec.limb_bits, "a hidden pre-activation")
    return _output(spec, weights, hidden)


def check_weights(spec: CircuitSpec, weights: Weights) -> None:
    """Shapes, dtype and the range in which int64 arithmetic is exact. Raises `Malformed` or `RangeLeft`."""
    _weights(spec, weights, spec.weight_bits + STATE_LIMIT_BITS)


def check_start(spec: CircuitSpec, weights: Weights) -> None:
    """Like `check_weights`, for the state a chain of step proofs starts from: |w| < 2^6, the base of the induction."""
    _weights(spec, weights, spec.weight_bits + INITIAL_LIMIT_BITS)


def check_batch(spec: CircuitSpec, features: Ints, labels: Ints) -> None:
    """Shapes, dtypes and ranges of one batch. Raises `Malformed`."""
    _features(spec, features, spec.batch)
    _array(labels, (spec.batch,), "labels")
    if ((labels < 0) | (labels >= spec.outputs)).any():
        raise Malformed(f"labels: a label lies outside 0..{spec.outputs - 1}")


def _weights(spec: CircuitSpec, weights: Weights, bits: int) -> None:
    shapes: list[tuple[str, Ints, tuple[int, ...]]] = [
        ("hidden_weight", weights.hidden_weight, (spec.hidden, spec.inputs)),
        ("hidden_bias", weights.hidden_bias, (spec.hidden,)),
        ("output_weight", weights.output_weight, (spec.outputs, spec.hidden)),
        ("output_bias", weights.output_bias, (spec.outputs,)),
    ]
    for name, array, shape in shapes:
        _array(array, shape, name)
        _within(array, 1 << bits, name)


def _features(spec: CircuitSpec, features: Ints, records: int | None) -> None:
    count = features.shape[0] if records is None and getattr(features, "ndim", 0) == 2 else (records or 0)
    _array(features, (count, spec.inputs), "features")
    if ((features < 0) | (features >> spec.feature_range_bits != 0)).any():
        raise Malformed(f"features: a feature lies outside 0..{(1 << spec.feature_range_bits) - 1}")


def _array(array: Any, shape: tuple[int, ...], name: str) -> None:
    import numpy as np

    if not isinstance(array, np.ndarray) or array.dtype != np.int64 or array.shape != shape:
        found = f"{getattr(array, 'dtype', type(array).__name__)} {getattr(array, 'shape', '')}"
        raise Malformed(f"{name}: an int64 array of shape {shape} is needed, this is {found}")


def _within(values: Ints, limit: int, what: str) -> None:
    if ((values >= limit) | (values < -limit)).any():
        raise RangeLeft(f"{what} leaves the circuit's range of {limit}: lower the learning rate or rescale the model")


def _hidden(spec: CircuitSpec, weights: Weights, features: Ints) -> Ints:
    z: Ints = features @ weights.hidden_weight.T + (weights.hidden_bias << spec.feature_bits)
    return z


def _output(spec: CircuitSpec, weights: Weights, hidden: Ints) -> Ints:
    z: Ints = hidden @ weights.output_weight.T + (weights.output_bias << spec.hidden_bits)
    return z


def _round(spec: CircuitSpec, values: Ints) -> tuple[Ints, Ints]:
    """Nearest multiple of 2^s, halves upward: values + 2^(s-1) = quotient 2^s + rest, 0 <= rest < 2^s."""
    shifted = values + (1 << (spec.shift - 1))
    quotient = shifted >> spec.shift
    return quotient, shifted - (quotient << spec.shift)
