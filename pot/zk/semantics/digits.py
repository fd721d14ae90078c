"""The program that `pot zk setup` offers by itself: a 64-32-10 classifier of scikit-learn's digits.

Spec: `specs/step-proof.md`, section "Example". Written with `Builder`, so that making its circuit needs no PyTorch.

Shows: nothing alone.
"""

from __future__ import annotations

from typing import Final

from pot.zk.semantics.builder import Builder
from pot.zk.semantics.program import Program

__all__ = ["digits_program", "mlp_program"]

WEIGHT_BITS: Final = 28
START_WIDTH: Final = WEIGHT_BITS + 6  # |w| < 64


def digits_program(*, rate_shift: int = 4) -> Program:
    """64-32-10, batch 8, pixels 0..16 over 16, half the squared error, learning rate 2^-rate_shift."""
    return mlp_program(inputs=64, hidden=32, outputs=10, batch=8, feature_bits=4, width=5, rate_shift=rate_shift)


def mlp_program(
    *, inputs: int, hidden: int, outputs: int, batch: int, feature_bits: int, width: int, rate_shift: int,
    limb_bits: int = 12,
) -> Program:  # fmt: skip
    """One SGD step of Linear, ReLU, Linear with half the squared error, mean over the batch.

    Records: `image` (unsigned integers of `width` bits, over 2^feature_bits) and `label`. Activations and errors are
    rounded to one limb each: hidden to limb_bits - 5 fraction bits, errors to limb_bits - 2 and limb_bits - 1 or to
    what the weights' grid leaves room for. Raises `Malformed` where a value would need more bits than there are.
    """
    mean = batch.bit_length() - 1 + rate_shift
    hidden_bits = limb_bits - 5
    error_bits = min(limb_bits - 2, WEIGHT_BITS - mean - hidden_bits)
    back_bits = min(limb_bits - 1, WEIGHT_BITS - mean - feature_bits)
    b = Builder(limb_bits=limb_bits)
    w1 = b.state("0.weight", [hidden, inputs], bits=WEIGHT_BITS, width=START_WIDTH)
    b1 = b.state("0.bias", [hidden], bits=WEIGHT_BITS, width=START_WIDTH)
    w2 = b.state("2.weight", [outputs, hidden], bits=WEIGHT_BITS, width=START_WIDTH)
    b2 = b.state("2.bias", [outputs], bits=WEIGHT_BITS, width=START_WIDTH)
    x = b.batch("image", [batch, inputs], kind="unsigned", bits=feature_bits, width=width)
    y = b.batch("label", [batch, outputs], kind="marks")
    q = b.round(b.add(b.matmul(x, b.permute(w1, [1, 0])), b1), hidden_bits, limbs=1)
    h, mask = b.relu(q), b.positive(q)
    z = b.add(b.matmul(h, b.permute(w2, [1, 0])), b2)
    g = b.round(b.sub(z, b.shift(y, b.bits(z))), error_bits, limbs=1)
    d = b.mul(mask, b.round(b.matmul(g, w2), back_bits, limbs=1))
    for weight, bias, error, below in ((w1, b1, d, x), (w2, b2, g, h)):
        b.set_next(weight, b.sub(weight, b.scaled(b.matmul(b.permute(error, [1, 0]), below), mean)))
        total = b.reshape(b.sum(error, [0]), b.shape(bias))
        b.set_next(bias, b.sub(bias, b.scaled(total, mean)))
    label = f"mlp {inputs}-{hidden}-{outputs} relu, half squared error, sgd 2^-{rate_shift}, batch {batch}"
    return b.program(label=label, batch=batch, max_steps=1 << 16)
