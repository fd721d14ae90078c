"""The shape of a provable training step: `CircuitSpec`, and every number that follows from it.

Implements `specs/step-proof.md`, sections "Grid" and "Bounds". A spec is data only; it names sizes and bit widths.
All bounds that make the circuit's field arithmetic equal to integer arithmetic are recomputed here from those
numbers when a spec is read, so a spec that would let a lane overflow does not exist as an object.

Shows: within `max_steps` steps from a start state inside `INITIAL_LIMIT`, no intermediate value leaves its lane.
Does not show: that the honest values of a given training run stay within the tables (`exact.step` checks that).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from pot.canonical import Document

__all__ = ["FIELD_MODULUS", "INITIAL_LIMIT_BITS", "LANES", "LANE_BITS", "STATE_LIMIT_BITS", "CircuitSpec"]

FIELD_MODULUS: Final = 21888242871839275222246405745257275088548364400416034343698204186575808495617
"""Order of the BN254 scalar field, in which the circuit computes."""

LANES: Final = 4  # weights packed in one field element
LANE_BITS: Final = 63  # lanes below 2^62 in magnitude: two packings differ by less than 2^252, below the modulus
INITIAL_LIMIT_BITS: Final = 6  # a start state has |w| < 2^6
STATE_LIMIT_BITS: Final = 7  # every later state has |w| < 2^7, or the trainer stops


class CircuitSpec(Document):
    """One SGD step of an MLP classifier with one hidden ReLU layer and squared error, in exact integers.

    Widths count units, `*_bits` fraction or limb bits. A number v on a grid of b bits stands for v / 2^b.
    """

    version: Literal["pot/circuit-spec/v1"]
    inputs: Annotated[int, Field(ge=1, le=4096)]
    hidden: Annotated[int, Field(ge=LANES, le=1024, multiple_of=LANES)]
    outputs: Annotated[int, Field(ge=2, le=256)]
    batch: Annotated[int, Field(ge=1, le=256)]
    weight_bits: Annotated[int, Field(ge=16, le=32)]
    feature_bits: Annotated[int, Field(ge=0, le=8)]
    feature_range_bits: Annotated[int, Field(ge=1, le=9)]
    limb_bits: Annotated[int, Field(ge=8, le=16)]
    rate_shift: Annotated[int, Field(ge=0, le=16)]
    max_steps: Annotated[int, Field(ge=1, le=1 << 20)]
    blinds: Annotated[int, Field(ge=8, le=64)]
    logrows: Annotated[int, Field(ge=9, le=20)]
    columns: Annotated[int, Field(ge=1, le=16)]

    @property
    def shift(self) -> int:
        """Bits dropped by every rounding: two limbs."""
        return 2 * self.limb_bits

    @property
    def hidden_bits(self) -> int:
        """Fraction bits of the hidden activations."""
        return self.weight_bits + self.feature_bits - self.shift

    @property
    def error_bits(self) -> int:
        """Fraction bits of the output error g."""
        return self.weight_bits + self.hidden_bits - self.shift

    @property
    def delta_bits(self) -> int:
        """Fraction bits of the back-propagated error d."""
        return self.weight_bits + self.error_bits - self.shift

    @property
    def batch_bits(self) -> int:
        """log2 of the batch size: the mean over the batch is a shift."""
        return self.batch.bit_length() - 1

    @property
    def hidden_update_shift(self) -> int:
        """The update of the hidden layer is (sum over the batch of d x) times 2^this: exact, no rounding."""
        return self.weight_bits - self.feature_bits - self.delta_bits - self.batch_bits - self.rate_shift

    @property
    def output_update_shift(self) -> int:
        """The update of the output layer is (sum over the batch of g h) times 2^this: exact, no rounding."""
        return self.weight_bits - self.hidden_bits - self.error_bits - self.batch_bits - self.rate_shift

    @property
    def groups(self) -> int:
        """Packed columns of the hidden layer."""
        return self.hidden // LANES

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return (self.inputs + 1) * self.hidden + (self.hidden + 1) * self.outputs

    @property
    def state_elements(self) -> int:
        """Field elements of a packed state, blinds left out."""
        return (self.inputs + 1) * self.groups + (self.hidden + 1) * self.outputs

    @property
    def batch_elements(self) -> int:
        """Field elements of a packed batch, blinds left out."""
        return self.batch * (self.inputs + 1 + self.outputs)

    @property
    def witness_elements(self) -> int:
        """Field elements of the witness quotients, blinds left out."""
        return self.batch * (8 * self.hidden + 4 * self.outputs)

    @property
    def residual_elements(self) -> int:
        """Field elements of the residual, which a valid step has all zero."""
        return self.batch * (self.groups + self.outputs + self.hidden + 2)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        """Refuse widths for which the field arithmetic could differ from the integers (specs/step-proof.md, Bounds)."""
        if self.batch & (self.batch - 1):
            raise ValueError("batch must be a power of two")
        if not 0 < self.hidden_bits < self.limb_bits:
            raise ValueError("weight_bits + feature_bits - 2 limb_bits must lie between 1 and limb_bits - 1")
        if min(self.error_bits, self.delta_bits) < 1:
            raise ValueError("the error would have no fraction bits")
        if min(self.hidden_update_shift, self.output_update_shift) < 0:
            raise ValueError("rate_shift is too large for an update without rounding")
        if self.feature_range_bits <= self.feature_bits or self.feature_range_bits >= self.limb_bits:
            raise ValueError("feature_range_bits must lie between feature_bits and limb_bits")
        if (1 << self.limb_bits) > (1 << self.logrows) - 16:
            raise ValueError("logrows must exceed limb_bits, so that the table fits one column")
        vectors = (
            self.state_elements,
            self.batch_elements,
            self.witness_elements + self.blinds,
            self.residual_elements,
        )
        if max(vectors) + self.blinds > (1 << self.logrows) - 16:
            raise ValueError(
                "logrows is too small: every vector must fit one column, or a proof begins with more points"
            )
        if self._lane_bound() >= 1 << (LANE_BITS - 1):
            raise ValueError("a lane could overflow: fewer max_steps, inputs or weight_bits are needed")
        if self._field_bound() >= FIELD_MODULUS >> 4:
            raise ValueError("a sum could wrap around the field: fewer max_steps or weight_bits are needed")
        if self._integer_bound() >= 1 << 62:
            raise ValueError("the reference could leave 64-bit integers: fewer outputs or weight_bits are needed")
        return self

    def _lane_bound(self) -> int:
        """A bound on |any lane| that a proof can reach within `max_steps` steps from a state that was opened."""
        delta = 1 << (2 * self.limb_bits - 1)
        feature = (1 << self.feature_range_bits) - 1
        weight = self._weight_bound((delta * feature * self.batch) << self.hidden_update_shift)
        scaled = 1 << (self.limb_bits - self.feature_range_bits)
        return weight * feature * scaled * (self.inputs + 1) + (scaled << (3 * self.limb_bits + 2))

    def _weight_bound(self, per_step: int) -> int:
        """A bound on |any weight| of one layer: `max_steps` steps from an opened start, one from any opened state."""
        start = 1 << (self.weight_bits + INITIAL_LIMIT_BITS)
        opened = 1 << (self.weight_bits + STATE_LIMIT_BITS)
        return max(start + self.max_steps * per_step, opened + per_step)

    def _field_bound(self) -> int:
        """A bound on |any sum of the output layer|, none of which is packed."""
        error = 1 << (2 * self.limb_bits - 1)
        hidden = 1 << self.limb_bits
        weight = self._weight_bound((error * hidden * self.batch) << self.output_update_shift)
        target = 1 << (self.weight_bits + self.hidden_bits)
        forward = weight * (hidden * self.hidden + (1 << self.hidden_bits)) + target
        backward = weight * error * self.outputs
        return max(forward, backward) + (1 << (4 * self.limb_bits + 1))

    def _integer_bound(self) -> int:
        """A bound on every int64 value of the reference, for states within the range that it checks."""
        weight = 1 << (self.weight_bits + STATE_LIMIT_BITS)
        error, hidden = 1 << (2 * self.limb_bits - 1), 1 << self.limb_bits
        feature = 1 << self.feature_range_bits
        return max(
            weight * feature * (self.inputs + 1),
            weight * hidden * self.hidden + (weight << self.hidden_bits),
            weight * error * self.outputs,
            (error * feature * self.batch) << self.hidden_update_shift,
            (error * hidden * self.batch) << self.output_update_shift,
        )

    @classmethod
    def digits(cls, *, rate_shift: int = 4) -> CircuitSpec:
        """The default: 64-32-10 over scikit-learn's digits (pixels 0..16), batch 8, learning rate 2^-rate_shift.

        Raises `Malformed` where the update of that rate would need rounding.
        """
        steps = 2048 >> max(0, 4 - rate_shift)  # a larger rate moves weights faster towards the end of their lanes
        value = {
            "version": "pot/circuit-spec/v1", "inputs": 64, "hidden": 32, "outputs": 10, "batch": 8, "weight_bits": 28,
            "feature_bits": 4, "feature_range_bits": 5, "limb_bits": 12, "rate_shift": rate_shift, "max_steps": steps,
            "blinds": 8, "logrows": 13, "columns": 4,
        }  # fmt: skip
        return cls.from_value(value, what=f"circuit with rate shift {rate_shift}")
