"""From integers to field elements: the vectors that the circuit takes and that KZG points commit to.

Implements `specs/step-proof.md`, section "Vectors". A state packs `LANES` weights of the hidden layer into one field
element; every vector ends in `blinds` random elements, derived from the run's secret, so that its point hides it.
Pure Python integers reduced modulo the field; bytes are 32 little-endian per element.

Shows: nothing alone. The range check before packing is the base of the argument that lanes never overflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from pot.canonical import derive
from pot.errors import Malformed
from pot.zk.exact import Step, Weights, check_batch, check_start, check_weights
from pot.zk.spec import FIELD_MODULUS, LANE_BITS, LANES, CircuitSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

__all__ = [
    "ELEMENT_BYTES",
    "Vector",
    "batch_vector",
    "blinds",
    "constants_vector",
    "encode",
    "state_vector",
    "witness_vector",
    "zero_vector",
]

Vector = list[int]
"""Field elements, 0 <= element < FIELD_MODULUS."""

ELEMENT_BYTES: Final = 32
BLIND_CONTEXT: Final = "pot/zk-blind/v1"
BLIND_LABELS: Final = ("state", "batch", "witness")


def blinds(spec: CircuitSpec, secret: bytes, label: Literal["state", "batch", "witness"], step: int) -> Vector:
    """The blinding elements of one vector: derived from the run's 32-byte secret, the label and the step.

    Two 32-byte derivations per element, reduced: the bias is below 2^-250. The state after step t has step = t.
    """
    if len(secret) != 32 or label not in BLIND_LABELS or not 0 <= step < 1 << 64:
        raise Malformed("blinds: a 32-byte secret, a known label and a step number are needed")
    result = []
    for index in range(spec.blinds):
        parts = (secret, label.encode(), step.to_bytes(8, "little"))
        wide = b"".join(derive(BLIND_CONTEXT, *parts, bytes([index, half])) for half in (0, 1))
        result.append(int.from_bytes(wide, "little") % FIELD_MODULUS)
    return result


def state_vector(spec: CircuitSpec, weights: Weights, blind: Sequence[int], *, start: bool = False) -> Vector:
    """The packed state: hidden layer by input (bias row last) in groups of `LANES` units, output layer, bias, blinds.

    `start` demands the narrower range from which the chain of proofs may begin. Raises `Malformed`, `RangeLeft`.
    """
    (check_start if start else check_weights)(spec, weights)
    rows = [*weights.hidden_weight.T.tolist(), weights.hidden_bias.tolist()]
    packed = [_lanes(row[at : at + LANES]) for row in rows for at in range(0, spec.hidden, LANES)]
    flat = weights.output_weight.T.reshape(-1).tolist() + weights.output_bias.tolist()
    return _close(spec, packed + flat, blind, spec.state_elements)


def batch_vector(spec: CircuitSpec, features: Ints, labels: Ints, blind: Sequence[int]) -> Vector:
    """The packed batch: per record its features and the bias feature, then per record its one-hot label, blinds."""
    check_batch(spec, features, labels)
    rows = [value for row in features.tolist() for value in (*row, 1 << spec.feature_bits)]
    marks = [int(unit == label) for label in labels.tolist() for unit in range(spec.outputs)]
    return _close(spec, rows + marks, blind, spec.batch_elements)


def witness_vector(spec: CircuitSpec, result: Step, blind: Sequence[int], next_blind: Sequence[int]) -> Vector:
    """The quotients and remainders of one step as limbs, then the next state's blinds, then this vector's own."""
    if len(next_blind) != spec.blinds:
        raise Malformed(f"witness: {spec.blinds} blinds of the next state are needed")
    bits, mask = spec.limb_bits, (1 << spec.limb_bits) - 1
    half = 1 << (2 * bits - 1)

    def limbs(value: int) -> tuple[int, int]:
        return value >> bits, value & mask

    hidden = [
        limb
        for magnitude, rest in zip(_flat(result.magnitude), _flat(result.hidden_rest), strict=True)
        for limb in (magnitude, *limbs(rest))
    ]
    errors = [
        limb
        for quotient, rest in zip(_flat(result.error), _flat(result.error_rest), strict=True)
        for limb in (*limbs(quotient + half), *limbs(rest))
    ]
    deltas = [
        limb
        for quotient, rest in zip(_flat(result.delta), _flat(result.delta_rest), strict=True)
        for limb in (*limbs(quotient + half), *limbs(rest))
    ]
    values = hidden + _flat(result.active) + errors + deltas
    if len(values) != spec.witness_elements or min(values) < 0 or max(values) > mask:
        raise Malformed("witness: a limb lies outside the table")  # an out-of-table lookup would hang the prover
    return _close(spec, values + list(next_blind), blind, spec.witness_elements + spec.blinds)


def constants_vector(spec: CircuitSpec) -> Vector:
    """The circuit's constants, given as an input whose point is pinned: ezkl's own constants end at 2^127.

    The order is the one in which `circuit.onnx_bytes` takes them.
    """
    t, s = spec.limb_bits, spec.shift
    scale = 1 << (t - spec.feature_range_bits)
    half_q, half_r = 1 << (2 * t - 1), 1 << (s - 1)
    lanes = [1 << (LANE_BITS * lane) for lane in range(LANES)]
    values = [
        scale,  # features are looked up a second time times this: below 2^feature_range_bits
        1 << (t - 1),  # masks and labels are looked up a second time times this: 0 or 1
        -(1 << s), 1 << t, 1,  # limbs of a hidden pre-activation
        1 << (s + 1),  # active magnitude: (2 h - a) 2^s
        1 << (s - t + 1),  # active mark, already times 2^(t-1): m 2^s
        *(scale * lane for lane in lanes),
        -((1 << s) + half_r) * scale * sum(lanes),  # q = 2h - a - 1 + m, nearest rounding
        1 << spec.hidden_bits,
        1 << (spec.weight_bits + spec.hidden_bits - t + 1),  # one-hot label, already times 2^(t-1)
        1 << (s + t), 1 << s, 1 << t, 1,  # limbs of a quotient and its remainder
        -((half_q << s) + half_r),
        1 << t, 1,  # limbs of a quotient
        half_q,
        *((1 << spec.hidden_bits) for _ in range(spec.batch)),
        *(lane << spec.hidden_update_shift for lane in lanes),
        1 << spec.output_update_shift,
        *(1 for _ in range(spec.outputs)),
        1,
        1 << spec.feature_bits,
    ]  # fmt: skip
    return [value % FIELD_MODULUS for value in values]


def zero_vector(spec: CircuitSpec) -> Vector:
    """The residual of every valid step."""
    return [0] * spec.residual_elements


def encode(vector: Iterable[int]) -> bytes:
    """32 little-endian bytes per element."""
    return b"".join(element.to_bytes(ELEMENT_BYTES, "little") for element in vector)


def _lanes(values: Sequence[int]) -> int:
    return sum(value << (LANE_BITS * lane) for lane, value in enumerate(values))


def _flat(array: Ints) -> list[int]:
    values: list[int] = array.reshape(-1).tolist()
    return values


def _close(spec: CircuitSpec, values: Sequence[int], blind: Sequence[int], length: int) -> Vector:
    if len(values) != length or len(blind) != spec.blinds:
        raise Malformed(f"a vector of {length} elements and {spec.blinds} blinds is needed")
    return [value % FIELD_MODULUS for value in (*values, *blind)]
